"""The cursors of one queue: which rows its holder reads, and which of these it publishes. Pure.

Every row that becomes due is published once at its claim, by this holder of the queue's lease or
by one before it. What was published is remembered until it is claimed, so that reading a row again
publishes it again only if RabbitMQ lost its pointer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from notifier.delivery.class_cursor import NO_ID, ClassCursor, ClassRead, before
from notifier.domain.due import BEGINNING, DueClass, Position
from notifier.domain.notification import QueueKey
from notifier.ports.leases import Progress
from notifier.ports.store import DueRange, DueRead, LiveRow

PUBLISH_ORDER: Final = (DueClass.BACK, DueClass.DIRECT, DueClass.FIRST, DueClass.RETRY)
MAX_MISSED_ROWS: Final = 500
"""How many rows a look publishes; the next one finds the others."""
MAX_LOST_ROWS: Final = 500
LOST_WAIT_S: Final = 10.0
CLOCK_MARGIN_S: Final = 5.0
"""How much further than Postgres's clock the cursors go back."""
CLOCK_TOLERANCE_S: Final = 0.01
CLOCK_SPEED: Final = 0.9
"""The least speed of Postgres's clock, compared with ours, that is no step back. chronyd may slow
a clock down by 8.3 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows to publish now. Their pointers carry `published_at`, Postgres's time of the read.

    The caller must settle each batch, also one that it could not publish. `classes` has the classes
    that the pass asked for.
    """

    rows: Sequence[LiveRow]
    published_at: datetime
    classes: Mapping[DueClass, ClassRead] = field(default_factory=dict)


class _ClockRead(NamedTuple):
    """Postgres's clock, read between two instants."""

    asked_at: float
    answered_at: float
    now: datetime


