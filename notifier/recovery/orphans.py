"""Orphan recovery: settles the notifications that a dead worker was sending.

Whether they were sent is unknown. So the attempt's outcome is Ambiguous, and the channel's rule for
ambiguous sends decides what follows. A death spends no try: the call may not have begun. The third
death of a worker during one notification makes it poison: it fails.

No index finds the rows by the process that claimed them: it would have to change with each claim.
The holder of a queue's lease instead reads the queue from its beginning, after an event that may
have left some: up to its floors, and beyond them as far as rows are claimed. The holder before may
have published rows beyond the floors that it had written.
"""

from __future__ import annotations

import time
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, assert_never

import structlog

from notifier.delivery.batch_write import write_batch
from notifier.delivery.turn_shares import TURN_CLASSES
from notifier.domain.due import BEGINNING, DueClass
from notifier.domain.errors import StoreError, StoreRejected
from notifier.domain.notification import NotificationId, QueueKey, Status, WorkerId
from notifier.domain.retry import Fail, Retry
from notifier.domain.turns import FIRST_TURN
from notifier.ports.heartbeat import AliveCheck, DeadProcesses, Departures
from notifier.ports.observer import RescueReason
from notifier.ports.store import DueRange, Orphan, OrphanDecision, SettledOrphan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from notifier.delivery.delivery_rules import DeliveryRules
    from notifier.lifecycle import Clock
    from notifier.ports.leases import HeldLease, HeldLeases
    from notifier.ports.observer import RecoveryObserver
    from notifier.ports.store import LiveRow, RecoveryStore

CHECK_INTERVAL_S: Final = 0.25
ALL_INTERVAL_S: Final = 60.0
"""How often all queues are read although nothing is known to have happened."""
FLOOR_LAG_S: Final = 10.0
"""How long after an event all queues are read once more: the floors may have been behind it."""
READ_ROWS: Final = 2000
"""Rows of one read; a larger one would delay everything else in this process. Beyond a floor the
last read is one without a claimed row."""
MAX_READ_ALONE: Final = 12
"""With more queues to read than this, one read of many of them finds those that need their own."""
READ_TOGETHER: Final = 60
FEW_ROWS: Final = 100
MAX_SETTLED: Final = 500
"""Orphans of one statement."""
SHORT_CLASSES: Final = frozenset({DueClass.BACK, DueClass.DIRECT})
"""Classes that are read to their end: they hold little that is not published soon."""

log = structlog.get_logger(__name__)


class Processes(DeadProcesses, Departures, AliveCheck, Protocol):
    """Which processes are dead; implemented by scheduling.cluster.membership.Membership."""


