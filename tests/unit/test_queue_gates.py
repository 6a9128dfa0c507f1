"""What a process knows of pauses and breakers between two reads."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.controls import BreakerState, Controls, ScopeKind, SendPermission
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Channel
from notifier.lifecycle import wait
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates
from tests.builders import EMAIL_HIGH, QUEUES, SMS_HIGH, a_breaker, a_pause
from tests.doubles import PermissionChange

PROVIDERS = {Channel(name): ["smtp"] for name in ("email", "sms", "push")}


class MemoryControls:
    """Returns the controls it is given, unless it is unavailable."""

    def __init__(self) -> None:
        self.controls = Controls()
        self.is_unavailable = False
        self.reads = 0
        self.changed = asyncio.Event()

    async def read(self) -> Controls:
        self.reads += 1
        if self.is_unavailable:
            raise StoreUnavailable("away")
        return self.controls

    async def wait_for_change(self, timeout_s: float) -> None:
        await wait(self.changed, timeout_s)
        self.changed.clear()


class ManualClock:
    """A clock that only the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class PermissionLog:
    """Records the permission of one queue at every change."""

    def __init__(self, gates: QueueGates) -> None:
        self._gates = gates
        self.permissions: list[SendPermission] = []

    def permissions_changed(self) -> None:
        self.permissions.append(self._gates.permission(EMAIL_HIGH))


def make_metrics() -> Metrics:
    return Metrics(QUEUES, PROVIDERS, version="0", registry=CollectorRegistry())


def make_gates(
    store: MemoryControls, clock: ManualClock | None = None, probes: Probes | None = None
) -> QueueGates:
    return QueueGates(
        store,
        queues=QUEUES,
        providers=PROVIDERS,
        probes=probes or Probes(),
        observer=make_metrics(),
        clock=clock or ManualClock(),
    )


async def test_before_the_first_read_every_queue_counts_as_paused() -> None:
    store = MemoryControls()
    store.is_unavailable = True
    gates = make_gates(store)
    await gates.run_once()
    assert {gates.permission(queue) for queue in QUEUES} == {SendPermission.PAUSED}
    assert gates.snapshot() == Controls()
    store.is_unavailable = False
    await gates.run_once()
    assert {gates.permission(queue) for queue in QUEUES} == {SendPermission.ALLOWED}


async def test_a_pause_is_not_forgotten_while_postgres_is_unavailable() -> None:
    store = MemoryControls()
    store.controls = Controls(pauses=(a_pause(ScopeKind.CHANNEL, "email"),))
    clock = ManualClock()
    gates = make_gates(store, clock)
    await gates.run_once()
    store.is_unavailable = True
    for _ in range(10):
        clock.now += 3600
        await gates.run_once()
    assert gates.permission(EMAIL_HIGH) is SendPermission.PAUSED
    assert gates.permission(SMS_HIGH) is SendPermission.ALLOWED


async def test_a_new_pause_of_a_tenant_or_tag_is_told_once() -> None:
    class HoldLog:
        count = 0

        def holds_added(self) -> None:
            self.count += 1

    store, told = MemoryControls(), HoldLog()
    gates = make_gates(store)
    gates.add_hold_listener(told)
    tag, tenant = a_pause(ScopeKind.TAG, "sale"), a_pause(ScopeKind.TENANT, "shop")
    expected = 0
    for pauses, is_new in (
        ((a_pause(ScopeKind.CHANNEL, "email"),), False),
        ((tag,), True),
        ((tag,), False),
        ((tag, tenant), True),
        ((tenant,), False),
        ((), False),
        ((tag,), True),
    ):
        store.controls = Controls(pauses=pauses)
        await gates.run_once()
        expected += is_new
        assert told.count == expected


async def test_a_pause_ends_on_time_without_a_read() -> None:
    store, clock = MemoryControls(), ManualClock()
    store.controls = Controls(pauses=(a_pause(ScopeKind.CHANNEL, "email", 10.0),))
    gates = make_gates(store, clock)
    await gates.run_once()
    clock.now += 9.5
    assert gates.snapshot().pauses[0].expires_in_s == 0.5
    assert gates.permission(EMAIL_HIGH) is SendPermission.PAUSED
    clock.now += 0.5
    assert gates.permission(EMAIL_HIGH) is SendPermission.ALLOWED
    assert store.reads == 1


async def test_listeners_are_called_when_a_permission_changed_and_only_then() -> None:
    store, probes = MemoryControls(), Probes()
    gates = make_gates(store, probes=probes)
    log = PermissionLog(gates)
    gates.add_listener(log)
    await gates.run_once()
    await gates.run_once()
    assert log.permissions == [SendPermission.ALLOWED]
    held = a_breaker(state=BreakerState.HALF_OPEN, is_mine=True)
    store.controls = Controls(breakers=(held,))
    await gates.run_once()
    await gates.run_once()
    assert log.permissions == [SendPermission.ALLOWED, SendPermission.BREAKER_OPEN]
    probes.begin("smtp", EMAIL_HIGH, now=0.0)
    gates.review()
    gates.review()
    assert log.permissions == [
        SendPermission.ALLOWED,
        SendPermission.BREAKER_OPEN,
        SendPermission.PROBE,
    ]


async def test_the_running_gates_report_an_expiry_while_postgres_is_unavailable() -> None:
    store, change = MemoryControls(), PermissionChange()
    store.controls = Controls(pauses=(a_pause(ScopeKind.CHANNEL, "email", 0.2),))
    gates = QueueGates(
        store,
        queues=[EMAIL_HIGH],
        providers={Channel("email"): ["smtp"]},
        probes=Probes(),
        observer=make_metrics(),
    )
    gates.add_listener(change)
    stop = asyncio.Event()
    await gates.run_once()
    store.is_unavailable = True
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(gates.run(stop))
        await change.wait()
        assert gates.permission(EMAIL_HIGH) is SendPermission.ALLOWED
        stop.set()
