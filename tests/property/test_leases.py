"""No two processes hold one lease at a time, and every lease has a holder soon after all faults."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.liveness import DEAD_AFTER_S
from notifier.domain.notification import QueueKey
from notifier.lifecycle import wait
from tests.builders import EMAIL_HIGH, EMAIL_LOW, SMS_HIGH
from tests.memory_leases import FixedWorkers, LeaseProcess, LeaseTable
from tests.virtual_time import run_virtually

QUEUES: Final = (EMAIL_HIGH, EMAIL_LOW, SMS_HIGH)
SLOTS: Final = 4
STEP_S: Final = 0.1
HEALED_S: Final = 8.0
"""Within this time after the last fault every lease has a usable holder: 2 s until it is free, and
the delays of all ranks, dead processes included that others still count as live for 6 s."""


class Fault(Enum):
    """What happens to one process; all but KILL and STOP end by themselves."""

    KILL = auto()
    STOP = auto()
    FREEZE = auto()
    CUT = auto()
    ANSWER_LOST = auto()
    SLOW = auto()
    BROKER_AWAY = auto()
    RELAY_STALLED = auto()
    ALL_CUT = auto()


class Event(NamedTuple):
    """After `after_s` the fault befalls the process in the slot, for `for_s`."""

    after_s: float
    slot: int
    fault: Fault
    for_s: float


EVENTS = st.lists(
    st.builds(
        Event,
        after_s=st.sampled_from([0.0, 0.3, 0.7, 2.1, 6.5, 15.0]),
        slot=st.integers(0, SLOTS - 1),
        fault=st.sampled_from(Fault),
        for_s=st.sampled_from([0.4, 1.3, 1.9, 2.6, 5.0, 20.0]),
    ),
    max_size=12,
)


@dataclass(eq=False)
class Worker:
    """A process with its faults; `is_running` is false from its kill or the end of its stop."""

    process: LeaseProcess
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    faults: Counter[Fault] = field(default_factory=Counter)
    is_running: bool = True

    def apply(self) -> None:
        store = self.process.store
        store.is_cut = bool(self.faults[Fault.CUT] or self.faults[Fault.ALL_CUT])
        store.is_answer_lost = bool(self.faults[Fault.ANSWER_LOST])
        store.delay_s = 0.6 if self.faults[Fault.SLOW] else 0.01
        self.process.broker.is_available = not self.faults[Fault.BROKER_AWAY]
        if self.faults[Fault.FREEZE]:
            store.thawed.clear()
        else:
            store.thawed.set()

    async def run(self) -> None:
        try:
            await self.process.keeper.run(self.stop)
        finally:
            self.is_running = False


class Deployment:
    """Four workers; one that is killed or stopped is replaced at once."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._clock = asyncio.get_running_loop().time
        self._live = FixedWorkers()
        self._tasks: dict[Worker, asyncio.Task[None]] = {}
        self.table = LeaseTable.of(QUEUES)
        self.workers = [self._start() for _ in range(SLOTS)]

    @property
    def all_workers(self) -> Collection[Worker]:
        """All workers, also those that have ended."""
        return self._tasks.keys()

    def _start(self) -> Worker:
        worker = Worker(LeaseProcess(self.table, self._live, clock=self._clock))
        worker.apply()
        self._tasks[worker] = self._group.create_task(worker.run())
        return worker

    def _replace(self, slot: int, *, is_killed: bool) -> None:
        worker, self.workers[slot] = self.workers[slot], self._start()
        if is_killed:
            self._tasks[worker].cancel()
        else:
            worker.stop.set()
        self._group.create_task(self._forget(worker))

    async def _forget(self, worker: Worker) -> None:
        """End a worker that was killed or stopped: the others notice it up to 6 s later."""
        await asyncio.sleep(DEAD_AFTER_S)
        self._live.ids.remove(worker.process.id)

    async def run(self, events: Sequence[Event]) -> None:
        """Let the events happen, and wait until their ends."""
        async with asyncio.TaskGroup() as group:
            for event in events:
                await asyncio.sleep(event.after_s)
                worker = self.workers[event.slot]
                match event.fault:
                    case Fault.KILL | Fault.STOP:
                        self._replace(event.slot, is_killed=event.fault is Fault.KILL)
                    case Fault.ALL_CUT:
                        group.create_task(self._befall(list(self.workers), event))
                    case _:
                        group.create_task(self._befall([worker], event))

    async def _befall(self, workers: Sequence[Worker], event: Event) -> None:
        for worker in workers:
            worker.faults[event.fault] += 1
            worker.apply()
        await asyncio.sleep(event.for_s)
        for worker in workers:
            worker.faults[event.fault] -= 1
            worker.apply()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop.set()


async def use_leases(deployment: Deployment, end: asyncio.Event) -> None:
    """Play the relays of all processes, and check at each step that no two hold the same lease."""
    clock = asyncio.get_running_loop().time
    while not await wait(end, STEP_S):
        used = Counter(queue for worker in deployment.all_workers for queue in use(worker, clock()))
        assert not used or max(used.values()) == 1, used


def use(worker: Worker, now: float) -> Collection[QueueKey]:
    """Play the relay of one process for one step; returns the queues that it publishes."""
    if not worker.is_running or worker.faults[Fault.FREEZE]:
        return ()
    held = worker.process.keeper.held()
    for lease in held.values():
        if not worker.faults[Fault.RELAY_STALLED]:
            lease.passed_at = now
        if not worker.faults[Fault.BROKER_AWAY]:
            lease.unpublishable_since = None
        elif lease.unpublishable_since is None:
            lease.unpublishable_since = now
    return held.keys()


async def all_are_held(deployment: Deployment) -> None:
    """Return once each lease has a holder that may publish."""
    while {queue for worker in deployment.workers for queue in worker.process.keeper.held()} != set(
        QUEUES
    ):
        await asyncio.sleep(STEP_S)


@given(EVENTS)
def test_each_lease_has_one_holder_at_most_and_finds_one_after_all_faults(
    events: list[Event],
) -> None:
    async def scenario() -> None:
        end = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            deployment = Deployment(group)
            group.create_task(use_leases(deployment, end))
            await deployment.run(events)
            async with asyncio.timeout(HEALED_S):
                await all_are_held(deployment)
            deployment.stop()
            await asyncio.sleep(1)
            end.set()
        assert set(deployment.table.holders().values()) == {None}

    run_virtually(scenario())
