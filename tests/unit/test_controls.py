"""What pauses and breakers mean for a queue, and what a process knows of them between reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf

import pytest

from notifier.domain.controls import (
    Breaker,
    BreakerState,
    Controls,
    Pause,
    Scope,
    ScopeKind,
    SendPermission,
)
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Channel, QueueKey
from notifier.scheduling.gates.permissions import aged, next_end_s, permission_of
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import EMAIL_HIGH, EMAIL_LOW, QUEUES, SMS_HIGH

OPEN, HALF_OPEN, CLOSED = BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED


def a_pause(kind: ScopeKind, name: str, expires_in_s: float | None = None) -> Pause:
    return Pause(scope=Scope(kind, name), reason="why", age_s=1.0, expires_in_s=expires_in_s)


def a_breaker(
    provider: str = "smtp",
    state: BreakerState = OPEN,
    *,
    is_mine: bool = False,
    probe_in_s: float = 5.0,
) -> Breaker:
    return Breaker(
        provider=provider,
        state=state,
        reason="errors",
        openings=1,
        age_s=1.0,
        probe_in_s=probe_in_s,
        is_mine=is_mine,
    )


def permission(
    *held: Pause | Breaker,
    queue: QueueKey = EMAIL_HIGH,
    providers: Sequence[str] = ("smtp",),
    probed: QueueKey | None = None,
) -> SendPermission:
    controls = Controls(
        pauses=tuple(each for each in held if isinstance(each, Pause)),
        breakers=tuple(each for each in held if isinstance(each, Breaker)),
    )
    return permission_of(controls, queue, providers, lambda _: probed)


@pytest.mark.parametrize(
    ("pause", "covers_high", "covers_low", "covers_sms"),
    [
        (a_pause(ScopeKind.QUEUE, "email.high"), True, False, False),
        (a_pause(ScopeKind.CHANNEL, "email"), True, True, False),
        (a_pause(ScopeKind.CHANNEL, "sms"), False, False, True),
        (a_pause(ScopeKind.PROVIDER, "smtp"), True, True, True),
        (a_pause(ScopeKind.PROVIDER, "email"), False, False, False),
    ],
)
def test_a_pause_covers_its_scope_and_nothing_else(
    pause: Pause, covers_high: bool, covers_low: bool, covers_sms: bool
) -> None:
    seen = [
        permission(pause, queue=queue) is SendPermission.PAUSED
        for queue in (EMAIL_HIGH, EMAIL_LOW, SMS_HIGH)
    ]
    assert seen == [covers_high, covers_low, covers_sms]


def test_a_queue_is_held_back_only_when_none_of_its_providers_is_left() -> None:
    both = ("smtp", "http")
    smtp_paused = a_pause(ScopeKind.PROVIDER, "smtp")
    http_paused = a_pause(ScopeKind.PROVIDER, "http")
    assert permission(smtp_paused, providers=both) is SendPermission.ALLOWED
    assert permission(smtp_paused, http_paused, providers=both) is SendPermission.PAUSED
    assert permission(a_breaker("smtp"), providers=both) is SendPermission.ALLOWED
    assert (
        permission(a_breaker("smtp"), a_breaker("http"), providers=both)
        is SendPermission.BREAKER_OPEN
    )
    assert permission(smtp_paused, a_breaker("http"), providers=both) is SendPermission.BREAKER_OPEN


def test_a_queue_without_providers_is_free_unless_it_is_paused_itself() -> None:
    assert permission(providers=()) is SendPermission.ALLOWED
    assert permission(a_pause(ScopeKind.CHANNEL, "email"), providers=()) is SendPermission.PAUSED


@pytest.mark.parametrize(
    ("breaker", "probed", "expected"),
    [
        (a_breaker(state=CLOSED), None, SendPermission.ALLOWED),
        (a_breaker(state=OPEN), EMAIL_HIGH, SendPermission.BREAKER_OPEN),
        (a_breaker(state=HALF_OPEN), EMAIL_HIGH, SendPermission.BREAKER_OPEN),
        (a_breaker(state=HALF_OPEN, is_mine=True), None, SendPermission.BREAKER_OPEN),
        (a_breaker(state=HALF_OPEN, is_mine=True), EMAIL_LOW, SendPermission.BREAKER_OPEN),
        (a_breaker(state=HALF_OPEN, is_mine=True), EMAIL_HIGH, SendPermission.PROBE),
        (
            a_breaker(state=HALF_OPEN, is_mine=True, probe_in_s=0),
            EMAIL_HIGH,
            SendPermission.BREAKER_OPEN,
        ),
    ],
)
def test_only_the_holder_probes_and_only_from_one_queue(
    breaker: Breaker, probed: QueueKey | None, expected: SendPermission
) -> None:
    assert permission(breaker, probed=probed) is expected


def test_a_pause_counts_before_a_breaker() -> None:
    assert permission(a_breaker(), a_pause(ScopeKind.QUEUE, "email.high")) is SendPermission.PAUSED


def test_spans_age_and_what_expires_is_gone() -> None:
    short, endless = a_pause(ScopeKind.CHANNEL, "email", 2.0), a_pause(ScopeKind.CHANNEL, "sms")
    controls = Controls(pauses=(short, endless), breakers=(a_breaker(probe_in_s=5.0),))
    later = aged(controls, 1.5)
    assert [(pause.age_s, pause.expires_in_s) for pause in later.pauses] == [
        (2.5, 0.5),
        (2.5, None),
    ]
    assert (later.breakers[0].age_s, later.breakers[0].probe_in_s) == (2.5, 3.5)
    assert [pause.scope.name for pause in aged(controls, 2.0).pauses] == ["sms"]


def test_the_next_end_is_that_of_a_pause_or_of_our_hold() -> None:
    pause = a_pause(ScopeKind.CHANNEL, "email", 9.0)
    held = a_breaker(state=HALF_OPEN, is_mine=True, probe_in_s=3.0)
    assert next_end_s(Controls()) == inf
    assert next_end_s(Controls(pauses=(pause,), breakers=(a_breaker(),))) == 9.0
    assert next_end_s(Controls(pauses=(pause,), breakers=(held,))) == 3.0


# ---- the panel ----------------------------------------------------------------------------------


class MemoryControls:
    """Says what it is given, unless it is away."""

    def __init__(self) -> None:
        self.controls = Controls()
        self.is_away = False
        self.reads = 0
        self.notice = asyncio.Event()

    async def read(self) -> Controls:
        self.reads += 1
        if self.is_away:
            raise StoreUnavailable("away")
        return self.controls

    async def changed(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self.notice.wait()
        except TimeoutError:
            pass
        self.notice.clear()


class HandClock:
    """Goes on when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_panel(store: MemoryControls, clock: HandClock | None = None) -> QueueGates:
    providers = {Channel(name): ["smtp"] for name in ("email", "sms", "push")}
    return QueueGates(store, queues=QUEUES, providers=providers, clock=clock or HandClock())


