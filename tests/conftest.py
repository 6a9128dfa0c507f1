"""Fixtures with real servers, started by the first test that needs them; unit tests start none.

A missing server is an error, never a skip. No test may leave a task, no run may leave a process.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from harness.rabbitmq import RabbitmqNode, choose_rabbitmq, running_node
from harness.tcp_proxy import TcpProxy, open_proxy
from notifier.embedded.postgres import PostgresServer, running_postgres
from notifier.embedded.rabbitmq import RabbitmqInstall
from tests.granted import ROLE

NUMBERS = itertools.count(1)
CANCELLED_TASK_TIMEOUT_S = 5.0

# The same examples in every run and no deadline, so that a busy machine fails no test.
# `--hypothesis-profile=long` searches for more.
settings.register_profile(
    "short",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine must not fail a test
)
settings.register_profile(
    "long", max_examples=2000, stateful_step_count=80, deadline=None, print_blob=True
)
settings.load_profile("short")

# A shell makes background processes ignore SIGINT, and nohup SIGHUP: the children of pytest would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres-bin",
        type=Path,
        metavar="DIR",
        help="run Postgres from the programs in this folder instead of the wheel's",
    )
    parser.addoption(
        "--rabbitmq",
        default="",
        choices=("", "4", "4.0"),
        help="run only the tests that use RabbitMQ, on the one that "
        "`deploy/install-rabbitmq --version` unpacked",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --rabbitmq, keep the tests that use a RabbitMQ of the fixtures."""
    if not config.getoption("--rabbitmq"):
        return
    others = [item for item in items if not _uses_rabbitmq(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _uses_rabbitmq(item: pytest.Item) -> bool:
    parameters = getattr(item, "callspec", None)
    return "rabbitmq_install" in getattr(item, "fixturenames", ()) or (
        parameters is not None and "rabbitmq" in parameters.params.values()
    )


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left(session_folder: Path) -> Iterator[None]:
    """Check after the last server has stopped, because it is set up before any server."""
    yield
    leftovers = (
        _describe_leftover(process, session_folder) for process in Path("/proc").glob("[0-9]*")
    )
    left = [line for line in leftovers if line]
    assert not left, f"processes left behind: {left}"


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    """The folder of the session's servers; the servers' user may enter it."""
    _remove_folders_of_killed_sessions(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=f"notifier-tests-{os.getpid()}-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def _remove_folders_of_killed_sessions(where: Path) -> None:
    """Remove the folders of killed sessions, whose servers died with them."""
    for folder in where.glob("notifier-tests-*-*"):
        if not Path("/proc", folder.name.split("-")[2]).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _describe_leftover(process: Path, folder: Path) -> str:
    """Return pid and command of a child of ours or a process in the session's folder, else ""."""
    try:
        state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
        is_resident = (process / "cwd").readlink().is_relative_to(folder)
        command = (process / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
    is_ours = int(parent) == os.getpid() or is_resident
    return f"{process.name} {command}" if is_ours and state != "Z" else ""


@pytest.fixture(autouse=True)
def no_task_is_left_by_an_async_test(request: pytest.FixtureRequest) -> None:
    """Check after all other fixtures of the test have ended, because it is set up first."""
    function = getattr(request, "function", None)
    hypothesis = getattr(function, "hypothesis", None)
    if inspect.iscoroutinefunction(getattr(hypothesis, "inner_test", function)):
        request.getfixturevalue("no_task_is_left")


@pytest.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = _tasks() - before
    if cancelled := {task for task in left if task.cancelling()}:
        await asyncio.wait(cancelled, timeout=CANCELLED_TASK_TIMEOUT_S)
    running = [repr(task) for task in left if not task.done()]
    assert not running, f"tasks left running: {running}"


def _tasks() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


@pytest.fixture(scope="session")
def postgres_bin(pytestconfig: pytest.Config) -> Path | None:
    """The folder given by --postgres-bin, or None."""
    given: Path | None = pytestconfig.getoption("--postgres-bin")
    return given


@pytest.fixture(scope="session")
def postgres_server(session_folder: Path, postgres_bin: Path | None) -> Iterator[PostgresServer]:
    """The session's Postgres. A test that stops a server uses `private_postgres`."""
    with running_postgres(
        session_folder / "postgres", bin_folder=postgres_bin, durable=False, keep=False
    ) as server:
        yield server


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A new, empty database."""
    with _database(postgres_server, template="template0") as url:
        yield url


@pytest.fixture
def database_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A new database with all migrations applied."""
    with _database(postgres_server, template=migrated_template) as url:
        yield url


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to the test's database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """A migrated database that others are copied from."""
    return _migrated(postgres_server)


@pytest.fixture
def private_postgres(session_folder: Path, postgres_bin: Path | None) -> Iterator[PostgresServer]:
    """A private Postgres that the test may stop and kill.

    Use `await run_steps_async(server.restarting())` where the event loop must run meanwhile.
    """
    folder = session_folder / f"postgres-{next(NUMBERS)}"
    with running_postgres(folder, bin_folder=postgres_bin, durable=False, keep=False) as server:
        yield server


@pytest.fixture
def private_database_url(private_postgres: PostgresServer) -> str:
    """A migrated database on `private_postgres`."""
    return private_postgres.url(_migrated(private_postgres))


@pytest.fixture(scope="session")
def app_role(postgres_server: PostgresServer) -> Iterator[str]:
    """A role that may only log in. It outlives the databases that grant it more."""
    execute(postgres_server, f"CREATE ROLE {ROLE} LOGIN")
    yield ROLE
    execute(postgres_server, f"DROP ROLE {ROLE}")


def _migrated(server: PostgresServer) -> str:
    from notifier.adapters.postgres.migrate import migrate  # noqa: PLC0415 alembic loads slowly

    execute(server, "CREATE DATABASE migrated TEMPLATE template0")
    in_a_thread(lambda: migrate(server.url("migrated")))
    return "migrated"


@contextmanager
def _database(server: PostgresServer, *, template: str) -> Iterator[str]:
    name = f"test_{next(NUMBERS)}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.url(name)
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def execute(server: PostgresServer, statement: str) -> None:
    """Run one statement in the database `postgres`."""

    async def run() -> None:
        connection = await asyncpg.connect(server.url())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    in_a_thread(lambda: run_alone(run()))


def run_alone(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner() as runner:
        runner.run(work)


def in_a_thread(work: Callable[[], object]) -> None:
    """Run work with its own event loop in a thread, apart from the test's loop."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 raised again in the test's thread
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@pytest.fixture(scope="session")
def rabbitmq_install(pytestconfig: pytest.Config) -> RabbitmqInstall:
    """The RabbitMQ installation to use."""
    return choose_rabbitmq(pytestconfig.getoption("--rabbitmq"))


@pytest.fixture(scope="session")
def rabbitmq_server(
    session_folder: Path, rabbitmq_install: RabbitmqInstall
) -> Iterator[RabbitmqNode]:
    """The session's node. A test that stops it takes `private_rabbitmq`."""
    with running_node(session_folder / "rabbitmq", install=rabbitmq_install, keep=False) as server:
        yield server


@pytest.fixture
def vhost_url(rabbitmq_server: RabbitmqNode) -> Iterator[str]:
    """A new vhost."""
    with _vhost(rabbitmq_server) as url:
        yield url


@pytest.fixture(scope="module")
def private_node(session_folder: Path, rabbitmq_install: RabbitmqInstall) -> Iterator[RabbitmqNode]:
    """One node for all tests of a module that stop it, since a start takes seconds."""
    folder = session_folder / f"rabbitmq-{next(NUMBERS)}"
    with running_node(folder, install=rabbitmq_install, keep=False) as server:
        yield server


@pytest.fixture
def private_rabbitmq(private_node: RabbitmqNode) -> RabbitmqNode:
    """A running node that the test may stop, kill and wipe.

    Use `await run_steps_async(server.restarting())` where the event loop must run meanwhile.
    """
    if private_node.pid is None:
        private_node.start()
    return private_node


@pytest.fixture
def private_vhost_url(private_rabbitmq: RabbitmqNode) -> Iterator[str]:
    """A new vhost on `private_rabbitmq`."""
    with _vhost(private_rabbitmq) as url:
        yield url


@contextmanager
def _vhost(server: RabbitmqNode) -> Iterator[str]:
    name = f"test-{next(NUMBERS)}"
    server.create_vhost(name)
    yield server.url(name)
    if server.pid is None:
        server.start()
    server.delete_vhost(name)


@pytest.fixture
def tcp_proxy() -> Callable[[str, int | str | Path], AbstractAsyncContextManager[TcpProxy]]:
    """Opens a proxy: `async with tcp_proxy(host, port_or_socket_path) as proxy`."""
    return open_proxy
