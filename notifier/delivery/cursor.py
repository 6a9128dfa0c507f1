"""The cursors of one queue: which rows its holder reads, and which of these it publishes. Pure.

Every row that becomes due is published once at its claim, by this holder of the queue's lease or
by one before it. What was published is remembered until it is claimed, so that reading a row again
publishes it again only if RabbitMQ lost its pointer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from math import inf
from operator import attrgetter
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from notifier.delivery.class_cursor import NO_ID, ClassCursor, ClassRead, Published, before
from notifier.delivery.turn_shares import TURN_CLASSES, Division, TurnShares
from notifier.domain.due import BEGINNING, DueClass, Position
from notifier.domain.notification import QueueKey
from notifier.domain.turns import FIRST_TURN
from notifier.ports.leases import Progress, TurnProgress
from notifier.ports.store import DueRange, DueRead, LiveRow

PUBLISH_ORDER: Final = (DueClass.BACK, DueClass.DIRECT, DueClass.FIRST, DueClass.RETRY)
MAX_MISSED_ROWS: Final = 500
"""How many rows a look publishes; the next one finds the others."""
MAX_LOST_ROWS: Final = 500
MAX_LOOK_RANGES: Final = 40
"""How many classes one read of a look goes through."""
LOST_WAIT_S: Final = 10.0
CLOCK_MARGIN_S: Final = 5.0
"""How much further than Postgres's clock the cursors go back."""
CLOCK_TOLERANCE_S: Final = 0.01
CLOCK_SPEED: Final = 0.9
"""The least speed of Postgres's clock, compared with ours, that is no step back. chronyd may slow
a clock down by 8.3 %."""
NO_OTHERS: Final[Mapping[int, Mapping[DueClass, int]]] = MappingProxyType({})
_PLACE: Final = attrgetter("turn", "due_class")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows to publish now. Their pointers carry `published_at`, Postgres's time of the read.

    The caller must settle each batch, also one that it could not publish. `classes` has the classes
    of turn 0 that the pass asked for.
    """

    rows: Sequence[LiveRow]
    published_at: datetime
    classes: Mapping[DueClass, ClassRead] = field(default_factory=dict)


Place = tuple[int, DueClass]
"""A turn, and a class in it."""


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
        self._queue = queue
        self._before = progress
        self._classes: dict[Place, ClassCursor] = {}
        self._published: list[Mapping[UUID, Published]] = []
        self._turns: dict[int, Sequence[ClassCursor]] = {}
        """The cursors of each turn, in the order of their publishes."""
        self._add_turn(FIRST_TURN, PUBLISH_ORDER, at)
        self._shares = TurnShares()
        self._asked: Collection[int] = ()
        """The turns other than 0 that the last read asked for."""
        self._floor_times: dict[int, Sequence[float]] = {}
        """Without those that may have changed."""
        self._room = 0
        self._asked_at = at
        self._clock: _ClockRead | None = None
        self._unsettled: dict[Batch, Mapping[Place, Position]] = {}
        self._missed = 0
        self._looked_at: datetime | None = None

    def add_turns(self, turns: Collection[int], now: float) -> None:
        """Read these turns too, besides turn 0."""
        for turn in turns:
            if turn not in self._turns:
                self._add_turn(turn, TURN_CLASSES, now)

    def _add_turn(self, turn: int, classes: Sequence[DueClass], at: float) -> None:
        cursors = [
            ClassCursor(
                self._queue,
                due_class,
                floor=self._before.floor(due_class, turn),
                mark=self._before.mark(due_class, turn),
                at=at,
                turn=turn,
            )
            for due_class in classes
        ]
        self._turns[turn] = cursors
        self._classes |= {
            (turn, due_class): cursor for due_class, cursor in zip(classes, cursors, strict=True)
        }
        self._published += [cursor.published for cursor in cursors]

    @property
    def turns(self) -> Collection[int]:
        """The turns that are read, turn 0 first."""
        return self._turns.keys()

    @property
    def do_others_wait(self) -> bool:
        """Whether rows of a turn other than 0 wait to be published."""
        return self._shares.is_backlogged

    def divide(self, room: int, now: float) -> Division:
        """Divide the room of a pass among the turns: what `ranges` is to be asked for."""
        return self._shares.divide(list(self._turns)[1:], room, now)

    def ranges(
        self,
        limits: Mapping[DueClass, int],
        room: int,
        now: float,
        others: Mapping[int, Mapping[DueClass, int]] = NO_OTHERS,
    ) -> list[DueRange]:
        """Begin a read; returns what to read, in the order in which rows are published.

        At most `room` rows are published, and of each class of turn 0 at most its limit; `others`
        has the limits of other turns. A class without a limit is not read. A read that fails is
        left: the next call begins another.
        """
        self._room, self._asked_at = room, now
        for turn in self._asked:
            for cursor in self._turns[turn]:
                cursor.skip_read()
        self._asked = others.keys()
        ranges = _begin_read(self._turns[FIRST_TURN], limits, now)
        for turn, of_turn in others.items():
            ranges += _begin_read(self._turns[turn], of_turn, now)
        return ranges

    def read(self, rows: Sequence[LiveRow], read: DueRead, now: float) -> Batch:
        """Finish the read that `ranges` began with its result; returns the rows to publish.

        `rows` are those of this queue, in the order of the ranges.
        """
        self._floor_times = {}
        self._follow_clock(read.now, now)
        by_place = _by_place(rows)
        if not self._asked and len(self._turns) == 1:
            chosen, classes = self._read_turn(FIRST_TURN, by_place, self._room, read, now)
        else:
            chosen, classes = self._read_turns(by_place, read, now)
        batch = Batch(chosen, read.now, classes)
        self._unsettle(batch)
        return batch

    def _read_turn(
        self,
        turn: int,
        rows: Mapping[Place, Sequence[LiveRow]],
        room: int,
        read: DueRead,
        now: float,
    ) -> tuple[list[LiveRow], dict[DueClass, ClassRead]]:
        """Finish the read of one turn; returns the rows to publish and what it got of classes."""
        chosen, classes = list[LiveRow](), dict[DueClass, ClassRead]()
        for cursor in self._turns[turn]:
            due_class = cursor.due_class
            result = cursor.read(rows.get((turn, due_class), ()), room, read, now)
            if result is None:
                continue
            of_class, classes[due_class] = result
            chosen += of_class
            room -= len(of_class)
        return chosen, classes

    def _read_turns(
        self, rows: Mapping[Place, Sequence[LiveRow]], read: DueRead, now: float
    ) -> tuple[list[LiveRow], dict[DueClass, ClassRead]]:
        """Finish the read of several turns; the classes returned are those of turn 0."""
        turns = (FIRST_TURN, *self._asked)
        counts = dict.fromkeys(turns, 0)
        for (turn, _), of_place in rows.items():
            counts[turn] += len(of_place)
        rooms = self._shares.grant(counts, self._room)
        chosen, classes = list[LiveRow](), dict[int, dict[DueClass, ClassRead]]()
        left = 0
        for turn in turns:
            room = rooms[turn] + left  # what claimed rows before it did not need
            of_turn, classes[turn] = self._read_turn(turn, rows, room, read, now)
            left = room - len(of_turn)
            chosen += of_turn
        self._shares.record(classes, now)
        return chosen, classes[FIRST_TURN]

    def settle(self, batch: Batch, unconfirmed: Sequence[LiveRow] = ()) -> None:
        """Record that a batch was published, except for these rows, which are read again.

        Until then the persisted progress stays before the rows of the batch.
        """
        self._floor_times = {}
        self._unsettled.pop(batch, None)
        for row in unconfirmed:
            cursor = self._classes[row.turn, row.due_class]
            cursor.forget(row)
            cursor.set_back(before(row.position))

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was read is being published or known to be unclaimed."""
        return not self._unsettled and not any(self._published)

    def floor_times(self, turn: int = FIRST_TURN) -> Sequence[float]:
        """Return from when on rows may appear that no read has seen, in the order of DueClass.

        In seconds since the epoch; infinity for a class that the turn does not have.
        """
        if turn not in self._floor_times:
            cursors = (self._classes.get((turn, due_class)) for due_class in DueClass)
            self._floor_times[turn] = [
                inf if cursor is None else cursor.floor.due_at.timestamp() for cursor in cursors
            ]
        return self._floor_times[turn]

    def progress(self, *, is_backlogged: bool) -> Progress:
        """Return what the next holder continues from.

        It begins an empty turn at the beginning: it finds nothing there to publish again, and the
        lease stays short however many turns there are.
        """
        floors = {place: cursor.floor for place, cursor in self._classes.items()}
        for firsts in self._unsettled.values():
            for place, first in firsts.items():
                floors[place] = min(floors[place], before(first))
        of_turns = {
            turn: TurnProgress(
                floors={of.due_class: floors[turn, of.due_class] for of in cursors},
                marks={of.due_class: min(of.mark, floors[turn, of.due_class]) for of in cursors},
            )
            for turn, cursors in self._turns.items()
            if turn == FIRST_TURN or not all(of.is_empty for of in cursors)
        }
        own = of_turns.pop(FIRST_TURN)
        return Progress(
            floors=own.floors, marks=own.marks, is_backlogged=is_backlogged, turns=of_turns
        )

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
        """Return what to read next, at most `limit` rows of a class; empty if nothing is left.

        Of many classes the next ones follow when the look of the first ones has ended.
        """
        ranges = list[DueRange]()
        for cursor in self._classes.values():
            if (range_ := cursor.look_range(limit)) is not None:
                ranges.append(range_)
            if len(ranges) == MAX_LOOK_RANGES:
                break
        return ranges

    def looked(self, rows: Sequence[LiveRow], read: DueRead, now: float) -> Batch:
        """Continue the look with a read of `look_ranges`; returns the rows that no read had seen.

        At most 500 in a look; the next look finds the others.
        """
        self._looked_at = read.now
        by_place = _by_place(rows)
        missed = list[LiveRow]()
        for place, cursor in self._classes.items():
            room = MAX_MISSED_ROWS - self._missed
            of_class = cursor.looked(by_place.get(place, ()), room, read, now)
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
            self._classes[row.turn, row.due_class].published_again(row, published_at, now)

    def _unsettle(self, batch: Batch) -> None:
        if batch.rows:
            self._unsettled[batch] = {
                place: next(rows).position for place, rows in groupby(batch.rows, _PLACE)
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


def _begin_read(
    cursors: Sequence[ClassCursor], limits: Mapping[DueClass, int], now: float
) -> list[DueRange]:
    ranges = list[DueRange]()
    for cursor in cursors:
        limit = limits.get(cursor.due_class, 0)
        if limit > 0:
            ranges += cursor.ranges(limit, now)
        else:
            cursor.skip_read()
    return ranges


def _by_place(rows: Sequence[LiveRow]) -> dict[Place, list[LiveRow]]:
    """Divide rows in the order of their ranges."""
    return {place: list(group) for place, group in groupby(rows, _PLACE)}
