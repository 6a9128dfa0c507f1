"""A table of leases in memory, and processes whose keepers read and write it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import QueueKey, WorkerId
from notifier.lifecycle import Clock
from notifier.ports.leases import HeldLease, Lease, LeaseRead, Progress
from notifier.scheduling.cluster.lease_keeper import LeaseKeeper


@dataclass
class LeaseTable:
    """The rows of all queues, by the statements of lease_*.sql."""

    leases: dict[QueueKey, Lease]
    progress: dict[QueueKey, Progress] = field(default_factory=dict)

    @staticmethod
    def of(queues: Sequence[QueueKey]) -> LeaseTable:
        return LeaseTable(
            {queue: Lease(queue, None, 0, 0, is_backlogged=False) for queue in queues}
        )

    def renew(self, worker: WorkerId, held: Sequence[HeldLease]) -> LeaseRead:
        mine = [lease for lease in held if self._write(worker, lease)]
        for lease in mine:
            row = self.leases[lease.queue]
            self.leases[lease.queue] = row._replace(beat=row.beat + 1)
        return LeaseRead(list(self.leases.values()), {lease.queue for lease in mine})

    def acquire(self, worker: WorkerId, seen: Sequence[Lease]) -> Mapping[QueueKey, Progress]:
        acquired = {}
        for lease in seen:
            row = self.leases[lease.queue]
            if (row.term, row.beat) == (lease.term, lease.beat):
                self.leases[lease.queue] = row._replace(
                    holder=worker, term=row.term + 1, beat=row.beat + 1
                )
                acquired[lease.queue] = self.progress.get(lease.queue, Progress())
        return acquired

    def release(self, worker: WorkerId, held: Sequence[HeldLease]) -> None:
        for lease in held:
            if self._write(worker, lease):
                self.leases[lease.queue] = self.leases[lease.queue]._replace(holder=None)

    def _write(self, worker: WorkerId, lease: HeldLease) -> bool:
        row = self.leases[lease.queue]
        is_mine = (row.holder, row.term) == (worker, lease.term)
        if is_mine:
            self.progress[lease.queue] = lease.progress
            self.leases[lease.queue] = row._replace(is_backlogged=lease.progress.is_backlogged)
        return is_mine

    def holders(self) -> Mapping[QueueKey, WorkerId | None]:
        return {queue: lease.holder for queue, lease in self.leases.items()}


class MemoryLeases:
    """One process's link to the table. Implements ports.leases.LeaseStore.

    `delay_s` passes before and after each statement. While `is_cut` every statement fails; while
    `is_answer_lost` it fails after it has done its work. `thawed` holds all of them up.
    """

    def __init__(self, table: LeaseTable, worker: WorkerId) -> None:
        self._table, self._worker = table, worker
        self.delay_s = 0.0
        self.is_cut = False
        self.is_answer_lost = False
        self.thawed = asyncio.Event()
        self.thawed.set()

    async def renew(self, held: Sequence[HeldLease]) -> LeaseRead:
        await self._arrive()
        read = self._table.renew(self._worker, held)
        await self._answer()
        return read

    async def acquire(self, seen: Sequence[Lease]) -> Mapping[QueueKey, Progress]:
        await self._arrive()
        acquired = self._table.acquire(self._worker, seen)
        await self._answer()
        return acquired

    async def release(self, held: Sequence[HeldLease]) -> None:
        await self._arrive()
        self._table.release(self._worker, held)
        await self._answer()

    async def _arrive(self) -> None:
        await self.thawed.wait()
        await asyncio.sleep(self.delay_s)
        if self.is_cut:
            raise StoreUnavailable("away")

    async def _answer(self) -> None:
        await asyncio.sleep(self.delay_s)
        await self.thawed.wait()
        if self.is_answer_lost:
            raise StoreUnavailable("no answer")


@dataclass
class FixedBroker:
    """Answers as it is set. Implements lease_keeper.BrokerStatus."""

    is_available: bool = True


@dataclass
class FixedWorkers:
    """The live workers as they are set. Implements ports.heartbeat.LiveWorkers."""

    ids: list[WorkerId] = field(default_factory=list)
    last_number: int = 0

    def next_number(self) -> int:
        self.last_number += 1
        return self.last_number

    def live_workers(self) -> Collection[WorkerId]:
        return list(self.ids)

    def beating_workers(self) -> Collection[WorkerId]:
        return list(self.ids)


class LeaseProcess:
    """A process with a keeper and no relay; a worker adds itself to the live `workers`.

    Ids count from 1, so that the ranks are the same in each run.
    """

    def __init__(
        self,
        table: LeaseTable,
        workers: FixedWorkers,
        *,
        clock: Clock,
        may_hold: bool = True,
    ) -> None:
        self.id = WorkerId(UUID(int=workers.next_number()))
        self.store = MemoryLeases(table, self.id)
        self.broker = FixedBroker()
        self.metrics = Metrics((), {}, version="0")
        self.keeper = LeaseKeeper(
            store=self.store,
            worker=self.id,
            workers=workers,
            broker=self.broker,
            observer=self.metrics,
            may_hold=may_hold,
            clock=clock,
        )
        if may_hold:
            workers.ids.append(self.id)