class OrphanRecovery:
    """Decides what follows for claimed rows whose worker is dead.

    A queue is read after its lease was taken over, after a process has died or stopped, once more
    10 s later, each minute, and again as long as orphans are found.
    """

    def __init__(
        self,
        *,
        store: RecoveryStore,
        observer: RecoveryObserver,
        leases: HeldLeases,
        processes: Processes,
        rules: DeliveryRules,
        clock: Clock = time.monotonic,
    ) -> None:
        self._store = store
        self._observer = observer
        self._leases = leases
        self._processes = processes
        self._rules = rules
        self._clock = clock
        self._terms: dict[QueueKey, int] = {}
        # In the order in which they are read.
        self._unread: dict[QueueKey, None] = {}
        self._all_due_at = -inf
        self._gone: tuple[int, frozenset[WorkerId]] = (0, frozenset())

    async def run_once(self) -> int:
        """Read the queues that may have orphans and settle these; returns how many were settled.

        Does nothing while this process may count as dead itself. What fails because Postgres is
        unreachable is repeated by the next pass.
        """
        if not self._processes.is_alive():
            return 0
        held = self._leases.held()
        self._note_events(held)
        settled = 0
        for queue in await self._to_recover(held):
            try:
                settled += await self._recover(held[queue])
            except StoreError as error:
                log.debug("orphan_recovery_failed", queue=str(queue), reason=str(error))
                # It may be this queue alone that takes too long: the others are read before it.
                self._unread[queue] = self._unread.pop(queue)
                break
        return settled

    async def _to_recover(self, held: Mapping[QueueKey, HeldLease]) -> Sequence[QueueKey]:
        """Return the queues to read; of many, those that one read of them all cannot rule out.

        One with several turns is always read by itself. If the read of many fails, it may be
        because of one queue: then each is read by itself.
        """
        queues = [queue for queue in self._unread if queue in held]
        if len(queues) <= MAX_READ_ALONE:
            return queues
        left = [queue for queue in queues if held[queue].turns]
        queues = [queue for queue in queues if not held[queue].turns]
        for start in range(0, len(queues), READ_TOGETHER):
            try:
                left += await self._rule_out(queues[start : start + READ_TOGETHER], held)
            except StoreError as error:
                log.debug("orphan_recovery_failed", reason=str(error))
                return [*left, *queues[start:]]
        return left

    async def _rule_out(
        self, queues: Sequence[QueueKey], held: Mapping[QueueKey, HeldLease]
    ) -> Sequence[QueueKey]:
        """Return those of these queues that have orphans or too many rows; note the others."""
        ranges = [range_ for queue in queues for range_ in _ranges(held[queue], limit=FEW_ROWS)]
        read = (await self._store.look(ranges)).rows
        rows = Counter((row.queue, row.turn, row.due_class) for row in read)
        left = {queue for (queue, _, _), count in rows.items() if count == FEW_ROWS}
        left |= {row.queue for row in read if self._orphan(row)}
        for queue in queues:
            if queue not in left:
                self._unread.pop(queue, None)
        return [queue for queue in queues if queue in left]

    def _note_events(self, held: Mapping[QueueKey, HeldLease]) -> None:
        """Note which queues may have orphans now."""
        now = self._clock()
        terms = {queue: lease.term for queue, lease in held.items()}
        touched = {queue for queue, term in terms.items() if term != self._terms.get(queue)}
        self._terms |= terms
        gone = self._processes.departures, frozenset(dead.id for dead in self._processes.dead())
        if gone != self._gone:
            self._gone = gone
            touched.update(self._terms)
        if now >= self._all_due_at:
            self._all_due_at = now + ALL_INTERVAL_S
            self._unread |= dict.fromkeys(self._terms)
        if touched:
            self._all_due_at = min(self._all_due_at, now + FLOOR_LAG_S)
            self._unread |= dict.fromkeys(touched)

    async def _recover(self, lease: HeldLease) -> int:
        """Settle the orphans of one queue; without any, it need not be read again."""
        found, settled = 0, 0
        for first in _ranges(lease, limit=READ_ROWS):
            range_ = first
            while True:
                rows = (await self._store.look([range_])).rows
                orphans = [orphan for row in rows if (orphan := self._orphan(row))]
                found += len(orphans)
                settled += await self._settle(orphans)
                if len(rows) < READ_ROWS or _is_beyond_claims(rows, lease):
                    break
                range_ = range_._replace(after=rows[-1].position)
        if not found:
            self._unread.pop(lease.queue, None)
        return settled

    def _orphan(self, row: LiveRow) -> Orphan | None:
        """The orphan that this row is; None if it waits or its process seems to be alive."""
        if row.claimed_by is None or not self._processes.has_left(row.claimed_by):
            return None
        return Orphan(
            id=NotificationId(row.position.id),
            claim=row.claim,
            worker=row.claimed_by,
            queue=row.queue,
            deaths=row.deaths,
        )

    async def _settle(self, orphans: Sequence[Orphan]) -> int:
        """Decide about orphans and write it; returns how many were settled.

        The others are alive by now, or their row has moved on.
        """
        decisions = [self._decision(orphan) for orphan in orphans]
        settled: list[SettledOrphan] = []
        for start in range(0, len(decisions), MAX_SETTLED):
            batch = decisions[start : start + MAX_SETTLED]
            replies = await write_batch("settle_orphans", batch, self._write)
            for decision, reply in zip(batch, replies, strict=True):
                if isinstance(reply, SettledOrphan):
                    settled.append(reply)
                elif isinstance(reply, StoreRejected):
                    log.warning("orphan_rejected", id=str(decision.orphan.id), reason=str(reply))
        self._report(settled)
        return len(settled)

    async def _write(self, decisions: Sequence[OrphanDecision]) -> Sequence[SettledOrphan | None]:
        settled = await self._store.settle_orphans(decisions, self._processes.dead())
        by_id = {reply.decision.orphan.id: reply for reply in settled}
        return [by_id.get(decision.orphan.id) for decision in decisions]

    def _decision(self, orphan: Orphan) -> OrphanDecision:
        status, reason = self._next_status(orphan)
        provider = self._rules.provider_name(orphan.queue)
        return OrphanDecision(orphan=orphan, provider=provider, status=status, reason=reason)

    def _next_status(self, orphan: Orphan) -> tuple[Status, str]:
        """Return the row's next status and the failure's reason."""
        decision = self._rules.decide_after_death(orphan.queue, orphan.deaths + 1)
        match decision:
            case Fail(reason=reason):
                return Status.FAILED, reason
            case Retry():
                return Status.QUEUED, ""
            case _:
                assert_never(decision)

    def _report(self, settled: Sequence[SettledOrphan]) -> None:
        workers = Counter(decision.orphan.worker for decision, _, _ in settled)
        for worker, count in workers.items():
            log.warning("worker_died", worker=str(worker), in_flight=count)
        for decision, status, age_s in settled:
            queue = decision.orphan.queue
            self._observer.rescued(queue, 1, RescueReason.PROCESS_DIED)
            if status is Status.QUEUED:
                self._observer.retried(queue, "ambiguous")
            else:
                self._observer.finished(queue, status, age_s, decision.reason)


def _ranges(lease: HeldLease, *, limit: int) -> Iterator[DueRange]:
    """Yield each class of a queue, from the beginning."""
    for turn in (FIRST_TURN, *lease.turns):
        for due_class in DueClass if turn == FIRST_TURN else TURN_CLASSES:
            yield DueRange(lease.queue, due_class, BEGINNING, limit, turn=turn)


def _is_beyond_claims(rows: Sequence[LiveRow], lease: HeldLease) -> bool:
    """Whether these rows of a class end beyond its floor, and no row is claimed among them."""
    last = rows[-1]
    if last.due_class in SHORT_CLASSES:
        return False
    floor = lease.progress.floor(last.due_class, last.turn)
    return last.position > floor and all(row.claimed_by is None for row in rows)
