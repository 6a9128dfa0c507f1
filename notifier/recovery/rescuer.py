"""The rescuer: publishes again what RabbitMQ lost, and publishes what the relay's reads missed.

A message is lost when newer ones of its queue were delivered long ago, or when the queue has been
empty for longer than the message has been published. A slow backlog is not lost, nor is what waited
during a pause, an open breaker or an outage. Nothing is written for it: the queue's cursor
remembers which rows are published and unclaimed, and a look at Postgres keeps that up to date.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from math import ceil, inf
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from notifier.domain.controls import SendPermission
from notifier.domain.due import DueClass
from notifier.domain.errors import StoreError
from notifier.domain.rotation import Rotation
from notifier.lifecycle import Clock, uptime_s
from notifier.ports.observer import RescueReason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from notifier.delivery.cursor import Batch, QueueCursor
    from notifier.domain.notification import QueueKey
    from notifier.ports.controls import Permissions
    from notifier.ports.heartbeat import PeerFigures, QueueFigures, QueueFigureSource
    from notifier.ports.observer import RecoveryObserver
    from notifier.ports.store import LiveRow, LookStore

CHECK_INTERVAL_S: Final = 1.0
OVERDUE_S: Final = 10.0
LONG_LOOK_INTERVAL_S: Final = 60.0
LONG_LOOK_TIMEOUT_S: Final = 2.0
"""A long look goes through the index entries of all rows that were deleted and not yet vacuumed."""
READ_ROWS: Final = 4000
"""Rows of one read; a larger one would delay everything else in this process."""
MIN_READ_ROWS: Final = 100
MAX_LOOKED_QUEUES: Final = 60
"""With more queues than this, a pass looks at those with published rows, and at this many of the
others in turn. So many long looks, one per pass, are also one a minute."""

log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """Publishes rows of held queues; implemented by delivery.relay.Relays."""

    def cursors(self) -> Mapping[QueueKey, QueueCursor]:
        """Return the cursors of the queues that this process may publish now."""
        ...

    async def publish(self, rows: Sequence[LiveRow], published_at: datetime) -> Collection[LiveRow]:
        """Publish rows of one queue; returns those that were not confirmed."""
        ...


class Rescuer:
    """Finds lost messages of the queues held, by this worker's figures and those of its peers."""

    def __init__(
        self,
        *,
        store: LookStore,
        publisher: Publisher,
        observer: RecoveryObserver,
        own: QueueFigureSource,
        peers: PeerFigures,
        gates: Permissions,
        clock: Clock = uptime_s,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._observer = observer
        self._own = own
        self._peers = peers
        self._gates = gates
        self._clock = clock
        self._ignored_at: dict[QueueKey, float] = {}
        self._long_looks: dict[QueueCursor, float] = {}
        self._rotation = Rotation()

    async def run_once(self) -> int:
        """Look at the queues that may send; publish what was missed and lost.

        Of each queue at most 500 rows of either kind. Returns how many lost messages were published
        again.
        """
        workers = (self._own.queue_figures(), *self._peers.peer_queue_figures())
        queues = {queue for worker in workers for queue in worker}
        self._ignore(
            queue for queue in queues if self._gates.permission(queue) is not SendPermission.ALLOWED
        )
        cursors = {
            queue: cursor
            for queue, cursor in self._publisher.cursors().items()
            if self._gates.permission(queue) is SendPermission.ALLOWED
        }
        total = 0
        try:
            looked = self._choose(cursors)
            # Taken before the look, so that what is delivered after it is no evidence against it.
            figures = {
                queue: [of for worker in workers if (of := worker.get(queue)) is not None]
                for queue in looked
            }
            await self._look_long(cursors)
            now = await self._look(looked)
            for queue, cursor in looked.items():
                if now is None or self._is_ignored(queue):
                    continue
                before = overdue_before(figures[queue], now=now.timestamp())
                if before is not None:
                    lost = cursor.lost(datetime.fromtimestamp(before, UTC))
                    total += await self._publish_lost(queue, cursor, lost, now)
        except StoreError as error:
            log.debug("rescue_failed", reason=str(error))
            # The peers' figures will be as old as the outage is long.
            self._ignore(queues)
        return total

    def _choose(self, cursors: Mapping[QueueKey, QueueCursor]) -> Mapping[QueueKey, QueueCursor]:
        """Return the queues to look at: all of a few; of many, those that are idle in turn."""
        if len(cursors) <= MAX_LOOKED_QUEUES:
            return cursors
        idle = [queue for queue, cursor in cursors.items() if cursor.is_idle]
        skipped = {*idle}.difference(self._rotation.take(idle, MAX_LOOKED_QUEUES))
        return {queue: cursor for queue, cursor in cursors.items() if queue not in skipped}

    async def _look_long(self, cursors: Mapping[QueueKey, QueueCursor]) -> None:
        """Look at one queue from its beginning, if it is time for one; at several of many."""
        self._long_looks = {
            cursor: self._long_looks.get(cursor, -inf) for cursor in cursors.values()
        }
        now = self._clock()
        waiting = sorted(cursors, key=lambda queue: self._long_looks[cursors[queue]])
        chosen = {
            queue: cursors[queue]
            for queue in waiting[: ceil(len(cursors) / MAX_LOOKED_QUEUES)]
            if now - self._long_looks[cursors[queue]] >= LONG_LOOK_INTERVAL_S
        }
        if not chosen:
            return
        for cursor in chosen.values():
            self._long_looks[cursor] = now
            cursor.begin_look(now, is_long=True)
        try:
            async with asyncio.timeout(LONG_LOOK_TIMEOUT_S):
                await self._read_looks(chosen)
        except (StoreError, TimeoutError) as error:
            for queue, cursor in chosen.items():
                cursor.abandon_look()
                reason = str(error) or "timeout"
                log.warning("long_look_failed", queue=str(queue), reason=reason)

    async def _look(self, cursors: Mapping[QueueKey, QueueCursor]) -> datetime | None:
        """Look at these queues; returns Postgres's time, None if there was nothing to look at."""
        now = self._clock()
        for cursor in cursors.values():
            cursor.begin_look(now)
        return await self._read_looks(cursors)

    async def _read_looks(self, cursors: Mapping[QueueKey, QueueCursor]) -> datetime | None:
        """Read the looks begun to their end, in parts, and publish what was missed."""
        looking, now = dict(cursors), None
        while looking:
            limit = max(MIN_READ_ROWS, READ_ROWS // (len(looking) * len(DueClass)))
            ranges = {queue: cursor.look_ranges(limit) for queue, cursor in looking.items()}
            looking = {queue: cursor for queue, cursor in looking.items() if ranges[queue]}
            if not looking:
                break
            read = await self._store.look([range_ for of in ranges.values() for range_ in of])
            rows, now = read.by_queue(), read.now
            for queue, cursor in looking.items():
                batch = cursor.looked(rows[queue], read, self._clock())
                if batch.rows:
                    await self._publish_missed(queue, cursor, batch)
        return now

    async def _publish_missed(self, queue: QueueKey, cursor: QueueCursor, batch: Batch) -> None:
        unconfirmed: Collection[LiveRow] = batch.rows
        try:
            unconfirmed = await self._publisher.publish(batch.rows, batch.published_at)
        finally:  # also when the time of a long look is over: then nothing is confirmed
            cursor.settle(batch, list(unconfirmed))
        count = len(batch.rows) - len(unconfirmed)
        if count:
            log.warning("missed_rows_published", queue=str(queue), count=count)

    async def _publish_lost(
        self, queue: QueueKey, cursor: QueueCursor, rows: Sequence[LiveRow], now: datetime
    ) -> int:
        """Publish lost messages again; returns how many were confirmed."""
        if not rows:
            return 0
        unconfirmed = {row.position.id for row in await self._publisher.publish(rows, now)}
        confirmed = [row for row in rows if row.position.id not in unconfirmed]
        cursor.published_again(confirmed, now, self._clock())
        if confirmed:
            log.warning("lost_messages_rescued", queue=str(queue), count=len(confirmed))
            self._observer.rescued(queue, len(confirmed), RescueReason.MESSAGE_LOST)
        return len(confirmed)

    def _ignore(self, queues: Iterable[QueueKey]) -> None:
        """From now until 10 s later the figures of these queues are no evidence of a loss.

        Their messages may not be delivered. The watermark is no evidence either: a worker that died
        meanwhile returned its older messages to the head of the queue.
        """
        self._ignored_at |= dict.fromkeys(queues, self._clock())

    def _is_ignored(self, queue: QueueKey) -> bool:
        return self._clock() - self._ignored_at.get(queue, -inf) <= OVERDUE_S


def overdue_before(figures: Sequence[QueueFigures], *, now: float) -> float | None:
    """The instant before which every published message of a queue is lost; None without evidence.

    `figures` are those of each worker of the queue. `now` and the result are Postgres's clock, in
    seconds since the epoch.
    """
    drained_s = max((of_worker.drained_s for of_worker in figures), default=0.0)
    if drained_s > OVERDUE_S and not any(of_worker.held for of_worker in figures):
        return now - OVERDUE_S
    watermarks = [of_worker.watermark for of_worker in figures if of_worker.watermark is not None]
    if not watermarks:
        return None
    held_since = [of_worker.held_since for of_worker in figures if of_worker.held_since is not None]
    return min([max(watermarks) - OVERDUE_S, *held_since])
