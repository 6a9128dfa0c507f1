"""The cursor of one class of a turn: what was read, what of it was seen for certain. Pure.

Transactions commit in another order than that of their rows' positions. A row that commits late
appears behind the cursor. The floor is the position up to which no row can still appear: while it
is below the cursor, reads begin at the floor too, and publish what they had not seen.

Why no row appears at or below the floor. A row's `due_at` is at or after an instant at which its
transaction already had its number. A read with the snapshot bound `next_transaction` reached the
cursor C: a transaction that had no number then makes no row up to C. A later read, in which
`oldest_running` has reached that bound, sees the rows of all others. What it read, from the floor
on and up to C, is complete.

A transaction of another application on the same server may stay open for hours. A bound older than
6 s therefore counts as reached. Rows that commit later than that are found by the look: by the next
one after the bound was really reached, or by a long look if that takes longer than 30 s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from notifier.domain.due import BEGINNING, DueClass, Position
from notifier.domain.notification import QueueKey
from notifier.domain.turns import FIRST_TURN
from notifier.ports.store import DueRange, DueRead, LiveRow

DIRECT_DELAY_S: Final = 2.0
"""Rows that were published directly are read when they have been due for this long."""
SECOND_LOOK_INTERVAL_S: Final = 0.1
SECOND_LOOK_ROWS_PER_S: Final = 50_000
"""A second look that reads many rows is repeated less often."""
MAX_SECOND_LOOK_ROWS: Final = 20_000
PROVED_AFTER_S: Final = 6.0
LATE_COMMIT_S: Final = 30.0
"""For how long a commit after PROVED_AFTER_S is awaited; Notifier's statements are shorter."""
ASSUMED_SPAN_S: Final = 1.0
MAX_EXTRA_ROWS: Final = 500
"""How many rows a read asks for beyond its limit where claimed or expired ones fill it."""
LOOK_AFTER_S: Final = 2.0
"""A look reads what was published this long ago: most rows are claimed sooner."""
MAX_LOOK_ROWS: Final = 20_001
"""The rows of a class that a look reads before it waits for the next one: a full window."""

NO_ID: Final = UUID(int=0)


class ClassRead(NamedTuple):
    """How many rows of one class a pass got to publish.

    `has_more` says that more due rows may wait: the pass reached a limit.
    """

    got: int
    has_more: bool


class Published(msgspec.Struct, frozen=True, gc=False):
    """A row whose pointer was published and that is not known to be claimed.

    `published_at` is Postgres's time of the publish, `at` its monotonic instant. `repeats` counts
    the publishes after the first one.
    """

    row: LiveRow
    published_at: datetime
    at: float
    repeats: int = 0


class _Proof(NamedTuple):
    """No transaction from `next_transaction` on makes a row up to `cursor`."""

    next_transaction: int
    cursor: Position
    at: float


class _Assumed(NamedTuple):
    """A proof that was not waited for: until it is one, rows may appear above `floor`."""

    next_transaction: int
    floor: Position
    at: float


class _Reached(NamedTuple):
    """Where the cursor was at an instant."""

    at: float
    cursor: Position


class _Ask(NamedTuple):
    """What was asked of a read that is under way; `cursor` is where it begins."""

    cursor: Position
    limit: int
    rows: int
    is_second_look: bool
    is_from_floor: bool
    at: float


@dataclass(slots=True, kw_only=True)
class _Look:
    """A look that was begun at `begun_at`. It has read up to `position` and ends at `end`.

    `mark` is where the next look begins if nothing is unclaimed before, `rows` how many rows were
    read since it was begun or continued. `limit` is that of the read under way, 0 if there is none.
    """

    begun_at: float
    position: Position
    end: Position
    mark: Position
    rows: int = 0
    limit: int = 0
    is_first_unclaimed_found: bool = False
    unclaimed: set[UUID] = field(default_factory=set)


