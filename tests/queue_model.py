"""A model of the live rows of one queue: transactions that commit in any order, and snapshots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from notifier.delivery.cursor import Batch, QueueCursor
from notifier.domain.due import DueClass, Position
from notifier.domain.notification import WorkerId
from notifier.domain.turns import FIRST_TURN
from notifier.ports.leases import Progress
from notifier.ports.store import DueRange, DueRead, LiveRow
from tests.builders import EMAIL_HIGH

START = datetime(2026, 1, 1, tzinfo=UTC)
WORKER = WorkerId(UUID(int=1))
LATE_AFTER_S = 5.0
"""A transaction that is open for longer may stall the proofs of the floor."""


@dataclass(kw_only=True)
class Row:
    """A committed row of `live`. `is_late` means that only a look has to find it."""

    id: UUID
    due_class: DueClass
    due_at: datetime
    turn: int = FIRST_TURN
    claim: int = 0
    claimed_by: WorkerId | None = None
    is_expired: bool = False
    is_late: bool = False
    is_locked: bool = False

    @property
    def position(self) -> Position:
        return Position(self.due_at, self.id)


@dataclass(kw_only=True)
class Transaction:
    """An open transaction. `due_at` is None until it has read the clock.

    It inserts `ids` or makes `moved` claimable again; one with neither is foreign.
    """

    number: int
    began_at: float
    due_class: DueClass = DueClass.FIRST
    delay: timedelta = timedelta()
    ids: Sequence[UUID] = ()
    moved: Row | None = None
    turn: int = FIRST_TURN
    due_at: datetime | None = None


@dataclass
class QueueModel:
    """Postgres, as far as the rows of one queue go, and what the holders published of them."""

    now: float = 0.0
    clock: datetime = START
    next_number: int = 1
    last_ended: int = 0
    rows: dict[UUID, Row] = field(default_factory=dict)
    open: list[Transaction] = field(default_factory=list)
    published: Counter[tuple[UUID, int]] = field(default_factory=Counter)
    turns: set[int] = field(default_factory=set)
    """The turns other than 0 that were noted before rows were stored in them."""
    is_bound_of_snapshot: bool = False
    """Whether `next_transaction` is the end of the snapshot: the last number that ended, plus 1."""

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.clock += timedelta(seconds=seconds)

    def begin(
        self,
        due_class: DueClass = DueClass.FIRST,
        *,
        ids: Sequence[UUID] = (),
        moved: Row | None = None,
        delay_s: float = 0.0,
        turn: int = FIRST_TURN,
    ) -> Transaction:
        self.turns |= {turn} - {FIRST_TURN}
        transaction = Transaction(
            number=self.next_number,
            began_at=self.now,
            due_class=due_class,
            ids=ids,
            moved=moved,
            turn=turn,
            delay=timedelta(seconds=delay_s),
        )
        if moved:
            moved.is_locked = True
        self.next_number += 1
        self.open.append(transaction)
        return transaction

    def read_clock(self, transaction: Transaction) -> None:
        self.clock += timedelta(microseconds=1)
        transaction.due_at = self.clock + transaction.delay

    def commit(self, transaction: Transaction) -> None:
        if transaction.due_at is None:
            self.read_clock(transaction)
        assert transaction.due_at is not None
        is_late = self.now - transaction.began_at > LATE_AFTER_S
        for id_ in transaction.ids:
            self.rows[id_] = Row(
                id=id_,
                due_class=transaction.due_class,
                due_at=transaction.due_at,
                turn=transaction.turn,
                is_late=is_late,
            )
        if row := transaction.moved:
            row.claim += row.claimed_by is None
            row.claimed_by, row.is_locked, row.is_late = None, False, is_late
            row.due_class, row.due_at = transaction.due_class, transaction.due_at
        self._end(transaction)

    def roll_back(self, transaction: Transaction) -> None:
        if transaction.moved:
            transaction.moved.is_locked = False
        self._end(transaction)

    def _end(self, transaction: Transaction) -> None:
        self.open.remove(transaction)
        self.last_ended = max(self.last_ended, transaction.number)

    def insert(self, *ids: UUID, due_class: DueClass = DueClass.FIRST) -> None:
        self.commit(self.begin(due_class, ids=ids))

    def claim(self, row: Row) -> None:
        row.claim += 1
        row.claimed_by = WORKER

    def read(self, ranges: Sequence[DueRange]) -> DueRead:
        """Read what is committed now."""
        self.clock += timedelta(microseconds=1)
        bound = self.last_ended + 1 if self.is_bound_of_snapshot else self.next_number
        running = [each.number for each in self.open if each.number < bound]
        return DueRead(
            rows=[row for range_ in ranges for row in self._rows(range_)],
            now=self.clock,
            oldest_running=min([*running, bound]),
            next_transaction=bound,
        )

    def _rows(self, range_: DueRange) -> list[LiveRow]:
        newest = self.clock - timedelta(seconds=range_.due_for_s)
        if range_.until is not None:
            newest = min(newest, range_.until)
        positions = sorted(
            (row.position, row)
            for row in self.rows.values()
            if (row.turn, row.due_class) == (range_.turn, range_.due_class)
            and row.due_at <= newest
            and row.position > range_.after
        )
        return [
            LiveRow(
                queue=EMAIL_HIGH,
                due_class=row.due_class,
                position=position,
                claim=row.claim,
                claimed_by=row.claimed_by,
                is_expired=row.is_expired,
                size=10,
                deaths=0,
                turn=row.turn,
            )
            for position, row in positions[: range_.limit]
        ]

    def waiting(self) -> list[Row]:
        """The rows that a worker could claim and that have been due for long enough."""
        return [
            row
            for row in self.rows.values()
            if row.claimed_by is None
            and not row.is_expired
            and row.due_at <= self.clock - timedelta(seconds=2.0)
        ]

    def unpublished(self) -> list[Row]:
        """The rows that no worker will claim, because no pointer to their claim was published."""
        return [row for row in self.waiting() if not self.published[row.id, row.claim]]


class Holder:
    """The holder of the queue's lease: its reads, its looks and its publishes, a step at a time."""

    def __init__(self, model: QueueModel, progress: Progress | None = None) -> None:
        self.model = model
        self.cursor = QueueCursor(EMAIL_HIGH, progress or Progress(), model.now)
        self.batches = list[Batch]()
        self._read: DueRead | None = None
        self._look: DueRead | None = None

    @property
    def is_reading(self) -> bool:
        return self._read is not None

    def begin_read(self, limit: int, room: int) -> None:
        self.cursor.add_turns(sorted(self.model.turns), self.model.now)
        first, others = self.cursor.divide(room, self.model.now)
        ranges = self.cursor.ranges(
            dict.fromkeys(DueClass, min(limit, first) if self.model.turns else limit),
            room,
            self.model.now,
            {turn: dict.fromkeys(of_turn, limit) for turn, of_turn in others.items()},
        )
        self._read = self.model.read(ranges)

    def end_read(self) -> int:
        """End a read that was begun; returns how many rows were published."""
        if self._read is None:
            return 0
        batch = self.cursor.read(self._read.rows, self._read, self.model.now)
        self._read = None
        self.batches.append(batch)
        return len(batch.rows)

    def begin_look(self, *, is_long: bool = False) -> None:
        self._look = None
        self.cursor.begin_look(self.model.now, is_long=is_long)

    def begin_look_read(self, limit: int) -> bool:
        """Read a part of the look; returns whether there was one."""
        ranges = self.cursor.look_ranges(limit)
        self._look = self.model.read(ranges) if ranges else None
        return self._look is not None

    def end_look_read(self) -> None:
        if self._look is not None:
            self.batches.append(self.cursor.looked(self._look.rows, self._look, self.model.now))
        self._look = None

    def settle(self, batch: Batch, *, unconfirmed: Sequence[LiveRow] = ()) -> None:
        self.batches.remove(batch)
        for row in batch.rows:
            if row not in unconfirmed:
                self.model.published[row.position.id, row.claim] += 1
        self.cursor.settle(batch, unconfirmed)

    def settle_all(self) -> None:
        for batch in list(self.batches):
            self.settle(batch)

    def run_pass(self, limit: int = 3, room: int = 3) -> int:
        """Read and publish; returns how many rows were published."""
        self.begin_read(limit, room)
        count = self.end_read()
        self.settle_all()
        return count

    def run_look(self, *, is_long: bool = False, limit: int = 2) -> None:
        """Look once, in parts, and publish what was missed."""
        self.begin_look(is_long=is_long)
        while self.begin_look_read(limit):
            self.end_look_read()
        self.settle_all()

    def publish_lost(self, before: datetime) -> int:
        """Publish lost messages again; returns how many."""
        rows = self.cursor.lost(before)
        for row in rows:
            self.model.published[row.position.id, row.claim] += 1
        self.cursor.published_again(rows, self.model.clock, self.model.now)
        return len(rows)