class QueueCursor:
    """What the holder of a queue's lease has read and published.

    `progress` is that of the holder before; `at` is the instant of the take-over. All instants are
    of one monotonic clock, in seconds. One read at a time, from `ranges` to `read`, and one look,
    from `begin_look` to the last `looked`; a read and a look may overlap.
    """

    def __init__(self, queue: QueueKey, progress: Progress, at: float) -> None:
        self._classes = {
            due_class: ClassCursor(
                queue,
                due_class,
                floor=progress.floor(due_class),
                mark=progress.mark(due_class),
                at=at,
            )
            for due_class in PUBLISH_ORDER
        }
        self._in_order = [self._classes[due_class] for due_class in DueClass]
        self._floor_times: Sequence[float] | None = None
        """None after what may have changed a floor."""
        self._published = [cursor.published for cursor in self._classes.values()]
        self._room = 0
        self._asked_at = at
        self._clock: _ClockRead | None = None
        self._unsettled: dict[Batch, Mapping[DueClass, Position]] = {}
        self._missed = 0
        self._looked_at: datetime | None = None

    def ranges(self, limits: Mapping[DueClass, int], room: int, now: float) -> list[DueRange]:
        """Begin a read; returns what to read, in the order in which rows are published.

        At most `room` rows are published, and of each class at most its limit. A class without a
        limit is not read. A read that fails is left: the next call begins another.
        """
        self._room, self._asked_at = room, now
        ranges = list[DueRange]()
        for due_class, cursor in self._classes.items():
            limit = limits.get(due_class, 0)
            if limit > 0:
                ranges += cursor.ranges(limit, now)
            else:
                cursor.skip_read()
        return ranges

    def read(self, rows: Sequence[LiveRow], read: DueRead, now: float) -> Batch:
        """Finish the read that `ranges` began with its result; returns the rows to publish.

        `rows` are those of this queue, in the order of the ranges.
        """
        self._floor_times = None
        self._follow_clock(read.now, now)
        by_class = _by_class(rows)
        chosen, classes, room = list[LiveRow](), dict[DueClass, ClassRead](), self._room
        for due_class, cursor in self._classes.items():
            result = cursor.read(by_class.get(due_class, ()), room, read, now)
            if result is None:
                continue
            of_class, classes[due_class] = result
            chosen += of_class
            room -= len(of_class)
        batch = Batch(chosen, read.now, classes)
        self._unsettle(batch)
        return batch

    def settle(self, batch: Batch, unconfirmed: Sequence[LiveRow] = ()) -> None:
        """Record that a batch was published, except for these rows, which are read again.

        Until then the persisted progress stays before the rows of the batch.
        """
        self._floor_times = None
        self._unsettled.pop(batch, None)
        for row in unconfirmed:
            self._classes[row.due_class].forget(row)
            self._classes[row.due_class].set_back(before(row.position))

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was read is being published or known to be unclaimed."""
        return not self._unsettled and not any(self._published)

    def floor_times(self) -> Sequence[float]:
        """Return from when on rows may appear that no read has seen, in the order of DueClass.

        In seconds since the epoch.
        """
        if self._floor_times is None:
            self._floor_times = [cursor.floor.due_at.timestamp() for cursor in self._in_order]
        return self._floor_times

    def progress(self, *, is_backlogged: bool) -> Progress:
        """Return what the next holder continues from."""
        floors = {due_class: cursor.floor for due_class, cursor in self._classes.items()}
        for firsts in self._unsettled.values():
            for due_class, first in firsts.items():
                floors[due_class] = min(floors[due_class], before(first))
        marks = {
            due_class: min(cursor.mark, floors[due_class])
            for due_class, cursor in self._classes.items()
        }
        return Progress(floors=floors, marks=marks, is_backlogged=is_backlogged)

    def begin_look(self, now: float, *, is_long: bool = False) -> None:
        """Begin a look at what was published 2 s ago or earlier and is not claimed.

        A look that had too many rows is continued. A long look begins at the beginning, the others
        at the mark.
        """
        self._missed = 0
        for cursor in self._classes.values():
            cursor.begin_look(now, is_long=is_long)

    def abandon_look(self) -> None:
        """End a look before its end; the next one begins at the mark."""
        for cursor in self._classes.values():
            cursor.abandon_look()

    def look_ranges(self, limit: int) -> list[DueRange]:
        """Return what to read next, at most `limit` rows of a class; empty if nothing is left."""
        ranges = [cursor.look_range(limit) for cursor in self._classes.values()]
        return [range_ for range_ in ranges if range_ is not None]

    def looked(self, rows: Sequence[LiveRow], read: DueRead, now: float) -> Batch:
        """Continue the look with a read of `look_ranges`; returns the rows that no read had seen.

        At most 500 in a look; the next look finds the others.
        """
        self._looked_at = read.now
        by_class = _by_class(rows)
        missed = list[LiveRow]()
        for due_class, cursor in self._classes.items():
            room = MAX_MISSED_ROWS - self._missed
            of_class = cursor.looked(by_class.get(due_class, ()), room, read, now)
            self._missed += len(of_class)
            missed += of_class
        batch = Batch(missed, read.now)
        self._unsettle(batch)
        return batch

    def lost(self, before: datetime) -> list[LiveRow]:
        """Return the rows that were published before this time and are unclaimed; at most 500.

        By the last look. No row is returned sooner than 10 s after its last publish; this time
        doubles with each publish after the first.
        """
        rows = list[LiveRow]()
        if self._looked_at is not None:
            for cursor in self._classes.values():
                rows += cursor.lost(
                    before,
                    now=self._looked_at,
                    wait_s=LOST_WAIT_S,
                    limit=MAX_LOST_ROWS - len(rows),
                )
        return rows

    def published_again(self, rows: Iterable[LiveRow], published_at: datetime, now: float) -> None:
        """Record that lost rows were published again, confirmed."""
        for row in rows:
            self._classes[row.due_class].published_again(row, published_at, now)

    def _unsettle(self, batch: Batch) -> None:
        if batch.rows:
            self._unsettled[batch] = {
                due_class: next(rows).position
                for due_class, rows in groupby(batch.rows, attrgetter("due_class"))
            }

    def _follow_clock(self, now: datetime, answered_at: float) -> None:
        """Set the cursors back if Postgres's clock has gone back.

        Rows that became due since then are behind the cursors.
        """
        last = self._clock
        self._clock = _ClockRead(self._asked_at, answered_at, now)
        if last is None:
            tolerated = now + timedelta(seconds=CLOCK_TOLERANCE_S)
            # Nothing says for how long the clock was ahead.
            position = BEGINNING if self._newest().due_at > tolerated else None
        else:
            position = _position_before_step(last, self._clock)
        if position is None:
            return
        for cursor in self._classes.values():
            cursor.set_back(position)
            cursor.limit_published_at(now)

    def _newest(self) -> Position:
        return max(cursor.cursor for cursor in self._classes.values())


def _position_before_step(last: _ClockRead, this: _ClockRead) -> Position | None:
    """Return the position of a time before the clock's step back, None if there was none."""
    expected_s = max(0.0, (this.asked_at - last.answered_at) * CLOCK_SPEED - CLOCK_TOLERANCE_S)
    if this.now - last.now >= timedelta(seconds=expected_s):
        return None
    span_s = this.answered_at - last.asked_at + CLOCK_MARGIN_S
    return Position(this.now - timedelta(seconds=span_s), NO_ID)


def _by_class(rows: Sequence[LiveRow]) -> dict[DueClass, list[LiveRow]]:
    """Divide rows in the order of their ranges."""
    return {due_class: list(group) for due_class, group in groupby(rows, attrgetter("due_class"))}