class ClassCursor:
    """The cursor, the floor and the mark of one class of a turn, and its published rows.

    mark <= floor <= cursor, and the mark is before every published row that is remembered.
    `floor` and `mark` are those of the holder before; `at` is the instant of the take-over.
    """

    def __init__(
        self,
        queue: QueueKey,
        due_class: DueClass,
        *,
        floor: Position,
        mark: Position,
        at: float,
        turn: int = FIRST_TURN,
    ) -> None:
        self._queue = queue
        self.due_class = due_class
        self._turn = turn
        self._due_for_s = DIRECT_DELAY_S if due_class is DueClass.DIRECT else 0.0
        self.cursor = self.floor = floor
        self.mark = min(mark, floor)
        self.published: dict[UUID, Published] = {}
        # What the holder before published and left unclaimed is remembered from the first look on.
        self._inherited = floor if self.mark < floor else BEGINNING
        self._proofs = deque[_Proof]()
        self._assumed = deque[_Assumed]()
        self._second_look_at = at
        self._extra_rows = 0
        self._ask: _Ask | None = None
        self._history = deque[_Reached]()
        self._aged = _Reached(at, floor)
        self._look: _Look | None = None
        self._gone: dict[UUID, Published] = {}

    @property
    def is_empty(self) -> bool:
        """Whether all that was read is proved to be complete, and claimed at the last look."""
        return self.mark == self.floor == self.cursor and not self.published

    def ranges(self, limit: int, now: float) -> list[DueRange]:
        """Begin a read; returns what to read: a second look if one is due, and from the cursor."""
        self.forget_gone()
        is_second_look = self.floor < self.cursor and now >= self._second_look_at
        ask = self._ask = _Ask(
            cursor=self.cursor,
            limit=limit,
            rows=limit + self._extra_rows,
            is_second_look=is_second_look,
            is_from_floor=is_second_look or self.floor == self.cursor,
            at=now,
        )
        ranges = [
            DueRange(
                self._queue,
                self.due_class,
                self.cursor,
                ask.rows,
                due_for_s=self._due_for_s,
                turn=self._turn,
            )
        ]
        if is_second_look:
            ranges.insert(
                0,
                DueRange(
                    self._queue,
                    self.due_class,
                    self.floor,
                    MAX_SECOND_LOOK_ROWS,
                    until=self.cursor.due_at,
                    due_for_s=self._due_for_s,
                    turn=self._turn,
                ),
            )
        return ranges

    def skip_read(self) -> None:
        """Leave this class out of the next read. A begun read that has failed is forgotten."""
        self._ask = None
        self.forget_gone()

    def read(
        self, rows: Sequence[LiveRow], room: int, read: DueRead, now: float
    ) -> tuple[list[LiveRow], ClassRead] | None:
        """Finish the read that `ranges` began; returns the rows to publish, at most `room`.

        None if no read was begun.
        """
        ask, self._ask = self._ask, None
        if ask is None:
            return None
        if ask.cursor != self.cursor:  # set back meanwhile: the next read begins there
            self.forget_gone()
            return [], ClassRead(0, has_more=True)
        behind = bisect_right(rows, self.cursor, key=_position) if ask.is_second_look else 0
        chosen, end = self._choose(rows, min(room, ask.limit), read.now, now)
        is_cut = end < len(rows)
        is_full = len(rows) - behind >= ask.rows
        self._extra_rows = min(2 * (end - behind), MAX_EXTRA_ROWS) if is_full and not chosen else 0
        reached = rows[end - 1].position if end > behind else self.cursor
        if self._due_for_s and not is_full and not is_cut:
            # Most rows of the class are sent before they are read. Reads would go through the
            # entries that they leave in the index, again and again.
            reached = max(reached, Position(read.now - timedelta(seconds=self._due_for_s), NO_ID))
        if reached != self.cursor:
            self._move(reached, read, now)
        if self._assumed:
            self._look_for_late_commits(read, ask.at)
        if ask.is_from_floor:
            self._raise_floor(self._covered(rows, behind, end), read, ask.at)
        if ask.is_second_look:
            pause_s = max(SECOND_LOOK_INTERVAL_S, behind / SECOND_LOOK_ROWS_PER_S)
            self._second_look_at = ask.at if end < behind else ask.at + pause_s
        self.forget_gone()
        return chosen, ClassRead(len(chosen), has_more=is_full or is_cut)

    def _choose(
        self, rows: Sequence[LiveRow], limit: int, published_at: datetime, now: float
    ) -> tuple[list[LiveRow], int]:
        """Remember and return the rows to publish; also the number of rows gone through."""
        chosen = list[LiveRow]()
        published = self.published
        for index, row in enumerate(rows):
            if row.claimed_by is not None or row.is_expired:
                continue
            id_ = row.position.id
            known = published.get(id_)
            # A snapshot may be older than what is remembered: claims only grow.
            if known is not None and known.row.claim >= row.claim:
                continue
            if len(chosen) == limit:
                return chosen, index
            if known is not None:
                del published[id_]  # what is remembered stays in the order of its publishes
            published[id_] = Published(row, published_at, now)
            chosen.append(row)
        return chosen, len(rows)

    def _move(self, position: Position, read: DueRead, now: float) -> None:
        self.cursor = position
        self._proofs.append(_Proof(read.next_transaction, position, now))
        self._age(now)
        self._history.append(_Reached(now, position))

    def _covered(self, rows: Sequence[LiveRow], behind: int, end: int) -> Position:
        """Return the position up to which a read from the floor returned every row.

        `behind` of its rows are up to the cursor before it; the rows from `end` on are left.
        """
        if behind <= end and behind < MAX_SECOND_LOOK_ROWS:
            return self.cursor
        last = min(end, behind)
        return rows[last - 1].position if last else self.floor

    def _raise_floor(self, covered: Position, read: DueRead, asked_at: float) -> None:
        """Raise the floor as far as a read from the floor, complete up to `covered`, proves."""
        while self._proofs:
            proof = self._proofs[0]
            if proof.next_transaction > read.oldest_running:
                if asked_at - proof.at < PROVED_AFTER_S:
                    return
                self._assume(proof)
            self.floor = max(self.floor, min(proof.cursor, covered))
            if proof.cursor > covered:
                return
            self._proofs.popleft()

    def _assume(self, proof: _Proof) -> None:
        """Let the floor pass a proof that is not one yet; those of one second are kept as one."""
        floor, at = self.floor, proof.at
        if self._assumed and at - self._assumed[-1].at < ASSUMED_SPAN_S:
            _, floor, at = self._assumed.pop()
        self._assumed.append(_Assumed(proof.next_transaction, floor, at))

    def _look_for_late_commits(self, read: DueRead, asked_at: float) -> None:
        """Let the next look begin where rows may have appeared below the floor."""
        assumed = self._assumed
        while assumed and assumed[0].next_transaction <= read.oldest_running:
            floor = assumed.popleft().floor
            self.mark = min(self.mark, floor)
            if self._look is not None:
                self._look.mark = min(self._look.mark, floor)
        while assumed and asked_at - assumed[0].at > LATE_COMMIT_S:
            assumed.popleft()

    def set_back(self, position: Position) -> None:
        """Read everything after this position again. What is remembered is not published again."""
        if position >= self.cursor:
            return
        self.cursor = self.floor = min(self.floor, position)
        self.mark = min(self.mark, self.floor)
        self._inherited = min(self._inherited, self.floor)
        self._proofs.clear()
        self._history.clear()
        self._aged = _Reached(self._aged.at, min(self._aged.cursor, self.cursor))
        self._look = None

    def forget(self, row: LiveRow) -> None:
        """Forget a row whose publish was not confirmed."""
        known = self.published.get(row.position.id)
        if known is not None and known.row.claim == row.claim:
            del self.published[row.position.id]

    def limit_published_at(self, now: datetime) -> None:
        """Let nothing be published later than `now`: Postgres's clock has gone back."""
        for id_, known in self.published.items():
            if known.published_at > now:
                self.published[id_] = Published(known.row, now, known.at, known.repeats)

    def begin_look(self, now: float, *, is_long: bool) -> None:
        """Begin a look, or continue one that had too many rows."""
        self._age(now)
        if self._look is not None and not is_long:
            self._look.rows = self._look.limit = 0
            return
        self._look = None
        start, end = BEGINNING if is_long else self.mark, self._aged.cursor
        if start < end:
            self._look = _Look(begun_at=now, position=start, end=end, mark=min(end, self.floor))

    def abandon_look(self) -> None:
        """End a look before its end; the next one begins at the mark."""
        self._look = None

    def look_range(self, limit: int) -> DueRange | None:
        """Return what the look reads next, None if it has ended for now."""
        look = self._look
        if look is None:
            return None
        if look.rows >= MAX_LOOK_ROWS:
            look.limit = 0
            return None
        look.limit = limit
        return DueRange(
            self._queue,
            self.due_class,
            look.position,
            limit,
            until=look.end.due_at,
            turn=self._turn,
        )

    def looked(
        self, rows: Sequence[LiveRow], room: int, read: DueRead, now: float
    ) -> list[LiveRow]:
        """Continue the look with its next rows; returns at most `room` that no read had seen."""
        look = self._look
        if look is None or not look.limit:
            return []
        missed = list[LiveRow]()
        for row in rows:
            if row.claimed_by is not None or row.is_expired:
                continue
            position = row.position
            if not look.is_first_unclaimed_found:
                look.is_first_unclaimed_found = True
                look.mark = min(look.mark, before(position))
            look.unclaimed.add(position.id)
            known = self.published.get(position.id)
            if (known is not None and known.row.claim >= row.claim) or position > self.cursor:
                continue
            is_inherited = position <= self._inherited
            if not is_inherited:
                if len(missed) == room:
                    continue
                missed.append(row)
            self.published.pop(position.id, None)
            self.published[position.id] = Published(row, read.now, now)
            self.mark = min(self.mark, before(position))
        look.rows += len(rows)
        if len(rows) == look.limit:
            look.position = rows[-1].position
        elif look.end.due_at > read.now:
            # Postgres's clock has gone back: rows that were due are not, and the look missed them.
            self._look = None
        else:
            self._end_look(look)
        return missed

    def _end_look(self, look: _Look) -> None:
        """Forget what the look did not find unclaimed, and set the mark.

        A read under way may have an older snapshot, in which those rows were unclaimed: then they
        are forgotten after it.
        """
        begun_at, end = look.begun_at, look.end
        self._gone = {}
        for id_, known in self.published.items():
            if known.at > begun_at:
                break
            if id_ not in look.unclaimed and known.row.position <= end:
                self._gone[id_] = known
        if self._ask is None:
            self.forget_gone()
        self.mark = min(look.mark, self.floor)
        self._inherited = BEGINNING
        self._look = None

    def forget_gone(self) -> None:
        """Forget the rows that the last look found claimed or gone."""
        for id_, known in self._gone.items():
            if self.published.get(id_) is known:
                del self.published[id_]
        self._gone = {}

    def lost(self, before: datetime, *, now: datetime, wait_s: float, limit: int) -> list[LiveRow]:
        """Return the rows published before this time and not published again too recently.

        A row waits for `wait_s` after its first publish and twice as long after each further one.
        """
        rows = list[LiveRow]()
        for id_, known in self.published.items():
            if known.published_at >= before or len(rows) == limit:
                break
            wait = timedelta(seconds=wait_s * 2**known.repeats)
            if id_ not in self._gone and known.published_at + wait <= now:
                rows.append(known.row)
        return rows

    def published_again(self, row: LiveRow, published_at: datetime, now: float) -> None:
        """Record that a lost row was published again."""
        known = self.published.get(row.position.id)
        if known is not None and known.row.claim == row.claim:
            del self.published[row.position.id]
            self.published[row.position.id] = Published(
                row, published_at, now, repeats=known.repeats + 1
            )

    def _age(self, now: float) -> None:
        """Keep the newest cursor that is old enough for a look."""
        while self._history and self._history[0].at <= now - LOOK_AFTER_S:
            self._aged = self._history.popleft()


def before(position: Position) -> Position:
    """Return the position directly before this one, for ids above the nil UUID."""
    return Position(position.due_at, UUID(int=max(position.id.int - 1, 0)))


def _position(row: LiveRow) -> Position:
    return row.position
