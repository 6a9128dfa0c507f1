"""Every row that becomes due is published at its claim, in whatever order transactions commit.

The machine begins transactions, lets them read the clock and commit in any order, and runs a
holder's reads, looks and publishes between them, each in two steps. In the end all transactions
end, and:

- passes alone publish what transactions of at most 5 s left;
- a long look publishes what slower ones left, unless the lease changed its holder meanwhile;
- lost messages are the rest;
- one holder publishes no row twice at one claim.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from notifier.delivery import class_cursor
from notifier.delivery.class_cursor import ClassCursor
from notifier.domain.due import DueClass
from notifier.ports.leases import Progress
from notifier.ports.store import DueRange
from tests.queue_model import Holder, QueueModel, Row, Transaction

CLOCK_STEP_S = 30.0
INDEX = st.integers(0, 5)
DELAYS_S = st.sampled_from([0.0, 0.0, 0.05, 3.0])
TURNS_USED = st.sampled_from([1, 2, 63])
CLASSES = st.sampled_from([DueClass.FIRST, DueClass.FIRST, DueClass.DIRECT])


class CommitOrder(RuleBasedStateMachine):
    """Rows that are inserted in transactions, and the passes of one holder."""

    is_bound_of_snapshot = False

    def __init__(self) -> None:
        super().__init__()
        self.model = QueueModel(is_bound_of_snapshot=self.is_bound_of_snapshot)
        self.holder = Holder(self.model)
        self.saved = Progress()
        self.next_id = 10
        self.is_taken_over = False
        self.stalls = 0
        self.steps_back = 0
        self.read_steps = 0
        self.has_read = True
        self.seen_steps = 0
        self.saved_steps = 0
        self.is_evidence_needed = False

    def _open(self, index: int) -> Transaction:
        return self.model.open[index % len(self.model.open)]

    @rule(seconds=st.sampled_from([0.0, 0.02, 0.1, 0.15, 0.7, 2.5]))
    def advance(self, seconds: float) -> None:
        self.model.advance(seconds)

    @rule(due_class=CLASSES, count=st.integers(1, 3), delay_s=DELAYS_S)
    def begin_insert(self, due_class: DueClass, count: int, delay_s: float) -> None:
        ids = [UUID(int=self.next_id + offset) for offset in range(count)]
        self.next_id += count
        self.model.begin(due_class, ids=ids, delay_s=delay_s)

    @rule()
    def begin_foreign_transaction(self) -> None:
        self.model.begin()

    @precondition(lambda self: self.model.open)
    @rule(index=INDEX)
    def read_clock(self, index: int) -> None:
        transaction = self._open(index)
        if transaction.due_at is None:
            self.model.read_clock(transaction)

    @precondition(lambda self: self.model.open)
    @rule(index=INDEX)
    def commit(self, index: int) -> None:
        self.model.commit(self._open(index))

    @rule(limit=st.integers(1, 3))
    def run_pass(self, limit: int) -> None:
        self.holder.run_pass(limit)
        self.read_steps = self.seen_steps = self.steps_back
        self.has_read = True

    def teardown(self) -> None:
        for transaction in list(self.model.open):
            self.model.commit(transaction)
        self._run_passes()
        self.model.advance(CLOCK_STEP_S * (self.steps_back + 1))
        self._run_passes()
        if not self.is_evidence_needed:
            assert [row for row in self.model.unpublished() if not row.is_late] == []
        for _ in range(10):
            self.model.advance(1.0)
            self.holder.run_look(is_long=True)
            self.holder.run_pass()
        if not self.is_taken_over:
            assert self.model.unpublished() == []
        self.model.advance(3600.0)
        self.holder.run_look(is_long=True)
        if not self.is_taken_over:
            assert max(self.model.published.values(), default=0) <= 1
        while self.model.unpublished() and self.holder.publish_lost(self.model.clock):
            self.model.advance(3600.0)
            self.holder.run_look()
        assert self.model.unpublished() == []

    def _run_passes(self) -> None:
        """Run passes until several in a row publish nothing."""
        idle = 0
        while idle < 5:
            self.model.advance(0.15)
            idle = 0 if self.holder.run_pass() else idle + 1


class Queue(CommitOrder):
    """The rows of one queue, the holders of its lease, and faults."""

    def _pick(self, rows: list[Row], index: int) -> Row | None:
        return rows[index % len(rows)] if rows else None

    def _free(self) -> list[Row]:
        return [row for row in self.model.rows.values() if not row.is_locked]

    @precondition(lambda self: self.stalls < 5)
    @rule(seconds=st.sampled_from([7.0, 12.0]))
    def stall(self, seconds: float) -> None:
        self.stalls += 1
        self.model.advance(seconds)

    @rule(due_class=CLASSES, count=st.integers(1, 3), delay_s=DELAYS_S)
    def insert(self, due_class: DueClass, count: int, delay_s: float) -> None:
        self.begin_insert(due_class, count, delay_s)
        self.model.commit(self.model.open[-1])

    @precondition(lambda self: self.model.open)
    @rule(index=INDEX)
    def roll_back(self, index: int) -> None:
        self.model.roll_back(self._open(index))

    @rule(index=INDEX)
    def claim(self, index: int) -> None:
        row = self._pick([row for row in self._free() if row.claimed_by is None], index)
        if row and not row.is_expired and row.due_at <= self.model.clock:
            self.model.claim(row)

    @rule(index=INDEX)
    def delete(self, index: int) -> None:
        if row := self._pick([row for row in self._free() if row.claimed_by], index):
            del self.model.rows[row.id]

    @rule(index=INDEX)
    def expire(self, index: int) -> None:
        if row := self._pick(self._free(), index):
            row.is_expired = True

    @rule(index=INDEX)
    def begin_give_back(self, index: int) -> None:
        if row := self._pick(self._free(), index):
            self.model.begin(DueClass.BACK, moved=row)

    @rule(index=INDEX, delay_s=DELAYS_S)
    def begin_retry(self, index: int, delay_s: float) -> None:
        if row := self._pick([row for row in self._free() if row.claimed_by], index):
            self.model.begin(DueClass.RETRY, moved=row, delay_s=delay_s)

    @rule(limit=st.integers(1, 3), room=st.integers(0, 5))
    def begin_read(self, limit: int, room: int) -> None:
        self.holder.begin_read(limit, room)
        self.read_steps = self.steps_back

    @precondition(lambda self: self.holder.is_reading)
    @rule()
    def end_read(self) -> None:
        self.holder.end_read()
        self.seen_steps, self.has_read = self.read_steps, True

    @rule(is_long=st.booleans())
    def begin_look(self, is_long: bool) -> None:
        self.holder.begin_look(is_long=is_long)

    @rule(limit=st.integers(1, 3))
    def begin_look_read(self, limit: int) -> None:
        self.holder.begin_look_read(limit)

    @rule()
    def end_look_read(self) -> None:
        self.holder.end_look_read()

    @precondition(lambda self: self.holder.batches)
    @rule(index=INDEX, unconfirmed=st.sets(st.integers(0, 3)))
    def settle(self, index: int, unconfirmed: set[int]) -> None:
        batch = self.holder.batches[index % len(self.holder.batches)]
        rows = [row for number, row in enumerate(batch.rows) if number in unconfirmed]
        self.holder.settle(batch, unconfirmed=rows)

    @rule()
    def save_progress(self) -> None:
        self.saved = self.holder.cursor.progress(is_backlogged=False)
        self.saved_steps = self.seen_steps

    @rule()
    def take_over(self) -> None:
        self.is_taken_over = True
        # A new holder cannot tell how far back the clock went before its first read.
        self.is_evidence_needed = self.is_evidence_needed or self.saved_steps < self.steps_back
        self.seen_steps = self.steps_back
        self.has_read = False
        self.holder = Holder(self.model, self.saved)

    @precondition(lambda self: self.steps_back < 3)
    @rule()
    def set_clock_back(self) -> None:
        """Set Postgres's clock back by more than a slow clock could lag between two reads."""
        self.steps_back += 1
        self.is_evidence_needed = self.is_evidence_needed or not self.has_read
        self.model.clock -= timedelta(seconds=CLOCK_STEP_S)


