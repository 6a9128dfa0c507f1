"""Pauses and breakers that two processes share, on a real Postgres."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.inprocess.broker import InProcessBroker
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import PostgresControls, open_controls
from notifier.adapters.postgres.store import open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.breaker import ProviderFigures
from notifier.domain.controls import (
    Breaker,
    BreakerState,
    Controls,
    Scope,
    ScopeKind,
    SendPermission,
)
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Channel, QueueKey
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.process import run_steps_async
from notifier.lifecycle import background_task
from notifier.ports.heartbeat import Figures
from notifier.ports.keys import Author
from notifier.scheduling.cluster.cluster_figures import ClusterFigures
from notifier.scheduling.cluster.failure_detector import FailureDetector
from notifier.scheduling.deployment_status import DeploymentStatus
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import EMAIL_HIGH, QUEUES, SMS_HIGH, worker_id
from tests.doubles import FixedFigures, PermissionChange

EMAIL = Scope(ScopeKind.CHANNEL, "email")
PROVIDERS = {Channel("email"): ["smtp"], Channel("sms"): ["http"], Channel("push"): ["http"]}
LONG_S = 600.0
"""A time-out so long that only a notification ends the wait within a test's bound."""
BOUND_S = 60.0


def process_controls(url: str) -> AbstractAsyncContextManager[PostgresControls]:
    """The controls of one process."""
    return open_controls(ConnectionSettings(url=url), worker_id())


def make_gates(controls: PostgresControls) -> QueueGates:
    return QueueGates(
        controls,
        queues=QUEUES,
        providers=PROVIDERS,
        probes=Probes(),
        observer=Metrics(QUEUES, PROVIDERS, version="0", registry=CollectorRegistry()),
    )


@asynccontextmanager
async def following(controls: PostgresControls) -> AsyncIterator[QueueGates]:
    """The running gates of one process."""
    gates = make_gates(controls)
    async with background_task(gates, "gates"):
        yield gates


async def wait_for_permission(
    gates: QueueGates, queue: QueueKey, permission: SendPermission
) -> None:
    changed = PermissionChange()
    gates.add_listener(changed)
    async with asyncio.timeout(BOUND_S):
        while gates.permission(queue) is not permission:
            await changed.wait()
            changed.clear()


async def wait_for_notification(controls: PostgresControls) -> None:
    """Return at a notification; fail if none arrives."""
    async with asyncio.timeout(BOUND_S):
        await controls.wait_for_change(LONG_S)


