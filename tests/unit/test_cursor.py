"""Which rows a pass over a queue reads and publishes, what it remembers, and what is lost."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from notifier.delivery import class_cursor, cursor
from notifier.delivery.class_cursor import MAX_EXTRA_ROWS, ClassRead
from notifier.domain.due import BEGINNING, DueClass
from notifier.ports.leases import Progress
from notifier.ports.store import LiveRow
from tests.queue_model import Holder, QueueModel

A, B, C, D, E, F = (UUID(int=number) for number in range(10, 16))
FIRST = DueClass.FIRST


@pytest.fixture
def model() -> QueueModel:
    return QueueModel()


@pytest.fixture
def holder(model: QueueModel) -> Holder:
    return Holder(model)


def published(model: QueueModel) -> list[UUID]:
    """The ids of what was published, in the order of their first publishes."""
    return [id_ for id_, _ in model.published.elements()]


def floor(holder: Holder, due_class: DueClass = FIRST) -> UUID:
    """The id of the row at the floor of a class."""
    return holder.cursor.progress(is_backlogged=False).floor(due_class).id


def mark(holder: Holder) -> int:
    return holder.cursor.progress(is_backlogged=False).mark(FIRST).id.int


def run_pass_later(holder: Holder, seconds: float = 0.1) -> None:
    holder.model.advance(seconds)
    holder.run_pass()


def test_rows_given_back_come_first_then_direct_ones_first_attempts_and_retries(
    model: QueueModel, holder: Holder
) -> None:
    for id_, due_class in zip(
        (A, B, C, D), (DueClass.RETRY, FIRST, DueClass.DIRECT, DueClass.BACK), strict=True
    ):
        model.insert(id_, due_class=due_class)
    model.advance(2.0)
    holder.run_pass(limit=4, room=4)
    assert published(model) == [D, C, B, A]


def test_a_pass_publishes_at_most_its_room_of_all_classes_and_the_limit_of_each(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A, B, C, due_class=DueClass.BACK)
    model.insert(D, E, F)
    holder.begin_read(limit=2, room=3)
    holder.end_read()
    [batch] = holder.batches
    assert batch.classes[DueClass.BACK] == ClassRead(got=2, has_more=True)
    assert batch.classes[FIRST] == ClassRead(got=1, has_more=True)
    assert batch.classes[DueClass.RETRY] == ClassRead(got=0, has_more=False)
    holder.settle_all()
    holder.run_pass(limit=5, room=5)
    assert published(model) == [A, B, D, C, E, F]


def test_claimed_and_expired_rows_are_passed(model: QueueModel, holder: Holder) -> None:
    model.insert(A, B, C)
    model.claim(model.rows[A])
    model.rows[B].is_expired = True
    assert [holder.run_pass(limit=1) for _ in range(2)] == [0, 1]
    assert published(model) == [C]
    assert floor(holder) == C


def test_a_read_asks_for_more_while_rows_that_are_not_published_fill_it(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(*(UUID(int=number) for number in range(2000)))
    for row in model.rows.values():
        row.is_expired = True
    asked = list[int]()
    for _ in range(8):
        asked += [range_.limit for range_ in holder.cursor.ranges({FIRST: 2}, 2, model.now)]
        holder.run_pass(limit=2)
    assert asked == sorted(asked)
    assert asked[-1] == 2 + MAX_EXTRA_ROWS


def test_a_direct_row_is_published_after_two_seconds_unless_it_was_claimed(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A, B, due_class=DueClass.DIRECT)
    model.claim(model.rows[A])
    run_pass_later(holder, 1.9)
    assert published(model) == []
    run_pass_later(holder, 0.2)
    assert published(model) == [B]


def test_the_times_of_the_floors_follow_reads_and_publishes_that_fail(
    model: QueueModel, holder: Holder
) -> None:
    def floor_times() -> list[float]:
        floors = holder.cursor.progress(is_backlogged=False).floors
        return [floors[due_class].due_at.timestamp() for due_class in DueClass]

    assert holder.cursor.floor_times() == floor_times()
    model.insert(A)
    model.advance(1.0)
    model.insert(B)
    holder.begin_read(limit=3, room=3)
    holder.end_read()
    [batch] = holder.batches
    after_read = holder.cursor.floor_times()[FIRST]
    holder.settle(batch, unconfirmed=batch.rows)
    assert holder.cursor.floor_times() == floor_times()
    assert floor_times()[FIRST] < after_read
    holder.run_pass()
    assert holder.cursor.floor_times() == floor_times()
    assert floor_times()[FIRST] == after_read


def test_reads_of_direct_rows_do_not_begin_at_rows_sent_long_ago(
    model: QueueModel, holder: Holder
) -> None:
    run_pass_later(holder, 60.0)
    floors = holder.cursor.progress(is_backlogged=False).floors
    assert model.clock - floors[DueClass.DIRECT].due_at < timedelta(seconds=2.1)
    assert floors[FIRST] == BEGINNING


def test_a_row_that_commits_late_is_published_by_the_second_look(
    model: QueueModel, holder: Holder
) -> None:
    slow = model.begin(ids=[A])
    model.read_clock(slow)
    model.insert(B)
    holder.run_pass()
    model.commit(slow)
    holder.run_pass()
    assert published(model) == [B, A]


def test_a_second_look_follows_the_last_one_after_a_tenth_of_a_second(
    model: QueueModel, holder: Holder
) -> None:
    model.begin()
    model.insert(A)
    holder.run_pass()
    looks = list[int]()
    for _ in range(5):
        looks.append(len(holder.cursor.ranges({FIRST: 1}, 1, model.now)) - 1)
        holder.run_pass()
        model.advance(0.05)
    assert looks == [1, 0, 1, 0, 1]


def test_the_floor_waits_for_the_transactions_that_ran_beside_a_read_at_most_six_seconds(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A)
    holder.run_pass()
    slow = model.begin()
    model.insert(B)
    holder.run_pass()
    run_pass_later(holder, 5.9)
    assert floor(holder) == A
    model.insert(C)
    run_pass_later(holder)
    assert floor(holder) == B
    model.commit(slow)
    run_pass_later(holder)
    assert floor(holder) == C


def test_a_second_look_that_reached_its_limit_proves_only_what_it_read(
    model: QueueModel, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_cursor, "MAX_SECOND_LOOK_ROWS", 2)
    slow = model.begin(ids=[F])
    model.insert(A, B, C)
    model.read_clock(slow)
    model.insert(D)
    holder.run_pass(limit=4, room=4)
    model.commit(slow)
    run_pass_later(holder)
    assert floor(holder) == B
    assert published(model) == [A, B, C, D]
    run_pass_later(holder)
    run_pass_later(holder)
    assert published(model) == [A, B, C, D, F]


def test_unconfirmed_rows_are_published_again_and_confirmed_ones_are_not(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A, B, C)
    holder.begin_read(limit=3, room=3)
    holder.end_read()
    [batch] = holder.batches
    holder.settle(batch, unconfirmed=[batch.rows[1]])
    assert floor(holder).int == B.int - 1
    holder.run_pass()
    assert published(model) == [A, C, B]
    assert floor(holder) == C


def test_the_progress_stays_before_rows_whose_publish_is_under_way(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A)
    holder.run_pass()
    model.insert(B, C)
    holder.begin_read(limit=3, room=3)
    holder.end_read()
    assert floor(holder).int == B.int - 1
    Holder(model, holder.cursor.progress(is_backlogged=False)).run_pass()
    assert published(model) == [A, B, C]


def test_a_read_under_way_while_cursors_are_set_back_publishes_nothing(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A)
    holder.begin_read(limit=3, room=3)
    holder.end_read()
    model.insert(B)
    holder.begin_read(limit=3, room=3)
    [batch] = holder.batches
    holder.settle(batch, unconfirmed=batch.rows)
    assert holder.end_read() == 0
    holder.run_pass()
    assert published(model) == [A, B]


def test_a_read_that_failed_proves_nothing_when_the_next_one_leaves_its_class_out(
    model: QueueModel, holder: Holder
) -> None:
    slow = model.begin(ids=[A])
    model.read_clock(slow)
    model.insert(B)
    holder.run_pass()
    model.commit(slow)
    model.advance(0.1)
    holder.begin_read(limit=3, room=3)  # Postgres does not answer
    read = model.read(holder.cursor.ranges({DueClass.BACK: 3}, 3, model.now))
    holder.cursor.read(read.rows, read, model.now)
    holder.run_pass()
    assert published(model) == [B, A]


def test_what_a_claim_gave_back_is_published_at_its_new_claim(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A)
    holder.run_pass()
    model.claim(model.rows[A])
    model.commit(model.begin(DueClass.BACK, moved=model.rows[A]))
    holder.run_pass()
    assert list(model.published) == [(A, 0), (A, 1)]


def test_rows_that_became_due_after_the_clock_went_back_are_published(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A)
    holder.run_pass()
    model.advance(1.0)
    model.clock -= timedelta(seconds=60)
    model.insert(B)
    model.advance(0.5)
    holder.run_pass()
    holder.run_pass()
    assert published(model) == [A, B]


def test_a_look_after_the_clock_went_back_forgets_nothing(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A)
    holder.run_pass()
    model.advance(7.0)
    model.clock -= timedelta(seconds=30)
    holder.run_look()
    model.advance(60.0)
    holder.run_pass()
    holder.run_pass()
    assert published(model) == [A]


def test_a_lease_of_before_the_clock_went_back_is_read_from_the_beginning(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A)
    holder.run_pass()
    model.clock -= timedelta(seconds=60)
    model.insert(B)
    successor = Holder(model, holder.cursor.progress(is_backlogged=False))
    successor.run_pass()
    successor.run_pass()
    assert B in published(model)


def test_a_slow_clock_sets_nothing_back(model: QueueModel, holder: Holder) -> None:
    for id_ in (A, B, C):
        model.insert(id_)
        run_pass_later(holder, 1.0)
        model.clock -= timedelta(seconds=0.08)
    run_pass_later(holder, 1.0)
    assert floor(holder) == C


def test_a_look_publishes_a_row_that_no_proof_waited_for(model: QueueModel, holder: Holder) -> None:
    slow = model.begin(ids=[A])
    model.read_clock(slow)
    model.insert(B)
    holder.run_pass()
    run_pass_later(holder, 7.0)
    model.commit(slow)
    run_pass_later(holder)
    assert published(model) == [B]
    holder.run_look(is_long=True)
    holder.run_look(is_long=True)
    assert published(model) == [B, A]


@pytest.mark.parametrize("next_read_s", [0.1, 31.0])
@pytest.mark.parametrize("due_class", [FIRST, DueClass.DIRECT])
def test_the_next_look_finds_a_row_that_was_committed_after_six_seconds(
    model: QueueModel, holder: Holder, due_class: DueClass, next_read_s: float
) -> None:
    slow = model.begin(due_class, ids=[A])
    model.read_clock(slow)
    model.insert(B, due_class=due_class)
    for _ in range(120):
        run_pass_later(holder)
    model.claim(model.rows[B])
    for _ in range(3):
        run_pass_later(holder)
        holder.run_look()
    model.commit(slow)
    run_pass_later(holder, next_read_s)
    assert published(model) == [B]
    holder.run_look()
    assert published(model) == [B, A]


def test_a_look_leaves_what_was_published_two_seconds_ago_or_later(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A)
    holder.run_pass()
    model.advance(1.9)
    holder.begin_look()
    assert FIRST not in [range_.due_class for range_ in holder.cursor.look_ranges(10)]
    model.advance(0.1)
    holder.begin_look()
    assert FIRST in [range_.due_class for range_ in holder.cursor.look_ranges(10)]


def test_the_mark_is_before_the_oldest_unclaimed_row(model: QueueModel, holder: Holder) -> None:
    model.insert(A, B, C)
    holder.run_pass()
    model.claim(model.rows[A])
    run_pass_later(holder, 3.0)
    holder.run_look()
    assert mark(holder) == B.int - 1
    del model.rows[B]
    model.claim(model.rows[C])
    holder.run_look()
    assert mark(holder) == C.int


def test_a_look_with_too_many_rows_is_continued_by_the_next_one(
    model: QueueModel, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_cursor, "MAX_LOOK_ROWS", 2)
    model.insert(A, B, C, D)
    holder.run_pass(limit=4, room=4)
    for id_ in (A, B, C):
        model.claim(model.rows[id_])
    run_pass_later(holder, 3.0)
    holder.run_look(limit=1)
    assert mark(holder) < A.int
    holder.run_look(limit=1)
    holder.run_look(limit=1)
    assert mark(holder) == D.int - 1


def test_a_look_publishes_at_most_five_hundred_rows(
    model: QueueModel, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor, "MAX_MISSED_ROWS", 2)
    slow = model.begin(ids=[A, B, C])
    model.read_clock(slow)
    model.insert(D)
    holder.run_pass()
    run_pass_later(holder, 7.0)
    model.commit(slow)
    holder.run_look(is_long=True, limit=1)
    assert published(model) == [D, A, B]
    holder.run_look(limit=1)
    assert published(model) == [D, A, B, C]


def lost(holder: Holder) -> list[UUID]:
    """What counts as lost if everything published before now does."""
    rows = holder.cursor.lost(holder.model.clock)
    return [row.position.id for row in rows]


def test_what_is_unclaimed_at_the_last_look_is_lost_and_waits_twice_as_long_each_time(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A, B)
    holder.run_pass()
    model.claim(model.rows[B])
    waits = list[int]()
    for second in range(1, 80):
        model.advance(1.0)
        holder.run_look()
        if lost(holder):
            assert lost(holder) == [A]
            waits.append(second)
            holder.publish_lost(model.clock)
    assert waits == [10, 30, 70]


def test_nothing_is_lost_that_was_published_since(model: QueueModel, holder: Holder) -> None:
    model.insert(A)
    holder.run_pass()
    model.advance(1.0)
    before = model.clock
    model.insert(B)
    holder.run_pass()
    model.advance(20.0)
    holder.run_look()
    assert [row.position.id for row in holder.cursor.lost(before)] == [A]


def test_at_most_five_hundred_messages_are_lost_at_once(
    model: QueueModel, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor, "MAX_LOST_ROWS", 2)
    model.insert(A, B, due_class=DueClass.BACK)
    model.insert(C, D)
    holder.run_pass(limit=4, room=4)
    model.advance(20.0)
    holder.run_look()
    assert lost(holder) == [A, B]
    holder.publish_lost(model.clock)
    assert lost(holder) == [C, D]


def test_what_the_holder_before_left_unclaimed_counts_as_published_at_the_first_look(
    model: QueueModel, holder: Holder
) -> None:
    model.insert(A, B)
    holder.run_pass()
    model.claim(model.rows[B])
    successor = Holder(model, holder.cursor.progress(is_backlogged=False))
    successor.run_look()
    assert lost(successor) == []
    model.advance(9.0)
    successor.run_look()
    assert lost(successor) == []
    model.advance(1.0)
    successor.run_look()
    assert lost(successor) == [A]
    assert published(model) == [A, B]


def test_what_the_holder_before_published_is_not_lost_once_it_is_claimed(
    model: QueueModel, holder: Holder
) -> None:
    """Also while nothing else becomes due in its class, so that the cursor stands still."""
    model.insert(A, B)
    holder.run_pass()
    run_pass_later(holder)
    model.claim(model.rows[B])
    holder.run_look()
    successor = Holder(model, holder.cursor.progress(is_backlogged=False))
    for _ in range(2):
        model.advance(1.0)
        successor.run_pass()
        successor.run_look()
        if model.rows[A].claimed_by is None:
            model.claim(model.rows[A])
    model.advance(60.0)
    successor.run_pass()
    successor.run_look()
    assert successor.publish_lost(model.clock) == 0


def test_a_late_row_is_not_lost_once_it_is_claimed(model: QueueModel, holder: Holder) -> None:
    slow = model.begin(ids=[A])
    model.read_clock(slow)
    model.insert(B)
    holder.run_pass()
    for _ in range(30):
        run_pass_later(holder)
    model.commit(slow)
    run_pass_later(holder)
    assert published(model) == [B, A]
    for row in model.rows.values():
        model.claim(row)
    for _ in range(3):
        model.advance(20.0)
        holder.run_pass()
        holder.run_look()
    assert holder.publish_lost(model.clock) == 0


def test_a_row_that_appears_after_the_first_look_was_missed_by_the_holder_before(
    model: QueueModel, holder: Holder
) -> None:
    slow = model.begin(ids=[A])
    model.read_clock(slow)
    model.insert(B)
    holder.run_pass()
    run_pass_later(holder, 7.0)
    successor = Holder(model, holder.cursor.progress(is_backlogged=False))
    successor.run_look()
    model.commit(slow)
    successor.run_look(is_long=True)
    assert published(model) == [B, A]


def test_a_new_queue_begins_at_the_beginning(model: QueueModel) -> None:
    progress = Holder(model).cursor.progress(is_backlogged=True)
    assert progress == Progress(
        floors=dict.fromkeys(DueClass, BEGINNING),
        marks=dict.fromkeys(DueClass, BEGINNING),
        is_backlogged=True,
    )


def test_rows_settled_twice_change_nothing(model: QueueModel, holder: Holder) -> None:
    model.insert(A)
    holder.begin_read(limit=1, room=1)
    holder.end_read()
    [batch] = holder.batches
    holder.settle(batch)
    rows: list[LiveRow] = []
    holder.cursor.settle(batch, rows)
    assert floor(holder) == A


def insert_in_turn(model: QueueModel, turn: int, *ids: UUID) -> None:
    model.commit(model.begin(FIRST, ids=ids, turn=turn))


def test_a_new_holder_begins_each_turn_at_its_own_floor(model: QueueModel, holder: Holder) -> None:
    insert_in_turn(model, 5, A)
    model.insert(B)
    model.turns.clear()  # the holder has not heard of the turn
    holder.run_pass()
    run_pass_later(holder)
    assert published(model) == [B]
    progress = holder.cursor.progress(is_backlogged=False)
    assert progress.floor(FIRST).id == B
    model.turns.add(5)
    successor = Holder(model, progress)
    successor.run_pass()
    run_pass_later(successor)
    assert published(model) == [B, A]
    insert_in_turn(model, 5, C)
    third = Holder(model, successor.cursor.progress(is_backlogged=False))
    third.run_pass()
    assert published(model) == [B, A, C]


def test_a_turn_without_rows_is_left_out_of_the_lease(model: QueueModel, holder: Holder) -> None:
    insert_in_turn(model, 5, A)
    holder.run_pass()
    run_pass_later(holder)
    model.claim(model.rows[A])
    assert set(holder.cursor.progress(is_backlogged=False).turns) == {5}
    model.advance(3.0)
    holder.run_look()
    holder.run_pass()
    progress = holder.cursor.progress(is_backlogged=False)
    assert progress.turns == {}
    successor = Holder(model, progress)
    insert_in_turn(model, 5, B)
    successor.run_pass()
    run_pass_later(successor)
    assert published(model) == [A, B]


def test_a_row_of_a_turn_that_commits_late_is_published(model: QueueModel, holder: Holder) -> None:
    late = model.begin(FIRST, ids=[A], turn=5)
    model.read_clock(late)
    insert_in_turn(model, 5, B)
    holder.run_pass()
    assert published(model) == [B]
    model.commit(late)
    run_pass_later(holder, seconds=0.5)
    assert published(model) == [B, A]


def test_a_look_goes_through_all_turns_though_a_read_has_room_for_few(
    model: QueueModel, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor, "MAX_LOOK_RANGES", 2)
    ids = [UUID(int=100 + turn) for turn in range(1, 8)]
    for turn, id_ in enumerate(ids, start=1):
        insert_in_turn(model, turn, id_)
    holder.run_pass(limit=10, room=10)
    assert sorted(published(model)) == ids
    assert not holder.cursor.is_idle
    for id_ in ids:
        model.claim(model.rows[id_])
    model.advance(3.0)
    holder.run_look()
    holder.run_pass()
    assert holder.cursor.is_idle


def test_the_clock_goes_back_for_all_turns(model: QueueModel, holder: Holder) -> None:
    insert_in_turn(model, 5, A)
    holder.run_pass()
    model.clock -= timedelta(seconds=60)
    insert_in_turn(model, 5, B)
    holder.run_pass()
    run_pass_later(holder)
    assert set(published(model)) == {A, B}
