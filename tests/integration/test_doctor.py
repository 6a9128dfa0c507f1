"""`notifier doctor` against real servers, working and broken: its findings; it changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiormq
import asyncpg
import pytest
from aiormq.abc import AbstractChannel
from uuid_utils.compat import uuid7

from harness.client import until
from harness.rabbitmq import ClusterPeer, RabbitmqNode
from harness.tcp_proxy import TcpProxy
from notifier.adapters.postgres.checkup import _ReadOnlySession, _schema
from notifier.adapters.postgres.connection import ConnectionSettings, open_connection
from notifier.adapters.postgres.diagnosis import CONNECTIONS_BY_KIND, ConfiguredNames, Server
from notifier.adapters.postgres.heartbeat import open_heartbeat
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.store import open_store
from notifier.adapters.rabbitmq.broker import open_rabbitmq_broker
from notifier.adapters.rabbitmq.checkup import _examine, _inspect
from notifier.adapters.rabbitmq.connection import open_connection as open_rabbitmq_connection
from notifier.adapters.rabbitmq.topology import EXCHANGE, declare, queue_name
from notifier.app.doctor import examine
from notifier.domain.breaker import ProviderFigures
from notifier.domain.errors import ConfigError
from notifier.domain.finding import CheckStatus, Finding
from notifier.domain.notification import Channel, Priority, QueueKey, WorkerId
from notifier.domain.webhooks import WEBHOOK_QUEUE
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.process import run_steps_async
from notifier.embedded.rabbitmq import RabbitmqInstall
from notifier.embedded.server import opened
from notifier.ports.heartbeat import Figures, QueueFigures
from notifier.ports.store import ClaimRequest
from notifier.sandbox import Sandbox, open_sandbox
from notifier.settings import load_settings
from tests.builders import a_notification
from tests.conformance.receiving import (
    EMAIL_LOW,
    CountingObserver,
    pointers,
    wait_until_ready,
)
from tests.conformance.receiving import QUEUES as DEFAULT_QUEUES
from tests.granted import granted_by_the_deploy_guide
from tests.integration.raw_servers import open_smtp_script
from tests.integration.test_rabbitmq_faults import _set_memory_limit as set_memory_limit

QUEUES = [*DEFAULT_QUEUES, WEBHOOK_QUEUE]
"""Of a process: those of the default settings, and that of webhooks."""
TABLE_CHECKS = {
    "postgres rights",
    "postgres partitions",
    "notifications",
    "processes",
    "features",
    "leases",
    "postgres connections",
    "channels",
    "pauses",
    "breakers",
    "deployments",
    "keys",
    "schedules",
    "fallbacks",
    "receipts",
}
POSTGRES_CHECKS = TABLE_CHECKS | {
    "postgres version",
    "clock",
    "postgres durability",
    "postgres migrations",
}
RABBITMQ_CHECKS = {
    "rabbitmq version",
    "rabbitmq exchange",
    "rabbitmq alarm",
    "rabbitmq limits",
    "rabbitmq delivery",
    *(f"rabbitmq queue {queue}" for queue in QUEUES),
}
ALL_CHECKS = {
    "settings",
    "postgres",
    "rabbitmq",
    "provider smtp",
    "provider twilio",
    "provider fcm",
    *POSTGRES_CHECKS,
    *RABBITMQ_CHECKS,
}
PASSWORD = "correct-horse"
NO_NAMES = ConfiguredNames(queues=[], channels=[], providers=[])

Proxy = Callable[[str, int | str | Path], AbstractAsyncContextManager[TcpProxy]]


class CommandResult(NamedTuple):
    """The output of the command and its exit code."""

    code: int
    out: str
    err: str


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox(http_port=0, smtp_port=0) as opened:
        yield opened


@pytest.fixture
def environ(sandbox: Sandbox, database_url: str, vhost_url: str) -> dict[str, str]:
    """The settings of a working deployment; a test breaks one part of it."""
    return {
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_BROKER_URL": vhost_url,
        "NOTIFIER_API__AUTH": "off",
        "NOTIFIER_PROVIDERS__SMTP__PORT": str(sandbox.smtp_port),
        "NOTIFIER_PROVIDERS__TWILIO__URL": f"{sandbox.http_url}/twilio",
        "NOTIFIER_PROVIDERS__FCM__URL": f"{sandbox.http_url}/fcm",
    }


@pytest.fixture
async def app_url(app_role: str, database_url: str) -> str:
    """The database as seen by a role with the privileges of docs/deploy.md."""
    await in_database(database_url, granted_by_the_deploy_guide())
    return database_url.replace("postgres@", f"{app_role}@")


async def in_database(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


@asynccontextmanager
async def rabbitmq_user(
    server: RabbitmqNode, url: str, rights: Mapping[str, str]
) -> AsyncIterator[str]:
    """A user with these rights in the vhost of `url`; yields the URL with this user."""
    vhost = url.rpartition("/")[2]
    body = json.dumps({"password": "limited", "tags": ""})
    await management(server, "PUT", "/api/users/limited", body)
    await management(server, "PUT", f"/api/permissions/{vhost}/limited", json.dumps(rights))
    try:
        yield url.replace("guest:guest", "limited:limited")
    finally:
        await management(server, "DELETE", "/api/users/limited")


async def use_channel(url: str, declaring: Callable[[AbstractChannel], object]) -> None:
    connection = await aiormq.connect(url)
    try:
        work = declaring(await connection.channel())
        assert asyncio.iscoroutine(work)
        await work
    finally:
        await connection.close()


async def beat(
    database_url: str, kind: str, providers: Mapping[str, ProviderFigures] | None = None
) -> WorkerId:
    """Write the heartbeat of a process of that kind; returns its id."""
    worker = WorkerId(uuid7())
    async with open_heartbeat(ConnectionSettings(url=database_url), worker) as heartbeat:
        figures = Figures(queues={}, providers=providers or {})
        await heartbeat.beat(kind=kind, host="here", pid=1, beat=1, figures=figures)
    return worker


async def hold_leases(database_url: str, holder: WorkerId | None) -> None:
    """Make a process the holder of the leases of all queues."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            "INSERT INTO leases (queue, holder) SELECT *, $2 FROM unnest($1::text[])",
            [str(queue) for queue in QUEUES],
            holder,
        )
    finally:
        await connection.close()