class QueueOfTenants(Queue):
    """The rows of one queue in several turns."""

    @rule(turn=TURNS_USED, count=st.integers(1, 4), delay_s=DELAYS_S)
    def begin_insert_of_turn(self, turn: int, count: int, delay_s: float) -> None:
        ids = [UUID(int=self.next_id + offset) for offset in range(count)]
        self.next_id += count
        self.model.begin(DueClass.FIRST, ids=ids, delay_s=delay_s, turn=turn)

    @rule(turn=TURNS_USED, count=st.integers(1, 4), delay_s=DELAYS_S)
    def insert_of_turn(self, turn: int, count: int, delay_s: float) -> None:
        self.begin_insert_of_turn(turn, count, delay_s)
        self.model.commit(self.model.open[-1])


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows reach the limits of reads."""
    monkeypatch.setattr(class_cursor, "MAX_SECOND_LOOK_ROWS", 2)
    monkeypatch.setattr(class_cursor, "MAX_LOOK_ROWS", 4)


def run_settings(examples: int = 300, phases: Collection[Phase] = tuple(Phase)) -> settings:
    """Return the settings for the same examples each time, or those of the profile."""
    if settings.get_current_profile_name() == "long":
        return settings(suppress_health_check=list(HealthCheck), phases=phases)
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
        phases=phases,
    )


@pytest.mark.parametrize("machine", [CommitOrder, Queue, QueueOfTenants])
def test_every_row_is_published_once_at_its_claim(machine: type[CommitOrder]) -> None:
    run_state_machine_as_test(machine, settings=run_settings())


def assert_fails(machine: type[CommitOrder]) -> None:
    """Assert that the machine finds the fault of a changed rule."""
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(machine, settings=run_settings(3000, [Phase.generate]))


def test_rows_are_missed_without_the_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = ClassCursor.ranges

    def ranges_from_the_cursor(self: ClassCursor, limit: int, now: float) -> list[DueRange]:
        self.floor = self.cursor
        return ranges(self, limit, now)

    monkeypatch.setattr(ClassCursor, "ranges", ranges_from_the_cursor)
    assert_fails(CommitOrder)


def test_rows_are_missed_if_any_read_raises_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_cursor, "PROVED_AFTER_S", 0.0)
    assert_fails(CommitOrder)


def test_rows_are_missed_if_the_end_of_the_snapshot_is_the_bound_of_a_proof() -> None:
    class SnapshotOrder(CommitOrder):
        is_bound_of_snapshot = True

    assert_fails(SnapshotOrder)