async def execute(url: str, sql: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return await connection.execute(sql)
    finally:
        await connection.close()


async def stored_openings(url: str) -> int:
    """How often the breaker opened in a row."""
    connection = await asyncpg.connect(url)
    try:
        openings: int = await connection.fetchval("SELECT openings FROM breakers")
        return openings
    finally:
        await connection.close()


async def breaker(controls: PostgresControls) -> Breaker:
    (only,) = (await controls.read()).breakers
    return only


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[PostgresControls]:
    async with process_controls(database_url) as controls:
        yield controls


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[PostgresControls]:
    async with process_controls(database_url) as controls:
        yield controls


async def test_every_process_reads_a_pause_until_it_is_resumed(
    one: PostgresControls, other: PostgresControls
) -> None:
    await one.pause(EMAIL, note="maintenance", for_s=None)
    (pause,) = (await other.read()).pauses
    assert (pause.scope, pause.note, pause.expires_in_s) == (EMAIL, "maintenance", None)
    assert pause.age_s >= 0
    assert await other.resume(EMAIL)
    assert not await one.resume(EMAIL)
    assert (await one.read()).pauses == ()


async def test_scopes_of_different_kinds_with_the_same_name_are_different(
    one: PostgresControls,
) -> None:
    scopes = [Scope(kind, "email") for kind in ScopeKind]
    for scope in scopes:
        await one.pause(scope, note="", for_s=None)
    assert [pause.scope for pause in (await one.read()).pauses] == scopes


async def test_a_prolonged_pause_keeps_its_beginning(
    one: PostgresControls, database_url: str
) -> None:
    await one.pause(EMAIL, note="first", for_s=5)
    await execute(database_url, "UPDATE pauses SET paused_at = paused_at - interval '1 hour'")
    await one.pause(EMAIL, note="second", for_s=500)
    (pause,) = (await one.read()).pauses
    assert pause.note == "second"
    assert pause.age_s >= 3600
    assert pause.expires_in_s is not None
    assert 100 < pause.expires_in_s <= 500


async def test_an_expired_pause_is_not_read_and_is_deleted(
    one: PostgresControls, database_url: str
) -> None:
    await one.pause(EMAIL, note="short", for_s=0.001)
    await asyncio.sleep(0.01)
    assert not await one.resume(EMAIL)
    await one.pause(EMAIL, note="short", for_s=0.001)
    await asyncio.sleep(0.01)
    assert (await one.read()).pauses == ()
    assert await execute(database_url, "DELETE FROM pauses") == "DELETE 0"


async def test_a_pause_begun_after_the_last_one_expired_has_a_new_beginning(
    one: PostgresControls, database_url: str
) -> None:
    await one.pause(EMAIL, note="old", for_s=1)
    await execute(
        database_url,
        "UPDATE pauses SET paused_at = now() - interval '1 h', expires_at = now() - interval '1 s'",
    )
    await one.pause(EMAIL, note="new", for_s=None)
    (pause,) = (await one.read()).pauses
    assert pause.age_s < 3600


async def test_a_breaker_opens_once_and_waits_for_its_probe(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    assert await one.open_breaker("smtp", "errors", code="503", wait_s=BOUND_S)
    assert not await other.open_breaker("smtp", "consecutive", code="503", wait_s=BOUND_S)
    seen = await breaker(other)
    assert (seen.provider, seen.state, seen.reason) == ("smtp", BreakerState.OPEN, "errors")
    assert (await stored_openings(database_url), seen.is_mine) == (1, False)
    assert 0 < seen.probe_in_s <= BOUND_S
    assert not await one.hold_probe("smtp", 10)


async def test_a_person_makes_the_probe_of_an_open_breaker_due_at_once(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    author = Author(actor="key:ada")
    assert not await one.probe_now("smtp", "", author)
    await one.open_breaker("smtp", "errors", code="421", wait_s=900)
    assert await other.probe_now("smtp", "it is up", author)
    assert not await other.probe_now("smtp", "", author)
    assert await one.hold_probe("smtp", 30)
    assert not await other.probe_now("smtp", "", author)
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT action, target, note FROM audit")
    await connection.close()
    assert list(map(tuple, rows)) == [("provider.probed", "provider:smtp", "it is up")]


async def test_only_the_holder_of_a_probe_closes_or_reopens_the_breaker(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    await one.open_breaker("smtp", "errors", code="503", wait_s=5.0)
    await execute(database_url, "UPDATE breakers SET probe_at = now()")
    assert await one.hold_probe("smtp", 30)
    assert not await other.hold_probe("smtp", 30)
    assert not await other.reopen_breaker(
        "smtp", reason="errors", code="timeout", base_s=5.0, min_wait_s=0.0
    )
    assert not await other.close_breaker("smtp")
    assert (await breaker(one)).is_mine
    seen = await breaker(other)
    assert (seen.state, seen.is_mine) == (BreakerState.HALF_OPEN, False)
    assert 5 < seen.probe_in_s <= 30
    assert await one.close_breaker("smtp")
    assert not await one.close_breaker("smtp")
    seen = await breaker(other)
    assert (seen.state, await stored_openings(database_url)) == (BreakerState.CLOSED, 0)
    assert not await one.hold_probe("smtp", 30)


async def test_an_expired_hold_is_taken_by_another_process(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    await one.open_breaker("smtp", "errors", code="503", wait_s=5.0)
    await execute(database_url, "UPDATE breakers SET probe_at = now()")
    await one.hold_probe("smtp", 0.001)
    await asyncio.sleep(0.01)
    assert await other.hold_probe("smtp", 30)
    assert not await one.close_breaker("smtp")
    assert await other.reopen_breaker(
        "smtp", reason="errors", code="timeout", base_s=5.0, min_wait_s=0.0
    )


async def test_the_wait_doubles_up_to_a_minute_and_is_five_seconds_again_after_a_close(
    one: PostgresControls, database_url: str
) -> None:
    waits, due = list[int](), "UPDATE breakers SET probe_at = now()"
    await one.open_breaker("smtp", "errors", code="503", wait_s=5.0)
    for _ in range(7):
        waits.append(round((await breaker(one)).probe_in_s))
        await execute(database_url, due)
        assert await one.hold_probe("smtp", 30)
        assert await one.reopen_breaker(
            "smtp", reason="errors", code="timeout", base_s=5.0, min_wait_s=0.0
        )
    assert waits == [5, 10, 20, 40, 60, 60, 60]
    assert await stored_openings(database_url) == 8
    await execute(database_url, due)
    assert await one.hold_probe("smtp", 30)
    assert await one.close_breaker("smtp")
    assert await one.open_breaker("smtp", "errors", code="503", wait_s=5.0)
    seen = await breaker(one)
    assert (await stored_openings(database_url), round(seen.probe_in_s)) == (1, 5)


async def test_of_twenty_processes_that_take_the_probe_at_once_one_succeeds(
    database_url: str,
) -> None:
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(process_controls(database_url)) for _ in range(20)
        ]
        for controls in processes:
            await controls.read()  # connected
        await processes[0].open_breaker("smtp", "errors", code="503", wait_s=5.0)
        for _ in range(10):
            await execute(database_url, "UPDATE breakers SET probe_at = now()")
            async with asyncio.TaskGroup() as group:
                tries = [
                    group.create_task(controls.hold_probe("smtp", 30)) for controls in processes
                ]
            assert Counter(task.result() for task in tries) == {True: 1, False: 19}


async def test_of_twenty_processes_that_open_a_breaker_at_once_one_succeeds(
    database_url: str,
) -> None:
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(process_controls(database_url)) for _ in range(20)
        ]
        async with asyncio.TaskGroup() as group:
            tries = [
                group.create_task(controls.open_breaker("smtp", "errors", code="503", wait_s=5.0))
                for controls in processes
            ]
        assert Counter(task.result() for task in tries) == {True: 1, False: 19}
        assert await stored_openings(database_url) == 1


async def test_every_change_is_notified_and_a_call_that_changes_nothing_is_not(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    await wait_for_notification(other)  # until it listens
    await one.pause(EMAIL, note="", for_s=None)
    await wait_for_notification(other)
    await one.resume(EMAIL)
    await wait_for_notification(other)
    await one.open_breaker("smtp", "errors", code="503", wait_s=5.0)
    await wait_for_notification(other)
    await execute(database_url, "UPDATE breakers SET probe_at = now()")
    await one.hold_probe("smtp", 30)
    await wait_for_notification(other)
    await one.reopen_breaker("smtp", reason="errors", code="timeout", base_s=5.0, min_wait_s=0.0)
    await wait_for_notification(other)
    await execute(database_url, "UPDATE breakers SET probe_at = now()")
    await one.hold_probe("smtp", 30)
    await wait_for_notification(other)
    await one.close_breaker("smtp")
    await wait_for_notification(other)
    await one.resume(EMAIL)
    await one.close_breaker("smtp")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await other.wait_for_change(LONG_S)


async def test_a_wait_for_changes_ends_at_its_time_out(one: PostgresControls) -> None:
    await wait_for_notification(one)
    async with asyncio.timeout(BOUND_S):
        await one.wait_for_change(0.01)


async def test_a_pause_reaches_the_other_process_by_its_notification_alone(
    one: PostgresControls, other: PostgresControls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.scheduling.gates.queue_gates.READ_INTERVAL_S", LONG_S)
    async with following(other) as gates:
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.ALLOWED)
        await one.pause(EMAIL, note="", for_s=None)
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.PAUSED)
        assert gates.permission(SMS_HIGH) is SendPermission.ALLOWED
        await one.resume(EMAIL)
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.ALLOWED)


async def test_a_pause_whose_notification_is_lost_is_found_by_the_next_read(
    other: PostgresControls, database_url: str
) -> None:
    async with following(other) as gates:
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.ALLOWED)
        await execute(
            database_url,
            "INSERT INTO pauses (kind, name, reason) VALUES ('channel', 'email', 'by hand')",
        )
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.PAUSED)