async def examined(
    environ: Mapping[str, str], folder: Path, clock: Callable[[], float] = time.time
) -> dict[str, Finding]:
    found = await examine(load_settings(environ, cwd=folder), clock=clock)
    names = [finding.check for finding in found]
    assert len(names) == len(set(names))
    for finding in found:
        assert finding.finding
        assert bool(finding.fix) is (finding.status is not CheckStatus.OK), finding
    return {finding.check: finding for finding in found}


async def run_doctor(environ: Mapping[str, str], folder: Path, *words: str) -> CommandResult:
    without = {name: at for name, at in os.environ.items() if not name.startswith("NOTIFIER_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifier", "doctor", *words),
        cwd=folder,
        env=without | dict(environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return CommandResult(process.returncode, out.decode(), err.decode())


def not_ok(found: Mapping[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.status is not CheckStatus.OK}


def not_checked(found: Mapping[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.finding.startswith("not checked: ")}


class TestCommand:
    async def test_all_checks_are_ok_when_everything_is_running(
        self, environ: dict[str, str], database_url: str, vhost_url: str, tmp_path: Path
    ) -> None:
        for kind in ("api", "worker"):
            await beat(database_url, kind)
        await hold_leases(database_url, await beat(database_url, "worker"))
        await use_channel(vhost_url, lambda channel: declare(channel, QUEUES))
        found = await examined(environ, tmp_path)
        assert not_ok(found) == set()
        assert set(found) == ALL_CHECKS
        assert found["processes"].finding == "alive: 1 api, 2 worker"
        needed = CONNECTIONS_BY_KIND["api"] + 2 * CONNECTIONS_BY_KIND["worker"]
        assert f"{needed} needed" in found["postgres connections"].finding

    async def test_warnings_only_exit_with_0_and_the_json_has_every_check(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        result = await run_doctor(environ, tmp_path, "--json")
        assert (result.code, result.err) == (0, "")
        rows = json.loads(result.out)
        assert {row["check"] for row in rows} == ALL_CHECKS
        assert all(set(row) == {"check", "status", "finding", "fix"} for row in rows)
        assert {row["check"] for row in rows if row["status"] == "warning"} == {"processes"}
        assert not any(row["status"] == "wrong" for row in rows)

    async def test_a_wrong_check_exits_with_1_and_the_table_shows_its_fix(
        self, environ: dict[str, str], empty_database_url: str, vhost_url: str, tmp_path: Path
    ) -> None:
        await use_channel(
            vhost_url, lambda channel: channel.queue_declare(queue_name(EMAIL_LOW), durable=True)
        )
        environ["NOTIFIER_DATABASE_URL"] = empty_database_url
        result = await run_doctor(environ, tmp_path)
        assert (result.code, result.err) == (1, "")
        assert re.search(
            r"postgres migrations +wrong +the database has no Notifier tables", result.out
        )
        assert "fix: run `notifier migrate`" in result.out
        assert re.search(r"rabbitmq queue email.low +wrong +PRECONDITION_FAILED", result.out)
        assert result.out.count("fix that first") == 1

    async def test_a_wrong_setting_exits_with_2_and_one_line(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        result = await run_doctor(environ | {"NOTIFIER_API__PORT": "0"}, tmp_path, "--json")
        assert (result.code, result.out) == (2, "")
        assert "api.port (NOTIFIER_API__PORT): got '0'" in result.err
        assert len(result.err.splitlines()) == 1

    async def test_missing_urls_exit_with_2_and_name_the_settings(self, tmp_path: Path) -> None:
        result = await run_doctor({}, tmp_path)
        assert (result.code, result.out) == (2, "")
        assert "NOTIFIER_DATABASE_URL is not set" in result.err
        assert "NOTIFIER_BROKER_URL is not set" in result.err

    async def test_an_unusable_provider_exits_with_2(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        environ["NOTIFIER_PROVIDERS__TWILIO__URL"] = "http://127.0.0.1/{{ recipient"
        result = await run_doctor(environ, tmp_path)
        assert (result.code, result.out) == (2, "")
        assert "not a template" in result.err

    @pytest.mark.parametrize("words", [(), ("--json",)])
    async def test_no_secret_is_shown_when_everything_is_broken(
        self, tmp_path: Path, words: tuple[str, ...]
    ) -> None:
        async with open_smtp_script(
            {"EHLO": "250-raw\r\n250 AUTH PLAIN", "AUTH": f"535 {PASSWORD} is wrong"}
        ) as mail:
            result = await run_doctor(
                {
                    "NOTIFIER_DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/d",
                    "NOTIFIER_BROKER_URL": f"amqp://u:{PASSWORD}@127.0.0.1:{free_port()}/v",
                    "NOTIFIER_PROVIDERS__SMTP__PORT": str(mail.port),
                    "NOTIFIER_PROVIDERS__SMTP__USERNAME": "somebody",
                    "NOTIFIER_PROVIDERS__SMTP__PASSWORD": PASSWORD,
                    "NOTIFIER_PROVIDERS__TWILIO__URL": f"http://127.0.0.1:{free_port()}/{PASSWORD}",
                    "NOTIFIER_PROVIDERS__FCM__URL": f"http://u:{PASSWORD}@127.0.0.1:{free_port()}/",
                    "NOTIFIER_PROVIDERS__TWILIO__HEADERS__AUTHORIZATION": PASSWORD,
                },
                tmp_path,
                *words,
            )
        assert (result.code, result.err) == (1, "")
        assert result.out.count("wrong") >= 5
        assert PASSWORD not in result.out
        assert "somebody" not in result.out

    async def test_doctor_changes_nothing(
        self,
        environ: dict[str, str],
        empty_database_url: str,
        rabbitmq_server: RabbitmqNode,
        sandbox: Sandbox,
        tmp_path: Path,
    ) -> None:
        before = await contents_of(environ, rabbitmq_server)
        await examined(environ, tmp_path)
        await examined(environ | {"NOTIFIER_DATABASE_URL": empty_database_url}, tmp_path)
        # RabbitMQ 4.3 deletes the queues of a closed connection a moment later.
        await until(lambda: contents_of(environ, rabbitmq_server), lambda found: found == before)
        assert await tables_of(empty_database_url) == []
        assert len(sandbox.log) == 0
        assert list(tmp_path.iterdir()) == []


async def tables_of(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT relname || ' ' || coalesce(n_live_tup::text, '') AS name FROM pg_class"
            " LEFT JOIN pg_stat_user_tables USING (relname)"
            " WHERE relnamespace = 'public'::regnamespace ORDER BY name"
        )
    finally:
        await connection.close()
    return [row["name"] for row in rows]


async def contents_of(environ: Mapping[str, str], server: RabbitmqNode) -> list[object]:
    vhost = environ["NOTIFIER_BROKER_URL"].rpartition("/")[2]
    kinds = ("exchanges", "queues", "bindings")
    responses = [await management(server, "GET", f"/api/{kind}/{vhost}") for kind in kinds]
    names = [
        sorted(str(item.get("name", item)) for item in json.loads(response))
        for response in responses
    ]
    return [*names, await tables_of(environ["NOTIFIER_DATABASE_URL"])]


async def management(server: RabbitmqNode, method: str, path: str, body: str = "") -> str:
    import aiohttp  # noqa: PLC0415 used here alone

    async with (
        aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session,
        session.request(method, server.management_url + path, data=body) as response,
    ):
        assert response.ok, await response.text()
        return await response.text()


class TestPostgres:
    async def test_an_unreachable_postgres_hides_no_other_check(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        environ["NOTIFIER_DATABASE_URL"] = f"postgresql://u@127.0.0.1:{free_port()}/d"
        found = await examined(environ, tmp_path)
        assert set(found) == ALL_CHECKS
        assert not_ok(found) == {"postgres", *POSTGRES_CHECKS}
        assert found["postgres"].status is CheckStatus.WRONG
        assert "start Postgres" in found["postgres"].fix
        assert not_checked(found) == POSTGRES_CHECKS

    async def test_servers_that_do_not_respond_time_out_after_5_s(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            at = f"127.0.0.1:{silent.getsockname()[1]}"
            found = await examined(
                environ
                | {
                    "NOTIFIER_DATABASE_URL": f"postgresql://u@{at}/d?sslmode=disable",
                    "NOTIFIER_BROKER_URL": f"amqp://u:p@{at}/v",
                    "NOTIFIER_PROVIDERS__SMTP__PORT": at.partition(":")[2],
                    "NOTIFIER_PROVIDERS__TWILIO__URL": f"https://{at}/",
                },
                tmp_path,
            )
        for name in ("postgres", "rabbitmq", "provider smtp", "provider twilio"):
            assert found[name].status is CheckStatus.WRONG
            assert found[name].finding.endswith("no answer within 5 s"), name
        assert not_checked(found) == POSTGRES_CHECKS | RABBITMQ_CHECKS

    async def test_a_missing_database_has_its_own_fix(
        self, environ: dict[str, str], postgres_server: PostgresServer, tmp_path: Path
    ) -> None:
        environ["NOTIFIER_DATABASE_URL"] = postgres_server.url("nowhere")
        found = await examined(environ, tmp_path)
        assert 'database "nowhere" does not exist' in found["postgres"].finding
        assert "correct user, password or database" in found["postgres"].fix

    async def test_a_database_without_tables_must_be_migrated(
        self, environ: dict[str, str], empty_database_url: str, tmp_path: Path
    ) -> None:
        environ["NOTIFIER_DATABASE_URL"] = empty_database_url
        found = await examined(environ, tmp_path)
        assert found["postgres migrations"].status is CheckStatus.WRONG
        assert found["postgres migrations"].fix == "run `notifier migrate`"
        assert not_checked(found) == TABLE_CHECKS

    async def test_a_missing_migration_is_named(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await in_database(
            database_url,
            "UPDATE alembic_version SET version_num = '0001';"
            "DROP TABLE provider_rates, breakers, pauses",
        )
        found = await examined(environ, tmp_path)
        behind, rights = found["postgres migrations"], found["postgres rights"]
        assert (behind.status, rights.status) == (CheckStatus.WRONG, CheckStatus.WRONG)
        assert behind.finding.startswith("the schema is at 0001; not applied: 0002")
        assert rights.finding == "missing: breakers, pauses, provider_rates"
        assert (behind.fix, rights.fix) == ("run `notifier migrate`",) * 2

    async def test_a_newer_schema_is_a_warning(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await in_database(database_url, "UPDATE alembic_version SET version_num = '9999'")
        newer = (await examined(environ, tmp_path))["postgres migrations"]
        assert newer.status is CheckStatus.WARNING
        assert "9999" in newer.finding

    async def test_the_deploy_guide_grants_all_privileges_that_a_role_needs(
        self, environ: dict[str, str], app_url: str, tmp_path: Path
    ) -> None:
        found = await examined(environ | {"NOTIFIER_DATABASE_URL": app_url}, tmp_path)
        assert not_ok(found) == {"processes"}
        assert found["postgres rights"].finding == "role app has all required rights"

    @pytest.mark.parametrize(
        ("right", "on"),
        [
            ("INSERT", "notifications"),
            ("DELETE", "pauses"),
            ("EXECUTE", "FUNCTION ensure_days(integer)"),
        ],
    )
    async def test_a_missing_right_is_named_and_its_fix_grants_it(
        self,
        environ: dict[str, str],
        app_url: str,
        database_url: str,
        tmp_path: Path,
        right: str,
        on: str,
    ) -> None:
        environ["NOTIFIER_DATABASE_URL"] = app_url
        await in_database(database_url, f"REVOKE {right} ON {on} FROM app")
        rights = (await examined(environ, tmp_path))["postgres rights"]
        assert rights.status is CheckStatus.WRONG
        assert rights.finding == f"role app lacks {right} on {on.removeprefix('FUNCTION ')}"
        assert rights.fix == f"GRANT {right} ON {on} TO app"
        await in_database(database_url, rights.fix)
        assert (await examined(environ, tmp_path))["postgres rights"].status is CheckStatus.OK

    async def test_checks_that_the_role_may_not_read_are_not_checked_and_the_others_are(
        self, environ: dict[str, str], app_url: str, database_url: str, tmp_path: Path
    ) -> None:
        environ["NOTIFIER_DATABASE_URL"] = app_url
        await in_database(database_url, "REVOKE ALL ON alembic_version, workers FROM app")
        found = await examined(environ, tmp_path)
        assert not_checked(found) == {
            "postgres migrations",
            "processes",
            "features",
            "leases",
            "deployments",
            "postgres connections",
        }
        assert "permission denied" in found["processes"].finding
        assert found["postgres migrations"].fix == "GRANT SELECT ON alembic_version TO app"
        assert found["postgres partitions"].status is CheckStatus.OK

    @pytest.mark.parametrize("off_s", [-60.0, 60.0])
    async def test_a_clock_difference_of_a_minute_is_wrong(
        self, environ: dict[str, str], tmp_path: Path, off_s: float
    ) -> None:
        found = await examined(environ, tmp_path, clock=lambda: time.time() + off_s)
        assert found["clock"].status is CheckStatus.WRONG
        assert "NTP" in found["clock"].fix
        assert f"{off_s:+.0f}"[:2] in found["clock"].finding

    async def test_asynchronous_commits_are_wrong(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await in_database(
            database_url,
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off',"
            " current_database()); END $$",
        )
        durability = (await examined(environ, tmp_path))["postgres durability"]
        assert durability.status is CheckStatus.WRONG
        assert "synchronous_commit is off" in durability.finding

    async def test_a_read_only_database_is_wrong(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await in_database(
            database_url,
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',"
            " current_database()); END $$",
        )
        reach = (await examined(environ, tmp_path))["postgres"]
        assert (reach.status, "read-only" in reach.finding) == (CheckStatus.WRONG, True)

    @pytest.mark.parametrize(
        ("parent", "day", "status"),
        [
            ("notifications", 0, CheckStatus.WRONG),
            ("ends", 0, CheckStatus.WRONG),
            ("attempts", 3, CheckStatus.WARNING),
            ("notifications", 7, CheckStatus.OK),
        ],
    )
    async def test_days_without_a_partition_are_found(
        self,
        environ: dict[str, str],
        database_url: str,
        tmp_path: Path,
        parent: str,
        day: int,
        status: CheckStatus,
    ) -> None:
        await in_database(
            database_url,
            "DO $$ BEGIN EXECUTE 'DROP TABLE "
            f"{parent}_' || to_char((now() AT TIME ZONE 'UTC')::date + {day}, 'YYYYMMDD');"
            " END $$",
        )
        days = (await examined(environ, tmp_path))["postgres partitions"]
        assert days.status is status

    async def test_too_few_connections_for_the_live_processes_are_wrong(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        for _ in range(20):
            await beat(database_url, "worker")
        short = (await examined(environ, tmp_path))["postgres connections"]
        assert short.status is CheckStatus.WRONG
        needed = 20 * CONNECTIONS_BY_KIND["worker"]
        assert short.finding.startswith(f"{needed} needed, 97 allowed")
        assert "max_connections" in short.fix

    async def test_the_connection_limit_of_the_database_counts(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await in_database(
            database_url,
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 22',"
            " current_database()); END $$",
        )
        short = (await examined(environ, tmp_path))["postgres connections"]
        needed = CONNECTIONS_BY_KIND["api"] + CONNECTIONS_BY_KIND["worker"]
        assert short.status is CheckStatus.WRONG
        assert short.finding.startswith(f"{needed} needed, 22 allowed")

    async def test_a_postgres_that_stops_responding_gets_no_more_queries(
        self, database_url: str, postgres_server: PostgresServer, tcp_proxy: Proxy
    ) -> None:
        async with (
            tcp_proxy("", postgres_server.socket) as proxy,
            open_connection(
                ConnectionSettings(url=f"{proxy.url(database_url)}?sslmode=disable")
            ) as connection,
        ):
            session = _ReadOnlySession(connection)
            (row,) = await session.fetch(statement("checkup_server"))
            proxy.blackhole()
            found = {
                finding.check: finding
                for finding in await _schema(session, Server(**row), NO_NAMES, ["0001"])
            }
        assert not_checked(found) == {"postgres migrations", *TABLE_CHECKS}
        assert "no answer within 5 s" in found["postgres migrations"].finding


class TestProcesses:
    @pytest.mark.parametrize(
        ("kinds", "status", "says"),
        [
            ((), CheckStatus.WARNING, "alive: none; without a worker nothing is sent"),
            (("api",), CheckStatus.WARNING, "alive: 1 api; without a worker nothing is sent"),
            (
                ("worker",),
                CheckStatus.WARNING,
                "alive: 1 worker; without an API nothing is accepted",
            ),
            (("dev",), CheckStatus.OK, "alive: 1 dev"),
        ],
    )
    async def test_a_missing_api_or_worker_is_a_warning(
        self,
        environ: dict[str, str],
        database_url: str,
        tmp_path: Path,
        kinds: tuple[str, ...],
        status: CheckStatus,
        says: str,
    ) -> None:
        for kind in kinds:
            await beat(database_url, kind)
        alive = (await examined(environ, tmp_path))["processes"]
        assert (alive.status, alive.finding) == (status, says)

    async def test_an_old_heartbeat_does_not_count(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await beat(database_url, "worker")
        await in_database(database_url, "UPDATE workers SET beat_at = now() - interval '1 minute'")
        assert "alive: none" in (await examined(environ, tmp_path))["processes"].finding

    async def test_a_server_that_takes_few_connections_is_a_warning(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        for connections in (10, 12, None):
            await beat(database_url, "worker", {"smtp": ProviderFigures(connections=connections)})
        found = (await examined(environ, tmp_path))["provider smtp connections"]
        assert found.status is CheckStatus.WARNING
        assert "10 to 12 connections from each of 2 workers" in found.finding
        await in_database(database_url, "DELETE FROM workers")
        assert "provider smtp connections" not in await examined(environ, tmp_path)


class TestLeases:
    async def test_queues_without_a_live_holder_are_a_warning_while_a_worker_lives(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        holder = await beat(database_url, "worker")
        await hold_leases(database_url, holder)
        assert (await examined(environ, tmp_path))["leases"].status is CheckStatus.OK
        await in_database(
            database_url,
            "UPDATE leases SET holder = NULL WHERE queue = 'email.low';"
            "UPDATE leases SET holder = gen_random_uuid() WHERE queue = 'sms.high';"
            "DELETE FROM leases WHERE queue = 'push.low'",
        )
        leases = (await examined(environ, tmp_path))["leases"]
        assert leases.status is CheckStatus.WARNING
        assert leases.finding == "no worker publishes what is due in email.low, sms.high, push.low"

    async def test_no_holder_is_expected_without_a_worker(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await beat(database_url, "api")
        assert (await examined(environ, tmp_path))["leases"].status is CheckStatus.OK


class TestNotifications:
    async def test_lost_notifications_are_wrong_and_the_newest_is_named(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        items = [a_notification() for _ in range(3)]
        async with open_store(ConnectionSettings(url=database_url), WorkerId(uuid7())) as store:
            await store.insert(items)
        assert (await examined(environ, tmp_path))["notifications"].status is CheckStatus.OK
        await in_database(database_url, f"DELETE FROM live WHERE id <> '{items[2].id}'")
        lost = (await examined(environ, tmp_path))["notifications"]
        assert lost.status is CheckStatus.WRONG
        assert lost.finding == f"2 of the newest 3 are lost, the newest is {items[1].id}"


class TestConfiguration:
    async def test_rows_of_a_channel_that_was_removed_are_wrong(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        fax = QueueKey(Channel("fax"), Priority.LOW)
        items = [a_notification(queue=fax) for _ in range(3)]
        worker = WorkerId(uuid7())  # without a heartbeat row: dead
        async with open_store(ConnectionSettings(url=database_url), worker) as store:
            await store.insert(items)
            await store.claim([ClaimRequest(id=items[0].id, claim=0)])
        channels = (await examined(environ, tmp_path))["channels"]
        assert channels.status is CheckStatus.WRONG
        assert "fax.low (2 waiting, 1 sending, the oldest for" in channels.finding
        assert "only a worker with the channel recovers them" in channels.fix

    async def test_a_pause_of_a_provider_that_was_renamed_is_wrong(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await in_database(
            database_url, "INSERT INTO pauses (kind, name, reason) VALUES ('provider', 'old', 'x')"
        )
        pauses = (await examined(environ, tmp_path))["pauses"]
        assert pauses.status is CheckStatus.WRONG
        assert "provider old" in pauses.finding

    @pytest.mark.parametrize(
        ("paused_at", "expires_at", "status"),
        [
            ("now() - interval '5 minutes'", "NULL", CheckStatus.OK),
            ("now() - interval '26 hours'", "now() + interval '1 hour'", CheckStatus.OK),
            ("now() - interval '26 hours'", "NULL", CheckStatus.WARNING),
        ],
    )
    async def test_a_pause_without_an_end_is_called_forgotten_after_an_hour(
        self,
        environ: dict[str, str],
        database_url: str,
        tmp_path: Path,
        paused_at: str,
        expires_at: str,
        status: CheckStatus,
    ) -> None:
        await in_database(
            database_url,
            "INSERT INTO pauses (kind, name, reason, paused_at, expires_at)"
            f" VALUES ('channel', 'email', 'moving', {paused_at}, {expires_at})",
        )
        pauses = (await examined(environ, tmp_path))["pauses"]
        assert pauses.status is status
        assert "channel email for" in pauses.finding
        assert "moving" in pauses.finding

    async def test_an_open_breaker_is_a_warning_with_its_reason(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await in_database(
            database_url,
            "INSERT INTO breakers (provider, state, reason, code, openings, probe_at)"
            " VALUES ('smtp', 'open', 'credentials', '535', 1, now()),"
            " ('fcm', 'closed', 'errors', '503', 0, now()),"
            " ('removed', 'open', 'errors', '503', 1, now())",
        )
        breakers = (await examined(environ, tmp_path))["breakers"]
        assert breakers.status is CheckStatus.WARNING
        assert re.fullmatch(
            r"open, so that nothing is sent: smtp for \d+ s: credentials 535", breakers.finding
        )
        assert "docs/runbook/misconfigured.md" in breakers.fix

    async def test_a_schedule_whose_last_run_was_refused_or_that_nothing_runs_is_a_warning(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        refused, late = uuid7(), uuid7()
        await in_database(
            database_url,
            "INSERT INTO schedules (id, tenant, mode, digest, cron, time_zone, notification, needs,"
            " blobs, note, paused, next_at, last_problem) SELECT id, '', 'live', id, '* * * * *',"
            " 'UTC', '{}', '{}', '{}', '', false, next_at, problem FROM (VALUES"
            f" ('{refused}'::uuid, now() + interval '1 min', '{{}}'),"
            f" ('{late}', now() - interval '2 min', NULL), (gen_random_uuid(), NULL, NULL))"
            " AS t (id, next_at, problem)",
        )
        schedules = (await examined(environ, tmp_path))["schedules"]
        assert (schedules.status, schedules.finding) == (
            CheckStatus.WARNING,
            f"the last run was refused of {refused}",
        )
        await in_database(database_url, "UPDATE schedules SET last_problem = NULL")
        schedules = (await examined(environ, tmp_path))["schedules"]
        assert (schedules.status, str(late) in schedules.finding) == (CheckStatus.WARNING, True)
        await in_database(database_url, "UPDATE schedules SET next_at = NULL")
        schedules = (await examined(environ, tmp_path))["schedules"]
        assert (schedules.status, schedules.finding) == (CheckStatus.OK, "3 schedules")

    async def test_fallbacks_that_nothing_submits_are_a_warning(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        late = uuid7()
        await in_database(
            database_url,
            "INSERT INTO fallbacks (id, after_s, channel, unless, at, look_at, needs)"
            " SELECT id, 60, 'sms', 'sent', now(), look_at, '{}'"
            f" FROM (VALUES ('{late}'::uuid, now() - interval '2 min'),"
            " (gen_random_uuid(), now() + interval '1 min'), (gen_random_uuid(), NULL))"
            " AS t (id, look_at)",
        )
        fallbacks = (await examined(environ, tmp_path))["fallbacks"]
        assert (fallbacks.status, fallbacks.finding) == (
            CheckStatus.WARNING,
            f"1 wait past their time, as that of {late}",
        )
        await in_database(database_url, f"UPDATE fallbacks SET look_at = NULL WHERE id = '{late}'")
        fallbacks = (await examined(environ, tmp_path))["fallbacks"]
        assert (fallbacks.status, fallbacks.finding) == (CheckStatus.OK, "1 wait")

    async def test_receipts_that_have_no_notification_for_an_hour_are_a_warning(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        await in_database(
            database_url,
            "INSERT INTO receipts_unmatched (provider, key, hash, reference, event, reason, code,"
            " detail, provider_at, received_at, next_at) SELECT 'twilio', gen_random_uuid(),"
            " gen_random_uuid(), 'SM1', 'delivered', '', '', '', now(),"
            " now() - n * interval '50 min', now() FROM generate_series(1, 3) AS n",
        )
        receipts = (await examined(environ, tmp_path))["receipts"]
        assert (receipts.status, receipts.finding) == (
            CheckStatus.WARNING,
            "2 receipts of twilio have had no notification for an hour",
        )

    async def test_messages_of_another_deployment_are_wrong(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        figures = Figures(
            queues={EMAIL_LOW: QueueFigures(foreign=7), QUEUES[3]: QueueFigures()}, providers={}
        )
        worker = WorkerId(uuid7())
        async with open_heartbeat(ConnectionSettings(url=database_url), worker) as heartbeat:
            await heartbeat.beat(kind="worker", host="here", pid=1, beat=1, figures=figures)
        deployments = (await examined(environ, tmp_path))["deployments"]
        assert deployments.status is CheckStatus.WRONG
        assert "7 in email.low" in deployments.finding
        assert "its own vhost" in deployments.fix

    async def test_a_worker_of_an_earlier_version_is_named_with_what_it_lacks(
        self, environ: dict[str, str], database_url: str, tmp_path: Path
    ) -> None:
        assert (await examined(environ, tmp_path))["features"].status is CheckStatus.OK
        await in_database(
            database_url,
            "INSERT INTO workers (id, kind, host, pid, beat, figures) VALUES"
            " (gen_random_uuid(), 'worker', 'node-7', 17, 1,"
            """ '{"version": "0.1.9", "features": ["sender", "headers"]}'),"""
            " (gen_random_uuid(), 'api', 'node-8', 18, 1, '{}')",
        )
        features = (await examined(environ, tmp_path))["features"]
        assert features.status is CheckStatus.WARNING
        assert "node-7 with pid 17 (0.1.9) lacks attachments, copies" in features.finding
        assert "node-8" not in features.finding
        assert "upgrade" in features.fix


class TestRabbitmq:
    async def test_an_unreachable_rabbitmq_hides_no_other_check(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        environ["NOTIFIER_BROKER_URL"] = f"amqp://u:{PASSWORD}@127.0.0.1:{free_port()}/v"
        found = await examined(environ, tmp_path)
        assert set(found) == ALL_CHECKS
        assert found["rabbitmq"].status is CheckStatus.WRONG
        assert "start it" in found["rabbitmq"].fix
        assert not_checked(found) == RABBITMQ_CHECKS
        assert not_ok(found) == {"rabbitmq", "processes", *RABBITMQ_CHECKS}

    @pytest.mark.parametrize("part", ["password", "vhost"])
    async def test_a_refused_login_has_its_own_fix_and_shows_no_password(
        self, environ: dict[str, str], vhost_url: str, tmp_path: Path, part: str
    ) -> None:
        environ["NOTIFIER_BROKER_URL"] = {
            "password": vhost_url.replace("guest:guest", f"guest:{PASSWORD}"),
            "vhost": vhost_url + "-of-nobody",
        }[part]
        refused = (await examined(environ, tmp_path))["rabbitmq"]
        assert refused.status is CheckStatus.WRONG
        assert "correct user, password or vhost" in refused.fix
        assert PASSWORD not in refused.finding

    async def test_missing_queues_are_ok_before_the_first_process(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        found = await examined(environ, tmp_path)
        assert not_ok(found) == {"processes"}
        for name in ("rabbitmq exchange", f"rabbitmq queue {EMAIL_LOW}"):
            assert found[name].finding == "not there yet: the first process creates it"

    async def test_only_the_queue_with_other_arguments_is_wrong(
        self, environ: dict[str, str], vhost_url: str, tmp_path: Path
    ) -> None:
        await use_channel(
            vhost_url, lambda channel: channel.queue_declare(queue_name(EMAIL_LOW), durable=True)
        )
        others = [queue for queue in QUEUES if queue != EMAIL_LOW]
        await use_channel(vhost_url, lambda channel: declare(channel, others))
        found = await examined(environ, tmp_path)
        other = found[f"rabbitmq queue {EMAIL_LOW}"]
        assert not_ok(found) == {"processes", other.check}
        assert other.status is CheckStatus.WRONG
        assert "inequivalent arg 'x-" in other.finding
        assert f"delete_queue {queue_name(EMAIL_LOW)}" in other.fix

    async def test_an_exchange_of_another_type_is_wrong(
        self, environ: dict[str, str], vhost_url: str, tmp_path: Path
    ) -> None:
        await use_channel(
            vhost_url,
            lambda channel: channel.exchange_declare(EXCHANGE, exchange_type="fanout"),
        )
        other = (await examined(environ, tmp_path))["rabbitmq exchange"]
        assert other.status is CheckStatus.WRONG
        assert "inequivalent arg 'type'" in other.finding

    async def test_a_deleted_queue_is_a_warning(
        self, environ: dict[str, str], vhost_url: str, tmp_path: Path
    ) -> None:
        await use_channel(vhost_url, lambda channel: declare(channel, QUEUES))
        await use_channel(vhost_url, lambda channel: channel.queue_delete(queue_name(EMAIL_LOW)))
        found = await examined(environ, tmp_path)
        assert not_ok(found) == {"processes", f"rabbitmq queue {EMAIL_LOW}"}
        assert found[f"rabbitmq queue {EMAIL_LOW}"].status is CheckStatus.WARNING

    @pytest.mark.parametrize("present", [QUEUES, ()], ids=["queues", "nothing yet"])
    async def test_missing_rights_of_a_user_are_named(
        self,
        environ: dict[str, str],
        vhost_url: str,
        rabbitmq_server: RabbitmqNode,
        tmp_path: Path,
        present: Sequence[QueueKey],
    ) -> None:
        if present:
            await use_channel(vhost_url, lambda channel: declare(channel, present))
        vhost = vhost_url.rpartition("/")[2]
        await management(
            rabbitmq_server, "PUT", "/api/users/reader", '{"password": "reader", "tags": ""}'
        )
        rights = '{"configure": "^$", "write": "^$", "read": ".*"}'
        await management(rabbitmq_server, "PUT", f"/api/permissions/{vhost}/reader", rights)
        environ["NOTIFIER_BROKER_URL"] = vhost_url.replace("guest:guest", "reader:reader")
        try:
            found = await examined(environ, tmp_path)
        finally:
            await management(rabbitmq_server, "DELETE", "/api/users/reader")
        for name in ("rabbitmq exchange", f"rabbitmq queue {EMAIL_LOW}"):
            assert (found[name].status, found[name].finding[:14]) == (
                CheckStatus.WRONG,
                "ACCESS_REFUSED",
            )
            assert r"configure, write and read on ^notifier(\..*)?$" in found[name].fix
        assert not_checked(found) == {"rabbitmq alarm"}

    @pytest.mark.parametrize("present", [QUEUES, ()], ids=["queues", "nothing yet"])
    @pytest.mark.parametrize(
        ("lacking", "checks"),
        [
            ("configure", {"rabbitmq exchange", *(f"rabbitmq queue {queue}" for queue in QUEUES)}),
            ("write", {"rabbitmq exchange", *(f"rabbitmq queue {queue}" for queue in QUEUES)}),
            ("read", {f"rabbitmq queue {queue}" for queue in QUEUES}),
        ],
    )
    async def test_each_missing_right_of_a_user_is_wrong(
        self,
        environ: dict[str, str],
        vhost_url: str,
        rabbitmq_server: RabbitmqNode,
        tmp_path: Path,
        present: Sequence[QueueKey],
        lacking: str,
        checks: set[str],
    ) -> None:
        if present:
            await use_channel(vhost_url, lambda channel: declare(channel, present))
        rights = dict.fromkeys(("configure", "write", "read"), r"^notifier(\..*)?$")
        async with rabbitmq_user(rabbitmq_server, vhost_url, rights | {lacking: "^$"}) as url:
            found = await examined(environ | {"NOTIFIER_BROKER_URL": url}, tmp_path)
        wrong = {name for name, each in found.items() if each.status is CheckStatus.WRONG}
        assert wrong == checks
        for name in checks:
            assert found[name].finding.startswith("ACCESS_REFUSED")

    async def test_a_user_with_the_documented_rights_lacks_nothing(
        self,
        environ: dict[str, str],
        vhost_url: str,
        rabbitmq_server: RabbitmqNode,
        tmp_path: Path,
    ) -> None:
        await use_channel(vhost_url, lambda channel: declare(channel, QUEUES))
        rights = dict.fromkeys(("configure", "write", "read"), r"^notifier(\..*)?$")
        async with rabbitmq_user(rabbitmq_server, vhost_url, rights) as url:
            found = await examined(environ | {"NOTIFIER_BROKER_URL": url}, tmp_path)
        assert not_ok(found) == {"processes"}
        assert "came back" in found["rabbitmq delivery"].finding

    async def test_a_limit_of_queues_is_wrong_before_the_first_process_starts(
        self,
        environ: dict[str, str],
        vhost_url: str,
        rabbitmq_server: RabbitmqNode,
        tmp_path: Path,
    ) -> None:
        vhost = vhost_url.rpartition("/")[2]
        await rabbitmq_server.control("set_vhost_limits", "-p", vhost, '{"max-queues": 5}')
        found = await examined(environ, tmp_path)
        assert not_ok(found) == {"processes", "rabbitmq limits"}
        limits = found["rabbitmq limits"]
        assert limits.status is CheckStatus.WRONG
        assert "queue limit in vhost" in limits.finding
        assert "max-queues" in limits.fix

    @pytest.mark.parametrize(
        ("connections", "status"), [(1, CheckStatus.WRONG), (3, CheckStatus.WARNING)]
    )
    async def test_a_limit_of_connections_is_found(
        self,
        environ: dict[str, str],
        vhost_url: str,
        rabbitmq_server: RabbitmqNode,
        tmp_path: Path,
        connections: int,
        status: CheckStatus,
    ) -> None:
        vhost = vhost_url.rpartition("/")[2]
        limits = json.dumps({"max-connections": connections})
        await rabbitmq_server.control("set_vhost_limits", "-p", vhost, limits)
        found = (await examined(environ, tmp_path))["rabbitmq limits"]
        assert found.status is status
        assert found.finding.startswith(f"it takes {connections} more connections")

    async def test_a_channel_max_below_the_subscriptions_of_a_worker_is_wrong(
        self,
        environ: dict[str, str],
        session_folder: Path,
        rabbitmq_install: RabbitmqInstall,
        tmp_path: Path,
    ) -> None:
        narrow = RabbitmqNode(
            session_folder / "narrow",
            install=rabbitmq_install,
            keep=False,
            settings={"channel_max": "8"},
        )
        async with opened(narrow) as node:
            found = await examined(environ | {"NOTIFIER_BROKER_URL": node.url()}, tmp_path)
        assert not_ok(found) == {"processes", "rabbitmq limits"}
        assert found["rabbitmq limits"].finding.startswith("channel_max is 8; a worker needs 12")

    async def test_a_limit_of_the_channels_of_a_user_is_wrong(
        self,
        environ: dict[str, str],
        vhost_url: str,
        rabbitmq_server: RabbitmqNode,
        tmp_path: Path,
    ) -> None:
        rights = dict.fromkeys(("configure", "write", "read"), ".*")
        async with rabbitmq_user(rabbitmq_server, vhost_url, rights) as url:
            await rabbitmq_server.control("set_user_limits", "limited", '{"max-channels": 5}')
            found = await examined(environ | {"NOTIFIER_BROKER_URL": url}, tmp_path)
        limits = found["rabbitmq limits"]
        assert limits.status is CheckStatus.WRONG
        assert limits.finding.startswith("a worker needs 12 channels: ")
        assert "max-channels" in limits.fix

    async def test_queues_without_a_majority_of_their_members_have_no_quorum(
        self,
        environ: dict[str, str],
        session_folder: Path,
        rabbitmq_install: RabbitmqInstall,
        tmp_path: Path,
    ) -> None:
        folder = session_folder / "cluster-of-doctor"
        first = RabbitmqNode(
            folder / "1",
            install=rabbitmq_install,
            keep=False,
            settings={"cluster_partition_handling": "ignore"},
        )
        peers = [
            ClusterPeer(folder / str(number), install=rabbitmq_install, first=first)
            for number in (2, 3)
        ]
        async with opened(first), opened(peers[0]), opened(peers[1]):
            for peer in peers:
                await peer.control("stop_app")
                await peer.control("join_cluster", first.name)
                await peer.control("start_app")
            await use_channel(first.url(), lambda channel: declare(channel, QUEUES))
            environ["NOTIFIER_BROKER_URL"] = first.url()
            assert not_ok(await examined(environ, tmp_path)) == {"processes"}
            for peer in peers:
                await run_steps_async(peer.killing())
            found = await examined(environ, tmp_path)
        names = {f"rabbitmq queue {queue}" for queue in QUEUES}
        wrong = {name for name, each in found.items() if each.status is CheckStatus.WRONG}
        if rabbitmq_install.version.startswith("4.3"):  # then it answers no declaration either
            assert wrong == set()
            assert all(found[name].finding.startswith("not checked") for name in names)
        else:
            assert wrong == names
            assert found[f"rabbitmq queue {EMAIL_LOW}"].finding.startswith("no quorum")

    async def test_a_message_in_a_queue_stays_there(
        self, environ: dict[str, str], vhost_url: str, tmp_path: Path
    ) -> None:
        await use_channel(vhost_url, lambda channel: declare(channel, QUEUES))
        async with open_rabbitmq_broker(vhost_url, QUEUES, observer=CountingObserver()) as broker:
            assert all(await broker.publish(pointers(2)))
            assert not_ok(await examined(environ, tmp_path)) == {"processes"}
            await wait_until_ready(broker, 2)

    async def test_an_alarm_is_wrong(
        self,
        environ: dict[str, str],
        private_rabbitmq: RabbitmqNode,
        private_vhost_url: str,
        rabbitmq_install: RabbitmqInstall,
        tmp_path: Path,
    ) -> None:
        environ["NOTIFIER_BROKER_URL"] = private_vhost_url
        set_memory_limit(private_rabbitmq, rabbitmq_install, 1)
        try:
            found = await examined(environ, tmp_path)
        finally:
            set_memory_limit(private_rabbitmq, rabbitmq_install, 512_000_000)
        assert found["rabbitmq alarm"].status is CheckStatus.WRONG
        assert "takes no messages" in found["rabbitmq alarm"].finding
        assert (await examined(environ, tmp_path))["rabbitmq alarm"].status is CheckStatus.OK

    async def test_a_rabbitmq_that_stops_responding_gets_no_more_requests(
        self, vhost_url: str, rabbitmq_server: RabbitmqNode, tcp_proxy: Proxy
    ) -> None:
        async with (
            tcp_proxy("127.0.0.1", rabbitmq_server.port) as proxy,
            open_rabbitmq_connection(proxy.url(vhost_url), "doctor") as connection,
        ):
            proxy.blackhole()
            inspected = await _inspect(connection, QUEUES)
        found = {
            finding.check: finding for finding in await _examine(vhost_url, inspected, "there")
        }
        assert not_checked(found) == RABBITMQ_CHECKS - {"rabbitmq version"}
        assert "no answer within 5 s" in found["rabbitmq exchange"].finding
        assert "stopped answering" in found[f"rabbitmq queue {EMAIL_LOW}"].finding


class TestProviders:
    async def test_only_the_provider_that_refuses_connections_is_wrong(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        port = free_port()
        environ["NOTIFIER_PROVIDERS__FCM__URL"] = f"http://127.0.0.1:{port}/v1"
        found = await examined(environ, tmp_path)
        assert not_ok(found) == {"processes", "provider fcm"}
        assert found["provider fcm"].status is CheckStatus.WRONG
        assert f"127.0.0.1:{port}" in found["provider fcm"].finding
        assert "[providers.fcm]" in found["provider fcm"].fix

    async def test_a_mail_server_that_refuses_connections_is_wrong(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        environ["NOTIFIER_PROVIDERS__SMTP__PORT"] = str(free_port())
        found = await examined(environ, tmp_path)
        assert not_ok(found) == {"processes", "provider smtp"}
        assert found["provider smtp"].status is CheckStatus.WRONG

    @pytest.mark.parametrize(
        ("answers", "status", "says"),
        [
            ({"AUTH": "235 ok"}, CheckStatus.OK, "accepts the login"),
            ({"AUTH": "535 5.7.8 somebody: no"}, CheckStatus.WRONG, ": 535 5.7.8"),
            ({"greeting": "554 go away"}, CheckStatus.WRONG, ": 554"),
            ({"EHLO": "250 raw"}, CheckStatus.WRONG, "no supported AUTH method"),
            ({"greeting": "450 4.7.1 too many"}, CheckStatus.WARNING, ": 450 4.7.1"),
        ],
    )
    async def test_doctor_logs_in_to_a_mail_server_and_sends_nothing(
        self,
        environ: dict[str, str],
        tmp_path: Path,
        answers: dict[str, str | list[str]],
        status: CheckStatus,
        says: str,
    ) -> None:
        hello: dict[str, str | list[str]] = {"EHLO": "250-raw\r\n250 AUTH PLAIN"}
        async with open_smtp_script(hello | answers) as mail:
            environ |= {
                "NOTIFIER_PROVIDERS__SMTP__PORT": str(mail.port),
                "NOTIFIER_PROVIDERS__SMTP__USERNAME": "somebody",
                "NOTIFIER_PROVIDERS__SMTP__PASSWORD": PASSWORD,
            }
            found = (await examined(environ, tmp_path))["provider smtp"]
        assert (found.status, says in found.finding) == (status, True), found
        assert "somebody" not in found.finding
        assert not [line for line in mail.seen if line.startswith(("MAIL", "RCPT", "DATA"))]

    @pytest.mark.parametrize(
        "url", ["{{ content.data.url }}", "https://{{ recipient }}/", "https://a{{ claim }}.b/"]
    )
    async def test_a_host_that_depends_on_the_notification_is_not_connected_to(
        self, environ: dict[str, str], tmp_path: Path, url: str
    ) -> None:
        environ["NOTIFIER_PROVIDERS__TWILIO__URL"] = url
        found = (await examined(environ, tmp_path))["provider twilio"]
        assert found.status is CheckStatus.OK
        assert "each notification" in found.finding

    async def test_a_provider_that_no_channel_uses_is_not_checked(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        environ["NOTIFIER_CHANNELS__PUSH__PROVIDER"] = "twilio"
        assert set(await examined(environ, tmp_path)) == ALL_CHECKS - {"provider fcm"}

    async def test_unusable_provider_settings_are_an_error(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        environ["NOTIFIER_PROVIDERS__SMTP__SENDER"] = "nobody at all"
        with pytest.raises(ExceptionGroup) as caught:
            await examined(environ, tmp_path)
        assert caught.group_contains(ConfigError)
