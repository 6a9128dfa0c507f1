"""The relay: reads due rows from Postgres and publishes pointers to them to the broker.

It publishes the queues whose lease this process holds, and writes nothing to Postgres: the cursor
of each queue knows how far it is read. A worker runs one relay for each priority, so that an
urgent notification never waits while others are read and confirmed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from notifier.delivery.cursor import QueueCursor
from notifier.delivery.publish_window import MAX_WINDOW
from notifier.delivery.publisher import PROBE_INTERVAL_S, Publisher
from notifier.domain.controls import SendPermission
from notifier.domain.due import BEGINNING, DueClass
from notifier.domain.errors import StoreError
from notifier.domain.notification import NotificationId, Priority, QueueKey
from notifier.domain.rotation import Rotation
from notifier.domain.turns import FIRST_TURN
from notifier.lifecycle import uptime_s, wait
from notifier.ports.broker import Pointer
from notifier.ports.store import LiveRow, QueueTurn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from notifier.delivery.publisher import ThroughputSource
    from notifier.ports.broker import Broker
    from notifier.ports.controls import Permissions
    from notifier.ports.leases import HeldLease, HeldLeases
    from notifier.ports.observer import RelayObserver
    from notifier.ports.store import DueRange, RelayStore

POLL_INTERVAL_S: Final = 0.1
MAX_READ_QUEUES: Final = 12
"""With more queues than this, a pass reads only those that may have due rows."""
READ_IN_TURN: Final = 10
TURN_INTERVAL_S: Final = 1.0
"""So many of the others are read all the same, so often: their cursors must follow the clock."""
MAX_FOUND_TURNS: Final = 256
"""In how many turns other than 0 a pass over many queues looks for a due row."""
IDLE_INTERVAL_S: Final[Mapping[Priority, float]] = {
    Priority.HIGH: 0.2,
    Priority.MEDIUM: 0.5,
    Priority.LOW: 1.0,
}
"""How often a pass runs while all of so many queues are idle."""
ACTIVE_S: Final = 2.0
"""For how long after a read that returned rows a queue is read by every pass."""
MAX_PASS_ROWS: Final = 1000
"""Rows that a pass publishes of one queue, and that it reads and publishes at a time."""
STORE_RETRY_S: Final = 0.5

MAX_READY: Final[Mapping[SendPermission, int]] = {
    SendPermission.ALLOWED: MAX_WINDOW,
    SendPermission.PROBE: 1,
    SendPermission.BREAKER_OPEN: 1,
    SendPermission.PAUSED: 0,
}
"""How many pointers may be ready in the broker at most, by what this process may send. While a
breaker is open it is one: the worker that sends the probe needs a message, and may not publish."""

log = structlog.get_logger(__name__)


class Relays:
    """All relays of one process, one for each priority."""

    def __init__(
        self,
        *,
        store: RelayStore,
        broker: Broker,
        observer: RelayObserver,
        queues: Sequence[QueueKey],
        leases: HeldLeases,
        cluster: ThroughputSource,
        gates: Permissions,
    ) -> None:
        by_priority = dict[Priority, list[QueueKey]]()
        for queue in queues:
            by_priority.setdefault(queue.priority, []).append(queue)
        self._relays = {
            priority: Relay(
                store=store,
                broker=broker,
                observer=observer,
                queues=queues_of_priority,
                leases=leases,
                cluster=cluster,
                gates=gates,
            )
            for priority, queues_of_priority in by_priority.items()
        }

    def permissions_changed(self) -> None:
        """Start the next pass of all relays now."""
        for relay in self._relays.values():
            relay.wake()

    def cursors(self) -> Mapping[QueueKey, QueueCursor]:
        """Return the cursors of the queues that this process may publish now."""
        return {
            queue: cursor
            for relay in self._relays.values()
            for queue, cursor in relay.cursors().items()
        }

    async def publish(self, rows: Sequence[LiveRow], published_at: datetime) -> Collection[LiveRow]:
        """Publish rows of one queue; returns those that were not confirmed. See Relay.publish."""
        return await self._relays[rows[0].queue.priority].publish(rows, published_at)

    async def run(self, stop: asyncio.Event) -> None:
        """Run all relays until `stop`, and until what they publish then is confirmed."""
        async with asyncio.TaskGroup() as group:
            for priority, relay in self._relays.items():
                group.create_task(relay.run(stop), name=f"relay {priority}")


class HeldQueue(NamedTuple):
    """A queue that this process publishes, from the acquisition of its lease on."""

    lease: HeldLease
    cursor: QueueCursor


class Relay:
    """Publishes the due rows of those of its queues whose lease this process holds."""

    def __init__(
        self,
        *,
        store: RelayStore,
        broker: Broker,
        observer: RelayObserver,
        queues: Sequence[QueueKey],
        leases: HeldLeases,
        cluster: ThroughputSource,
        gates: Permissions,
    ) -> None:
        self._store = store
        self._publisher = Publisher(
            broker=broker, observer=observer, queues=queues, cluster=cluster
        )
        self._queues = queues
        self._names = [str(queue) for queue in queues]
        self._leases = leases
        self._gates = gates
        self._held: dict[QueueKey, HeldQueue] = {}
        self._rotation = Rotation()
        self._turn_rotation = Rotation()
        self._turn_at = 0.0
        self._interval_s = POLL_INTERVAL_S
        self._active_until: dict[QueueKey, float] = {}
        self._found_at = BEGINNING.due_at
        self._has_more = False
        """Whether the last pass left due rows for which there is room."""
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Start the next pass now."""
        self._wake.set()

    def cursors(self) -> Mapping[QueueKey, QueueCursor]:
        """Return the cursors of the queues that this process may publish now."""
        leases = self._leases.held()
        return {
            queue: held.cursor for queue, held in self._held.items() if self._is_held(queue, leases)
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Run passes until `stop`: every 100 ms, when woken, and at once while there is more.

        Of many queues that are all idle, those of medium and low run them less often.
        """
        is_store_available = True
        while not stop.is_set():
            self._wake.clear()
            try:
                await self.run_once()
            except StoreError as error:
                if is_store_available:
                    log.warning("relay_pass_failed", queues=self._names, reason=str(error))
                is_store_available = False
                await wait(stop, STORE_RETRY_S)
                continue
            is_store_available = True
            if not self._publisher.is_publishable:
                await wait(stop, PROBE_INTERVAL_S)
            elif not self._has_more:
                await wait(self._wake, self._interval_s)

    async def run_once(self) -> int:
        """Run one pass over the queues held; returns how many rows it published.

        Nothing is read while the broker takes nothing, nor of a queue that has no room, may not
        send or backs off. The pass counts for these queues, too.
        """
        held = self._follow_leases()
        self._has_more = False
        is_publishable = bool(held) and await self._publisher.probe()
        passed = await self._queues_to_read(held) if is_publishable else held
        rooms = await self._rooms(passed) if is_publishable else {}
        for queue in passed:
            if queue not in rooms:
                self._finish_pass(queue, is_backlogged=True)  # not read: rows may wait
        return sum([await self._publish_due(some) for some in _split_by_rows(rooms)])

    async def publish(self, rows: Sequence[LiveRow], published_at: datetime) -> Collection[LiveRow]:
        """Publish rows whatever the room of their queues is; returns those that were not confirmed.

        Only queues whose lease is held and that do not back off are published. `published_at` is
        Postgres's time of the read that returned the rows. The caller reports the result to the
        cursor.
        """
        leases, at = self._leases.held(), published_at.timestamp()
        queues = {
            queue
            for queue in {row.queue for row in rows}
            if self._is_held(queue, leases) and not self._publisher.is_backing_off(queue)
        }
        publishable = [row for row in rows if row.queue in queues]
        confirms = await self._publisher.publish([_pointer(row, at) for row in publishable])
        confirmed = {
            row.position.id
            for row, is_confirmed in zip(publishable, confirms, strict=True)
            if is_confirmed
        }
        return [row for row in rows if row.position.id not in confirmed]

    def _follow_leases(self) -> Sequence[QueueKey]:
        """Return the queues held, with their turns; each new term begins with a new cursor."""
        leases, followed = self._leases.held(), self._held
        held = list[QueueKey]()
        for queue in self._queues:
            lease = leases.get(queue)
            if lease is None:
                continue
            held.append(queue)
            if queue not in followed or followed[queue].lease is not lease:
                cursor = QueueCursor(queue, lease.progress, uptime_s())
                followed[queue] = HeldQueue(lease, cursor)
            if lease.turns:
                followed[queue].cursor.add_turns(lease.turns, uptime_s())
        return held

    def _is_held(self, queue: QueueKey, leases: Mapping[QueueKey, HeldLease]) -> bool:
        """Whether these leases have that of the queue's cursor, not released in between."""
        held = self._held.get(queue)
        return held is not None and held.lease is leases.get(queue)

    async def _queues_to_read(self, held: Sequence[QueueKey]) -> Sequence[QueueKey]:
        """Return the queues that a pass reads: all of a few, of many those that may have due rows.

        One statement finds the idle queues that have a due row. Some of the others are read in
        turn. The pass ends for the rest here, as one that found nothing.
        """
        self._interval_s = POLL_INTERVAL_S
        if len(held) <= MAX_READ_QUEUES:
            return held
        now = uptime_s()
        idle = [queue for queue in held if self._is_idle(queue, now)]
        if len(idle) == len(held):
            self._interval_s = IDLE_INTERVAL_S[held[0].priority]
        read = {*await self._find_due(idle), *self._in_turn(idle, now)}
        skipped = {queue for queue in idle if queue not in read}
        passed_at = uptime_s()
        for queue in skipped:
            self._note_pass(self._held[queue].lease, passed_at)
        return [queue for queue in held if queue not in skipped]

    def _in_turn(self, queues: Sequence[QueueKey], now: float) -> Sequence[QueueKey]:
        if now < self._turn_at:
            return ()
        self._turn_at = now + TURN_INTERVAL_S
        return self._rotation.take(queues, READ_IN_TURN)

    def _is_idle(self, queue: QueueKey, now: float) -> bool:
        """Whether the last reads of the queue left nothing to do."""
        window = self._publisher.flows[queue].window
        return (
            not window.is_backlogged
            and window.ready == 0
            and self._active_until.get(queue, 0.0) <= now
            and self._held[queue].cursor.is_idle
        )

    async def _find_due(self, queues: Sequence[QueueKey]) -> Collection[QueueKey]:
        if not queues:
            return []
        found = await self._store.find_due(self._floor_times(queues))
        before, self._found_at = self._found_at, found.now
        # Postgres's clock has gone back: new rows are behind the floors, as the reads will notice.
        return queues if found.now < before else found.queues

    def _floor_times(self, queues: Sequence[QueueKey]) -> Mapping[QueueTurn, Sequence[float]]:
        """Return from when on the turns of these queues are to be looked at: of many, some."""
        cursors = {queue: self._held[queue].cursor for queue in queues}
        others = list[QueueTurn]()
        for queue, cursor in cursors.items():
            others += [QueueTurn(queue, turn) for turn in cursor.turns if turn != FIRST_TURN]
        times = {
            QueueTurn(queue, FIRST_TURN): cursor.floor_times() for queue, cursor in cursors.items()
        }
        for queue, turn in self._turn_rotation.take(others, MAX_FOUND_TURNS):
            times[QueueTurn(queue, turn)] = cursors[queue].floor_times(turn)
        return times

    async def _rooms(self, queues: Collection[QueueKey]) -> Mapping[QueueKey, int]:
        """Return how many rows the pass may publish of each queue; without those of 0."""
        await self._poll_depths(queues)
        rooms = {queue: min(self._room(queue), MAX_PASS_ROWS) for queue in queues}
        return {queue: room for queue, room in rooms.items() if room}

    async def _poll_depths(self, queues: Collection[QueueKey]) -> None:
        """Poll the queues that are published to. Only what may send widens its window."""
        permissions = {queue: self._gates.permission(queue) for queue in queues}
        for queue, permission in permissions.items():
            if permission is not SendPermission.ALLOWED:
                self._publisher.flows[queue].window.is_backlogged = False
        await self._publisher.poll_depths(
            [queue for queue, permission in permissions.items() if MAX_READY[permission]]
        )

    def _room(self, queue: QueueKey) -> int:
        return self._publisher.room(queue, max_ready=MAX_READY[self._gates.permission(queue)])

    async def _publish_due(self, rooms: Mapping[QueueKey, int]) -> int:
        """Read the due rows of these queues, and publish them; returns how many it published."""
        now = uptime_s()
        ranges = [
            range_ for queue, room in rooms.items() for range_ in self._ranges(queue, room, now)
        ]
        read = await self._store.read_due(ranges)
        rows, now = read.by_queue(), uptime_s()
        self._active_until |= dict.fromkeys(rows, now + ACTIVE_S)
        batches = {queue: self._held[queue].cursor.read(rows[queue], read, now) for queue in rooms}
        due = [row for batch in batches.values() for row in batch.rows]
        unconfirmed = defaultdict[QueueKey, list[LiveRow]](list)
        for row in await self.publish(due, read.now):
            unconfirmed[row.queue].append(row)
        for queue, batch in batches.items():
            self._held[queue].cursor.settle(batch, unconfirmed[queue])
            window = self._publisher.flows[queue].window
            window.record_pass(
                batch.classes, do_others_wait=self._held[queue].cursor.do_others_wait
            )
            self._has_more |= window.is_backlogged and self._room(queue) > 0
            self._finish_pass(queue, is_backlogged=window.is_backlogged)
        return len(due)

    def _ranges(self, queue: QueueKey, room: int, now: float) -> Sequence[DueRange]:
        cursor = self._held[queue].cursor
        first, others = cursor.divide(room, now)
        return cursor.ranges(self._limits(queue, first), room, now, others)

    def _limits(self, queue: QueueKey, room: int) -> Mapping[DueClass, int]:
        first_attempts, retries = self._publisher.flows[queue].window.split(room)
        limits = {
            DueClass.BACK: room,
            DueClass.DIRECT: room,
            DueClass.FIRST: first_attempts,
            DueClass.RETRY: retries,
        }
        return {due_class: limit for due_class, limit in limits.items() if limit}

    def _finish_pass(self, queue: QueueKey, *, is_backlogged: bool) -> None:
        """Write into the lease how far the queue is published, and that a pass has ended."""
        lease, cursor = self._held[queue]
        lease.progress = cursor.progress(is_backlogged=is_backlogged)
        self._note_pass(lease, uptime_s())

    def _note_pass(self, lease: HeldLease, passed_at: float) -> None:
        lease.passed_at = passed_at
        lease.unpublishable_since = self._publisher.unpublishable_since


def _split_by_rows(rooms: Mapping[QueueKey, int]) -> Iterator[Mapping[QueueKey, int]]:
    """Split into parts of MAX_PASS_ROWS rows at most."""
    part, rows = dict[QueueKey, int](), 0
    for queue, room in rooms.items():
        if rows + room > MAX_PASS_ROWS:
            yield part
            part, rows = {}, 0
        part[queue] = room
        rows += room
    if part:
        yield part


def _pointer(row: LiveRow, published_at: float) -> Pointer:
    return Pointer(
        queue=row.queue,
        id=NotificationId(row.position.id),
        claim=row.claim,
        published_at=published_at,
        size=row.size,
        deaths=row.deaths,
    )
