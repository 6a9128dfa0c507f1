"""Pauses and breakers of two processes on a real Postgres."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.inprocess.broker import InProcessBroker
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import PostgresControls, open_controls
from notifier.adapters.postgres.heartbeat import open_heartbeat
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
from notifier.scheduling.cluster.membership import Membership
from notifier.scheduling.deployment_status import Board
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import EMAIL_HIGH, QUEUES, SMS_HIGH, worker_id

EMAIL = Scope(ScopeKind.CHANNEL, "email")
PROVIDERS = {Channel("email"): ["smtp"], Channel("sms"): ["http"], Channel("push"): ["http"]}
LONG_S = 600.0
"""A wait that only a notice ends within a test's bound."""
BOUND_S = 20.0


def opened(url: str) -> AbstractAsyncContextManager[PostgresControls]:
    """One process's controls."""
    return open_controls(ConnectionSettings(url=url), worker_id())


@asynccontextmanager
async def following(controls: PostgresControls) -> AsyncIterator[QueueGates]:
    """One process's panel, at work."""
    gates = QueueGates(controls, queues=QUEUES, providers=PROVIDERS)
    async with background_task(gates.run, "panel"):
        yield gates


async def becomes(gates: QueueGates, queue: QueueKey, permission: SendPermission) -> None:
    changed = asyncio.Event()
    gates.on_change(changed.set)
    async with asyncio.timeout(BOUND_S):
        while gates.permission(queue) is not permission:
            await changed.wait()
            changed.clear()


async def is_told(controls: PostgresControls) -> None:
    """Returns at a notice; fails if none comes."""
    async with asyncio.timeout(BOUND_S):
        await controls.changed(LONG_S)


