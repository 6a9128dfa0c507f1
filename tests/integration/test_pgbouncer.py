"""Behind PgBouncer: session mode works, the other modes are refused by name at the start."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest

from harness.pgbouncer import PgBouncer, running_pgbouncer
from notifier.adapters.postgres.access import PooledConnection, require_own_sessions
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import open_controls
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.postgres.store import open_store
from notifier.domain.controls import Scope, ScopeKind
from notifier.embedded.postgres import PostgresServer
from tests.builders import a_notification, due_ranges, worker_id
from tests.conftest import NUMBERS

TIMEOUT_S = 60
POOLING = ("transaction", "statement")


@pytest.fixture
def pooler(
    session_folder: Path, postgres_server: PostgresServer
) -> Iterator[Callable[[str], PgBouncer]]:
    """Start a PgBouncer in a mode."""
    with ExitStack() as stack:

        def start(mode: str) -> PgBouncer:
            folder = session_folder / f"pgbouncer-{next(NUMBERS)}"
            return stack.enter_context(running_pgbouncer(folder, postgres_server, pool_mode=mode))

        yield start


def run(folder: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("NOTIFIER_")}
    return subprocess.run(
        [sys.executable, "-m", "notifier", *words],
        cwd=folder,
        env=environ
        | {"NOTIFIER_DATABASE_URL": url, "NOTIFIER_BROKER_URL": "amqp://guest:guest@127.0.0.1:1/"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("mode", POOLING)
async def test_sessions_that_are_lent_are_found_idle_and_busy(
    pooler: Callable[[str], PgBouncer], database_url: str, mode: str
) -> None:
    url = pooler(mode).url(database_url)
    for _ in range(3):
        with pytest.raises(PooledConnection):
            await require_own_sessions(ConnectionSettings(url=url))
    others = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        for other in others:
            group.create_task(other.execute("SELECT pg_sleep(0.01)"))
    with pytest.raises(PooledConnection):
        await require_own_sessions(ConnectionSettings(url=url))
    for other in others:
        await other.close()


@pytest.mark.parametrize("mode", POOLING)
@pytest.mark.parametrize("command", ["api", "worker", "migrate"])
def test_each_command_refuses_them_in_one_line(
    pooler: Callable[[str], PgBouncer],
    database_url: str,
    tmp_path: Path,
    mode: str,
    command: str,
) -> None:
    done = run(tmp_path, pooler(mode).url(database_url), command)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert "PgBouncer" in lines[0]
    assert "pool_mode = session" in lines[0]


def test_doctor_names_the_pooler(
    pooler: Callable[[str], PgBouncer], database_url: str, tmp_path: Path
) -> None:
    done = run(tmp_path, pooler("transaction").url(database_url), "doctor", "--json")
    reach = next(row for row in json.loads(done.stdout) if row["check"] == "postgres")
    assert reach["status"] == "wrong"
    assert "PgBouncer" in reach["finding"]


async def test_in_session_mode_statements_settings_and_listen_work(
    pooler: Callable[[str], PgBouncer], empty_database_url: str
) -> None:
    url = pooler("session").url(empty_database_url)
    await asyncio.to_thread(migrate, url)
    settings = ConnectionSettings(url=url, statement_timeout_s=3)
    await require_own_sessions(settings)
    async with (
        open_store(settings, worker_id()) as store,
        open_controls(settings, worker_id()) as controls,
    ):
        await store.insert([a_notification()])
        assert len((await store.read_due(due_ranges())).rows) == 1
        async with store._connections.relay.acquire() as connection:
            assert await connection.fetchval("SHOW statement_timeout") == "3s"
            assert await connection.fetchval("SHOW enable_sort") == "off"
        await controls.wait_for_change(TIMEOUT_S)  # the listener has connected
        async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
            group.create_task(controls.wait_for_change(2 * TIMEOUT_S))
            await controls.pause(Scope(ScopeKind.CHANNEL, "email"), note="", for_s=None)