async def test_before_the_first_read_every_queue_counts_as_paused() -> None:
    store = MemoryControls()
    store.is_away = True
    gates = a_panel(store)
    await gates.run_once()
    assert {gates.permission(queue) for queue in QUEUES} == {SendPermission.PAUSED}
    assert gates.snapshot() == Controls()
    store.is_away = False
    await gates.run_once()
    assert {gates.permission(queue) for queue in QUEUES} == {SendPermission.ALLOWED}


async def test_a_pause_is_not_forgotten_while_postgres_is_away() -> None:
    store = MemoryControls()
    store.controls = Controls(pauses=(a_pause(ScopeKind.CHANNEL, "email"),))
    clock = HandClock()
    gates = a_panel(store, clock)
    await gates.run_once()
    store.is_away = True
    for _ in range(10):
        clock.now += 3600
        await gates.run_once()
    assert gates.permission(EMAIL_HIGH) is SendPermission.PAUSED
    assert gates.permission(SMS_HIGH) is SendPermission.ALLOWED


async def test_a_pause_ends_on_time_without_a_read() -> None:
    store, clock = MemoryControls(), HandClock()
    store.controls = Controls(pauses=(a_pause(ScopeKind.CHANNEL, "email", 10.0),))
    gates = a_panel(store, clock)
    await gates.run_once()
    clock.now += 9.5
    assert gates.snapshot().pauses[0].expires_in_s == 0.5
    assert gates.permission(EMAIL_HIGH) is SendPermission.PAUSED
    clock.now += 0.5
    assert gates.permission(EMAIL_HIGH) is SendPermission.ALLOWED
    assert store.reads == 1


async def test_it_tells_when_a_flow_changed_and_only_then() -> None:
    store, told = MemoryControls(), list[SendPermission]()
    gates = a_panel(store)
    gates.on_change(lambda: told.append(gates.permission(EMAIL_HIGH)))
    await gates.run_once()
    await gates.run_once()
    assert told == [SendPermission.ALLOWED]
    store.controls = Controls(breakers=(a_breaker(state=HALF_OPEN, is_mine=True),))
    await gates.run_once()
    await gates.run_once()
    assert told == [SendPermission.ALLOWED, SendPermission.BREAKER_OPEN]
    gates.probing = lambda _: EMAIL_HIGH
    gates.review()
    gates.review()
    assert told == [SendPermission.ALLOWED, SendPermission.BREAKER_OPEN, SendPermission.PROBE]


async def test_while_it_runs_an_expiry_is_told_though_postgres_is_away() -> None:
    store, free = MemoryControls(), asyncio.Event()
    store.controls = Controls(pauses=(a_pause(ScopeKind.CHANNEL, "email", 0.2),))
    providers = {Channel("email"): ["smtp"]}
    gates = QueueGates(store, queues=[EMAIL_HIGH], providers=providers)
    gates.on_change(free.set)
    stop = asyncio.Event()
    await gates.run_once()
    store.is_away = True
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(gates.run(stop))
        await free.wait()
        assert gates.permission(EMAIL_HIGH) is SendPermission.ALLOWED
        stop.set()