async def execute(url: str, sql: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return await connection.execute(sql)
    finally:
        await connection.close()


async def breaker(controls: PostgresControls) -> Breaker:
    (only,) = (await controls.read()).breakers
    return only


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[PostgresControls]:
    async with opened(database_url) as controls:
        yield controls


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[PostgresControls]:
    async with opened(database_url) as controls:
        yield controls


# ---- pauses -------------------------------------------------------------------------------------


async def test_a_pause_is_read_by_all_until_it_is_resumed(
    one: PostgresControls, other: PostgresControls
) -> None:
    await one.pause(EMAIL, reason="maintenance", for_s=None)
    (pause,) = (await other.read()).pauses
    assert (pause.scope, pause.reason, pause.expires_in_s) == (EMAIL, "maintenance", None)
    assert 0 <= pause.age_s < BOUND_S
    assert await other.resume(EMAIL)
    assert not await one.resume(EMAIL)
    assert (await one.read()).pauses == ()


async def test_each_kind_of_scope_is_kept_apart(one: PostgresControls) -> None:
    scopes = [Scope(kind, "email") for kind in ScopeKind]
    for scope in scopes:
        await one.pause(scope, reason="", for_s=None)
    assert [pause.scope for pause in (await one.read()).pauses] == scopes


async def test_a_pause_is_prolonged_and_keeps_its_beginning(
    one: PostgresControls, database_url: str
) -> None:
    await one.pause(EMAIL, reason="first", for_s=5)
    await execute(database_url, "UPDATE pauses SET paused_at = paused_at - interval '1 hour'")
    await one.pause(EMAIL, reason="second", for_s=500)
    (pause,) = (await one.read()).pauses
    assert pause.reason == "second"
    assert pause.age_s >= 3600
    assert pause.expires_in_s is not None
    assert 100 < pause.expires_in_s <= 500


async def test_an_expired_pause_is_left_out_and_removed(
    one: PostgresControls, database_url: str
) -> None:
    await one.pause(EMAIL, reason="short", for_s=0.001)
    await asyncio.sleep(0.01)
    assert not await one.resume(EMAIL)
    await one.pause(EMAIL, reason="short", for_s=0.001)
    await asyncio.sleep(0.01)
    assert (await one.read()).pauses == ()
    assert await execute(database_url, "DELETE FROM pauses") == "DELETE 0"


async def test_a_pause_begun_after_the_last_one_expired_is_new(
    one: PostgresControls, database_url: str
) -> None:
    await one.pause(EMAIL, reason="old", for_s=1)
    await execute(
        database_url,
        "UPDATE pauses SET paused_at = now() - interval '1 h', expires_at = now() - interval '1 s'",
    )
    await one.pause(EMAIL, reason="new", for_s=None)
    (pause,) = (await one.read()).pauses
    assert pause.age_s < 3600


# ---- breakers -----------------------------------------------------------------------------------


async def test_a_breaker_opens_once_and_waits_five_seconds(
    one: PostgresControls, other: PostgresControls
) -> None:
    assert await one.open_breaker("smtp", "errors")
    assert not await other.open_breaker("smtp", "in_a_row")
    seen = await breaker(other)
    assert (seen.provider, seen.state, seen.reason) == ("smtp", BreakerState.OPEN, "errors")
    assert (seen.openings, seen.is_mine) == (1, False)
    assert 0 < seen.probe_in_s <= 5
    assert not await one.hold_probe("smtp", 10)


async def test_a_probe_has_one_holder_who_alone_closes_or_opens_again(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    await one.open_breaker("smtp", "errors")
    await execute(database_url, "UPDATE breakers SET probe_at = now()")
    assert await one.hold_probe("smtp", 30)
    assert not await other.hold_probe("smtp", 30)
    assert not await other.reopen_breaker("smtp", "probe")
    assert not await other.close_breaker("smtp")
    assert (await breaker(one)).is_mine
    seen = await breaker(other)
    assert (seen.state, seen.is_mine) == (BreakerState.HALF_OPEN, False)
    assert 5 < seen.probe_in_s <= 30
    assert await one.close_breaker("smtp")
    assert not await one.close_breaker("smtp")
    seen = await breaker(other)
    assert (seen.state, seen.openings) == (BreakerState.CLOSED, 0)
    assert not await one.hold_probe("smtp", 30)


async def test_a_hold_that_has_ended_is_taken_by_another(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    await one.open_breaker("smtp", "errors")
    await execute(database_url, "UPDATE breakers SET probe_at = now()")
    await one.hold_probe("smtp", 0.001)
    await asyncio.sleep(0.01)
    assert await other.hold_probe("smtp", 30)
    assert not await one.close_breaker("smtp")
    assert await other.reopen_breaker("smtp", "probe")


async def test_the_wait_doubles_to_a_minute_and_is_five_seconds_again_after_a_close(
    one: PostgresControls, database_url: str
) -> None:
    waits, due = list[int](), "UPDATE breakers SET probe_at = now()"
    await one.open_breaker("smtp", "errors")
    for _ in range(7):
        waits.append(round((await breaker(one)).probe_in_s))
        await execute(database_url, due)
        assert await one.hold_probe("smtp", 30)
        assert await one.reopen_breaker("smtp", "probe")
    assert waits == [5, 10, 20, 40, 60, 60, 60]
    assert (await breaker(one)).openings == 8
    await execute(database_url, due)
    assert await one.hold_probe("smtp", 30)
    assert await one.close_breaker("smtp")
    assert await one.open_breaker("smtp", "errors")
    seen = await breaker(one)
    assert (seen.openings, round(seen.probe_in_s)) == (1, 5)


async def test_of_twenty_who_take_the_probe_at_once_one_gets_it(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(opened(database_url)) for _ in range(20)]
        for controls in crowd:
            await controls.read()  # connected
        await crowd[0].open_breaker("smtp", "errors")
        for _ in range(10):
            await execute(database_url, "UPDATE breakers SET probe_at = now()")
            async with asyncio.TaskGroup() as group:
                tries = [group.create_task(each.hold_probe("smtp", 30)) for each in crowd]
            assert Counter(each.result() for each in tries) == {True: 1, False: 19}


async def test_of_twenty_who_open_a_breaker_at_once_one_does(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(opened(database_url)) for _ in range(20)]
        async with asyncio.TaskGroup() as group:
            tries = [group.create_task(each.open_breaker("smtp", "errors")) for each in crowd]
        assert Counter(each.result() for each in tries) == {True: 1, False: 19}
        assert (await breaker(crowd[0])).openings == 1


# ---- told to all --------------------------------------------------------------------------------


async def test_every_change_is_told_and_what_changes_nothing_is_not(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    await is_told(other)  # that it listens
    await one.pause(EMAIL, reason="", for_s=None)
    await is_told(other)
    await one.resume(EMAIL)
    await is_told(other)
    await one.open_breaker("smtp", "errors")
    await is_told(other)
    await execute(database_url, "UPDATE breakers SET probe_at = now()")
    await one.hold_probe("smtp", 30)
    await is_told(other)
    await one.reopen_breaker("smtp", "probe")
    await is_told(other)
    await execute(database_url, "UPDATE breakers SET probe_at = now()")
    await one.hold_probe("smtp", 30)
    await is_told(other)
    await one.close_breaker("smtp")
    await is_told(other)
    await one.resume(EMAIL)
    await one.close_breaker("smtp")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await other.changed(LONG_S)


async def test_a_wait_for_changes_ends_by_itself(one: PostgresControls) -> None:
    await is_told(one)
    async with asyncio.timeout(BOUND_S):
        await one.changed(0.01)


async def test_a_pause_reaches_the_other_process_by_its_notice_alone(
    one: PostgresControls, other: PostgresControls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.scheduling.gates.queue_gates.READ_INTERVAL_S", LONG_S)
    async with following(other) as gates:
        await becomes(gates, EMAIL_HIGH, SendPermission.ALLOWED)
        await one.pause(EMAIL, reason="", for_s=None)
        await becomes(gates, EMAIL_HIGH, SendPermission.PAUSED)
        assert gates.permission(SMS_HIGH) is SendPermission.ALLOWED
        await one.resume(EMAIL)
        await becomes(gates, EMAIL_HIGH, SendPermission.ALLOWED)


async def test_a_pause_whose_notice_is_lost_is_found_by_the_next_look(
    other: PostgresControls, database_url: str
) -> None:
    async with following(other) as gates:
        await becomes(gates, EMAIL_HIGH, SendPermission.ALLOWED)
        await execute(
            database_url,
            "INSERT INTO pauses (kind, name, reason) VALUES ('channel', 'email', 'untold')",
        )
        await becomes(gates, EMAIL_HIGH, SendPermission.PAUSED)


async def test_a_pause_ends_by_itself_everywhere(
    one: PostgresControls, other: PostgresControls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.scheduling.gates.queue_gates.READ_INTERVAL_S", LONG_S)
    async with following(other) as gates:
        await becomes(gates, EMAIL_HIGH, SendPermission.ALLOWED)
        await one.pause(EMAIL, reason="", for_s=1.0)
        await becomes(gates, EMAIL_HIGH, SendPermission.PAUSED)
        await becomes(gates, EMAIL_HIGH, SendPermission.ALLOWED)


# ---- faults -------------------------------------------------------------------------------------


async def test_a_listener_that_was_killed_listens_again_and_says_so(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    await is_told(other)
    await is_told(one)
    killed = await execute(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE query LIKE 'LISTEN%' AND datname = current_database()",
    )
    assert killed == "SELECT 2"
    await is_told(other)  # it is back
    await one.pause(EMAIL, reason="", for_s=None)
    await is_told(other)


async def test_a_pause_made_while_the_network_was_cut_is_known_when_it_is_back(
    one: PostgresControls, database_url: str
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        opened(proxy.url(database_url)) as far,
        following(far) as gates,
    ):
        await becomes(gates, EMAIL_HIGH, SendPermission.ALLOWED)
        proxy.cut()
        with pytest.raises(StoreUnavailable):
            await far.read()
        await one.pause(EMAIL, reason="", for_s=None)
        assert gates.permission(EMAIL_HIGH) is SendPermission.ALLOWED
        proxy.heal()
        await becomes(gates, EMAIL_HIGH, SendPermission.PAUSED)
        proxy.cut()
        with pytest.raises(StoreUnavailable):
            await far.read()
        assert gates.permission(EMAIL_HIGH) is SendPermission.PAUSED
        proxy.heal()
        await one.resume(EMAIL)
        await becomes(gates, EMAIL_HIGH, SendPermission.ALLOWED)


async def test_waiting_while_postgres_is_away_neither_raises_nor_returns_early(
    database_url: str,
) -> None:
    async with open_proxy_for(database_url) as proxy, opened(proxy.url(database_url)) as far:
        await is_told(far)
        proxy.cut()
        returns = 0
        over = asyncio.get_running_loop().time() + 1.5
        while asyncio.get_running_loop().time() < over:
            await far.changed(0.5)
            returns += 1
        assert returns <= 4
        proxy.heal()
        await is_told(far)


async def test_a_silent_listener_is_given_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.adapters.postgres.listening.PROVE_EVERY_S", 0.1)
    async with open_proxy_for(database_url) as proxy:
        far = ConnectionSettings(url=proxy.url(database_url), statement_timeout_s=0.1)
        async with open_controls(far, worker_id()) as controls, opened(database_url) as near:
            await is_told(controls)
            proxy.swallow_replies()
            await proxy.swallowed.wait()
            proxy.heal()
            await is_told(controls)  # a new connection
            await near.pause(EMAIL, reason="", for_s=None)
            await is_told(controls)


async def test_a_pause_outlives_a_restart_of_postgres(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    async with (
        opened(private_database_url) as one,
        opened(private_database_url) as other,
        following(other) as gates,
    ):
        await one.pause(EMAIL, reason="", for_s=None)
        await becomes(gates, SMS_HIGH, SendPermission.ALLOWED)
        await becomes(gates, EMAIL_HIGH, SendPermission.PAUSED)
        await run_steps_async(private_postgres.restarting())
        assert gates.permission(EMAIL_HIGH) is SendPermission.PAUSED
        await until_resumed(one)
        await becomes(gates, EMAIL_HIGH, SendPermission.ALLOWED)


async def until_resumed(controls: PostgresControls) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                assert await controls.resume(EMAIL)
                return
            except StoreUnavailable:
                await asyncio.sleep(0.05)


# ---- the board ----------------------------------------------------------------------------------


SAID = Figures(
    queues={},
    providers={
        "smtp": ProviderFigures(calls=7, failures=2, streak=0, streak_s=0.0, answered_s=1.0)
    },
)


@asynccontextmanager
async def a_board(url: str, controls: PostgresControls) -> AsyncIterator[Board]:
    settings, worker = ConnectionSettings(url=url), worker_id()
    async with open_store(settings, worker) as store, open_heartbeat(settings, worker) as heartbeat:
        yield Board(
            store=store,
            broker=InProcessBroker(QUEUES),
            membership=Membership(
                heartbeat,
                kind="api",
                host="here",
                pid=1,
                mine=lambda: SAID,
                observer=Metrics(QUEUES, {}, version="0"),
            ),
            queues=QUEUES,
            gates=QueueGates(controls, queues=QUEUES, providers=PROVIDERS),
        )


async def test_the_board_says_at_once_what_holds_a_queue_back_though_no_worker_runs(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    async with a_board(database_url, one) as board:
        await other.pause(EMAIL, reason="", for_s=None)
        await other.open_breaker("http", "errors")
        shown = {str(state.queue): state for state in await board.queues()}
        email, sms = shown["email.high"], shown["sms.high"]
        assert (email.paused, email.limited_by) == (True, "pause")
        assert (sms.paused, sms.limited_by) == (False, "breaker")
        await other.resume(EMAIL)
        shown = {str(state.queue): state for state in await board.queues()}
        email = shown["email.high"]
        assert (email.paused, email.limited_by) == (False, "no worker")


async def test_the_board_shows_providers_and_pauses(
    one: PostgresControls, other: PostgresControls, database_url: str
) -> None:
    smtp = Scope(ScopeKind.PROVIDER, "smtp")
    async with a_board(database_url, one) as board:
        await other.pause(smtp, reason="new address", for_s=None)
        await other.open_breaker("http", "in_a_row")
        http_state, smtp_state = await board.providers()
        assert http_state.channels == ("sms", "push")
        assert (http_state.breaker, http_state.reason) == ("open", "in_a_row")
        assert (http_state.paused, http_state.calls) == (False, 0)
        assert 0 < http_state.probe_in_s <= 5
        assert (smtp_state.breaker, smtp_state.reason, smtp_state.probe_in_s) == ("closed", "", 0)
        assert (smtp_state.paused, smtp_state.calls, smtp_state.failures) == (True, 7, 2)
        assert [pause.reason for pause in await board.pauses()] == ["new address"]
        assert (await one.read()) != Controls()