async def test_a_pause_expires_in_every_process(
    one: PostgresControls, other: PostgresControls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.scheduling.gates.queue_gates.READ_INTERVAL_S", LONG_S)
    async with following(other) as gates:
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.ALLOWED)
        await one.pause(EMAIL, note="", for_s=1.0)
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.PAUSED)
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.ALLOWED)


async def test_a_killed_listener_listens_again_and_wakes_its_reader(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    await wait_for_notification(other)
    await wait_for_notification(one)
    killed = await execute(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE query LIKE 'LISTEN%' AND datname = current_database()",
    )
    assert killed == "SELECT 2"
    await wait_for_notification(other)  # it is back
    await one.pause(EMAIL, note="", for_s=None)
    await wait_for_notification(other)


async def test_a_pause_made_during_a_network_outage_is_read_after_it(
    one: PostgresControls, database_url: str
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        process_controls(proxy.url(database_url)) as far,
        following(far) as gates,
    ):
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.ALLOWED)
        proxy.cut()
        with pytest.raises(StoreUnavailable):
            await far.read()
        await one.pause(EMAIL, note="", for_s=None)
        assert gates.permission(EMAIL_HIGH) is SendPermission.ALLOWED
        proxy.heal()
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.PAUSED)
        proxy.cut()
        with pytest.raises(StoreUnavailable):
            await far.read()
        assert gates.permission(EMAIL_HIGH) is SendPermission.PAUSED
        proxy.heal()
        await one.resume(EMAIL)
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.ALLOWED)


