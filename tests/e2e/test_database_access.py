"""A database that stops letting the processes work: they wait, say why, and go on by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import pytest

from harness.client import Client, open_client, orders, until
from harness.system import Child, System, running_system, urls
from notifier.embedded.postgres import PostgresServer
from tests.e2e.conftest import DATABASE

NUMBER: Final = 45


class Fault(NamedTuple):
    """Statements of an administrator; `named` is what the processes must say."""

    breaks: str
    mends: str
    named: str
    is_seen_by_new_sessions: bool = False


FAULTS: Final = (
    Fault("REVOKE DELETE ON pauses FROM app", "GRANT DELETE ON pauses TO app", "DELETE on pauses"),
    Fault(
        "REVOKE INSERT ON attempts FROM app",
        "GRANT INSERT ON attempts TO app",
        "INSERT on attempts",
    ),
    Fault(
        "REVOKE ALL ON live, workers FROM app",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON live, workers TO app",
        "workers",
    ),
    Fault(
        "REVOKE EXECUTE ON FUNCTION ensure_days(integer) FROM app, PUBLIC",
        "GRANT EXECUTE ON FUNCTION ensure_days(integer) TO app",
        "EXECUTE on ensure_days",
    ),
    Fault("ALTER TABLE leases RENAME TO hidden", "ALTER TABLE hidden RENAME TO leases", "leases"),
    Fault("ALTER ROLE app NOLOGIN", "ALTER ROLE app LOGIN", "not permitted to log in", True),
    Fault(
        "ALTER ROLE app RENAME TO former", "ALTER ROLE former RENAME TO app", "does not exist", True
    ),
    Fault(
        "ALTER ROLE app SET search_path = nowhere",
        "ALTER ROLE app RESET search_path",
        "notifier migrate",
        True,
    ),
    Fault(
        f"REVOKE CONNECT ON DATABASE {DATABASE} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {DATABASE} TO PUBLIC",
        "permission denied for database",
        True,
    ),
)
END_SESSIONS: Final = f"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = '{DATABASE}' AND application_name = 'notifier'"""


@pytest.fixture
async def system(system_folder: Path, app_url: str, vhost_url: str) -> AsyncIterator[System]:
    with running_system(system_folder, urls(app_url, vhost_url)) as system:
        yield system


@pytest.fixture
async def client(system: System) -> AsyncIterator[Client]:
    async with open_client(system.api_url, system.sandbox_url) as client:
        yield client


@pytest.fixture
async def admin(
    app_url: str, postgres_server: PostgresServer
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    assert DATABASE in app_url
    connection = await asyncpg.connect(postgres_server.url(DATABASE))
    yield connection
    await connection.close()


async def test_processes_that_lose_their_rights_wait_for_them_and_new_ones_do_not_start(
    system: System, client: Client, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    system.start_all()
    processes = system.children[1:]
    accepted = list[str]()
    for fault in FAULTS:
        await admin.execute(fault.breaks)
        if fault.is_seen_by_new_sessions:
            await admin.execute(END_SESSIONS)
        for process in processes:
            await refused_because_of(client, process, fault.named)
        for command in ("api", "worker"):
            done = system.run(command)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
            assert fault.named in done.stderr
        await admin.execute(fault.mends)
        for process in processes:
            await ready_again(client, process)
        accepted += await client.submit(orders(NUMBER))
    assert await client.all_final(accepted) == {"sent": len(accepted)}
    assert set((await client.accepted()).values()) == {1}
    assert all(process.is_running for process in processes)


async def test_processes_keep_working_and_start_under_a_newer_compatible_schema(
    system: System, client: Client, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    system.start_all()
    ids = await client.submit(orders(NUMBER))
    await admin.execute("""
        ALTER TABLE live ADD COLUMN newer integer NOT NULL DEFAULT 7;
        ALTER TABLE attempts ADD COLUMN newer text NOT NULL DEFAULT '';
        ALTER TABLE workers ADD COLUMN newer text NOT NULL DEFAULT '';
        CREATE TABLE of_the_newer_version (id integer);
        UPDATE alembic_version SET version_num = '9999'""")
    ids += await client.submit(orders(NUMBER))
    later = system.start_another_worker()
    assert '"schema_is_newer"' in later.log.read_text()
    ids += await client.submit(orders(NUMBER))
    assert await client.all_final(ids) == {"sent": 3 * NUMBER}
    assert set((await client.accepted()).values()) == {1}
    for process in system.children[1:]:
        assert process.is_running
        assert "Traceback" not in process.log.read_text()


async def refused_because_of(client: Client, process: Child, named: str) -> None:
    await until(
        lambda: client.readiness(process.url),
        lambda found: found[0] == 503 and named in str(found[1]),
    )


async def ready_again(client: Client, process: Child) -> None:
    await until(lambda: client.readiness(process.url), lambda found: found[0] == 200)