async def test_a_wait_while_postgres_is_unreachable_neither_raises_nor_returns_early(
    database_url: str,
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        process_controls(proxy.url(database_url)) as far,
    ):
        await wait_for_notification(far)
        proxy.cut()
        returns = 0
        over = asyncio.get_running_loop().time() + 1.5
        while asyncio.get_running_loop().time() < over:
            await far.wait_for_change(0.5)
            returns += 1
        assert returns <= 4
        proxy.heal()
        await wait_for_notification(far)


async def test_a_listening_connection_that_does_not_respond_is_replaced(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.adapters.postgres.listening.CHECK_INTERVAL_S", 0.1)
    async with open_proxy_for(database_url) as proxy:
        far = ConnectionSettings(url=proxy.url(database_url), statement_timeout_s=0.1)
        async with (
            open_controls(far, worker_id()) as controls,
            process_controls(database_url) as near,
        ):
            await wait_for_notification(controls)
            proxy.swallow_replies()
            await proxy.swallowed.wait()
            proxy.heal()
            await wait_for_notification(controls)  # a new connection
            await near.pause(EMAIL, note="", for_s=None)
            await wait_for_notification(controls)


async def test_a_pause_survives_a_restart_of_postgres(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    async with (
        process_controls(private_database_url) as one,
        process_controls(private_database_url) as other,
        following(other) as gates,
    ):
        await one.pause(EMAIL, note="", for_s=None)
        await wait_for_permission(gates, SMS_HIGH, SendPermission.ALLOWED)
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.PAUSED)
        await run_steps_async(private_postgres.restarting())
        assert gates.permission(EMAIL_HIGH) is SendPermission.PAUSED
        await until_resumed(one)
        await wait_for_permission(gates, EMAIL_HIGH, SendPermission.ALLOWED)


async def until_resumed(controls: PostgresControls) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                assert await controls.resume(EMAIL)
                return
            except StoreUnavailable:
                await asyncio.sleep(0.05)


FIGURES = Figures(queues={}, providers={"smtp": ProviderFigures(calls=7, failures=2)})


@asynccontextmanager
async def open_status(url: str, controls: PostgresControls) -> AsyncIterator[DeploymentStatus]:
    async with open_store(ConnectionSettings(url=url), worker_id()) as store:
        yield DeploymentStatus(
            store=store,
            broker=InProcessBroker(QUEUES),
            cluster=ClusterFigures(own=FixedFigures(FIGURES), detector=FailureDetector()),
            gates=make_gates(controls),
        )


async def test_the_status_shows_a_pause_or_breaker_at_once_also_without_a_worker(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    async with open_status(database_url, one) as status:
        await other.pause(EMAIL, note="", for_s=None)
        await other.open_breaker("http", "errors", code="503", wait_s=5.0)
        shown = {str(state.queue): state for state in await status.queues()}
        email, sms = shown["email.high"], shown["sms.high"]
        assert (email.paused, email.limited_by) == (True, "pause")
        assert (sms.paused, sms.limited_by) == (False, "breaker")
        await other.resume(EMAIL)
        shown = {str(state.queue): state for state in await status.queues()}
        email = shown["email.high"]
        assert (email.paused, email.limited_by) == (False, "no_worker")


async def test_the_status_shows_providers_and_pauses(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    smtp = Scope(ScopeKind.PROVIDER, "smtp")
    async with open_status(database_url, one) as status:
        await other.pause(smtp, note="new address", for_s=None)
        await other.open_breaker("http", "consecutive", code="503", wait_s=BOUND_S)
        http_state, smtp_state = await status.providers()
        assert http_state.channels == ("sms", "push")
        assert (http_state.breaker, http_state.reason) == ("open", "consecutive")
        assert (http_state.paused, http_state.calls) == (False, 0)
        assert http_state.since_at is not None
        assert http_state.probe_at == http_state.since_at + timedelta(seconds=BOUND_S)
        assert (smtp_state.breaker, smtp_state.reason) == ("closed", "")
        assert (smtp_state.since_at, smtp_state.probe_at) == (None, None)
        assert (smtp_state.paused, smtp_state.calls, smtp_state.failures) == (True, 7, 2)
        assert [row.pause.note for row in await status.pauses()] == ["new address"]
        assert (await one.read()) != Controls()
