"""How many pointers of a queue the broker holds, and how retries share a pass with new rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery.class_cursor import ClassRead
from notifier.delivery.publish_window import (
    MAX_WINDOW,
    MIN_WINDOW,
    PublishWindow,
    QueueThroughput,
    max_batch,
    worker_capacity,
)
from notifier.domain.due import DueClass
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE


def limit(window: PublishWindow, consumers: int = 1, drain: float = 0.0) -> int:
    return window.limit(QueueThroughput(consumers=consumers, drain_per_s=drain))


def run_pass(
    window: PublishWindow, size: int, first_attempts: int, retries: int
) -> tuple[int, int]:
    """Run a pass of `size` over a queue with this many rows due; returns how many it published."""
    asked = window.split(size)
    published = (min(asked[0], first_attempts), min(asked[1], retries))
    window.record_published(sum(published))
    classes = zip((DueClass.FIRST, DueClass.RETRY), asked, published, strict=True)
    window.record_pass({due_class: a_class(of, got) for due_class, of, got in classes if of})
    return published


def record_pass(window: PublishWindow, first: ClassRead, retry: ClassRead) -> None:
    window.record_pass({DueClass.FIRST: first, DueClass.RETRY: retry})


def a_class(asked: int, published: int) -> ClassRead:
    """What a pass did that found no claimed and no expired rows."""
    return ClassRead(published, has_more=published >= asked > 0)


def test_the_window_is_one_second_of_the_queues_drain() -> None:
    assert limit(PublishWindow(), consumers=4, drain=500.0) == 500


def test_the_window_of_a_slow_queue_is_twice_its_consumers() -> None:
    assert limit(PublishWindow(), consumers=60, drain=1.0) == 120


def test_the_window_never_exceeds_its_maximum() -> None:
    assert limit(PublishWindow(), drain=1e9) == MAX_WINDOW


def test_each_of_several_publishers_fills_its_share_rounded_up() -> None:
    window = PublishWindow()
    window.record_poll(70, 0.0, 100)
    assert window.room(100) == 30
    assert window.room(100, publishers=4) == 8
    window.record_poll(200, 0.0, 100)
    assert window.room(100) == 0


def test_a_publisher_fills_its_share_once_between_two_polls() -> None:
    window = PublishWindow()
    window.record_poll(60, 0.0, 100)
    for _ in range(3):
        room = window.room(100, publishers=4)
        run_pass(window, room, first_attempts=room, retries=0)
    assert window.ready == 70
    window.record_poll(64, 0.1, 100)
    assert window.room(100, publishers=4) == 9


def test_a_window_found_empty_while_rows_are_due_doubles_and_shrinks_again() -> None:
    window = PublishWindow()
    run_pass(window, MIN_WINDOW, first_attempts=10_000, retries=0)
    for expected in (2 * MIN_WINDOW, 4 * MIN_WINDOW, 8 * MIN_WINDOW):
        window.record_poll(0, 1.0, limit(window))
        assert limit(window) == expected
    for _ in range(3):
        window.record_poll(limit(window), 2.0, limit(window))
    assert limit(window) == MIN_WINDOW


def test_a_depth_is_stale_while_it_or_the_window_may_change() -> None:
    window = PublishWindow()
    assert not window.is_stale(10.0, 0.1)
    window.record_published(1)
    assert window.is_stale(10.0, 0.1)
    window.record_poll(1, 10.0, MIN_WINDOW)
    assert not window.is_stale(10.05, 0.1)
    run_pass(window, MIN_WINDOW, first_attempts=10_000, retries=0)
    window.record_poll(0, 11.0, MIN_WINDOW)
    assert window.is_stale(12.0, 0.1)
    run_pass(window, MIN_WINDOW, first_attempts=0, retries=0)
    assert window.is_stale(12.0, 0.1), "the window is still widened"
    window.record_poll(0, 12.0, MIN_WINDOW)
    assert not window.is_stale(20.0, 0.1)


def test_a_window_found_empty_while_no_row_is_due_keeps_its_size() -> None:
    window = PublishWindow()
    run_pass(window, MIN_WINDOW, first_attempts=3, retries=0)
    window.record_poll(0, 1.0, MIN_WINDOW)
    assert limit(window) == MIN_WINDOW


def test_a_widened_window_shrinks_when_no_row_is_due() -> None:
    window = PublishWindow()
    for _ in range(6):
        run_pass(window, MIN_WINDOW, first_attempts=10_000, retries=0)
        window.record_poll(0, 1.0, limit(window))
    run_pass(window, MIN_WINDOW, first_attempts=0, retries=0)
    for _ in range(6):
        window.record_poll(0, 2.0, limit(window))
    assert limit(window) == MIN_WINDOW


@pytest.mark.parametrize("due_class", DueClass)
def test_rows_of_any_class_that_a_pass_left_count_as_a_backlog(due_class: DueClass) -> None:
    window = PublishWindow()
    others = {other: a_class(8, 7) for other in DueClass}
    window.record_pass(others | {due_class: a_class(8, 8)})
    assert window.is_backlogged
    window.record_pass(others)
    assert not window.is_backlogged


def test_rows_that_may_not_be_published_do_not_hide_that_more_wait() -> None:
    window = PublishWindow()
    record_pass(window, ClassRead(got=0, has_more=True), a_class(32, 0))
    assert window.is_backlogged
    assert window.split(32) == (31, 1)


def test_a_pass_does_not_change_what_is_known_of_a_class_that_it_did_not_ask_for() -> None:
    window = PublishWindow()
    record_pass(window, a_class(8, 8), a_class(8, 0))
    window.record_pass({DueClass.BACK: a_class(1, 0)})
    assert window.is_backlogged


def test_published_pointers_count_until_the_next_poll_and_no_reply_counts_as_empty() -> None:
    window = PublishWindow()
    run_pass(window, 20, first_attempts=20, retries=0)
    assert window.ready == 20
    window.record_poll(5, 10.0, MIN_WINDOW)
    window.record_poll(None, 14.0, MIN_WINDOW)
    assert window.ready == 5
    window.record_poll(None, 15.1, MIN_WINDOW)
    assert window.ready == 0
    window.record_published(MIN_WINDOW)
    window.record_poll(None, 15.9, MIN_WINDOW)
    # For one second: otherwise the relay would publish without end.
    assert window.room(MIN_WINDOW) == 0
    window.record_poll(None, 16.2, MIN_WINDOW)
    assert window.room(MIN_WINDOW) == MIN_WINDOW


@given(size=st.integers(1, 50))
def test_one_row_in_four_is_a_retry_while_both_classes_wait(size: int) -> None:
    window = PublishWindow()
    run_pass(window, size, 10_000, 10_000)
    passes = [run_pass(window, size, 10_000, 10_000) for _ in range(400)]
    first_attempts, retries = (sum(column) for column in zip(*passes, strict=True))
    assert 0.2 <= retries / (first_attempts + retries) <= 0.3


def test_retries_get_the_whole_pass_when_no_first_attempt_waits() -> None:
    window = PublishWindow()
    run_pass(window, 40, first_attempts=0, retries=1000)
    assert run_pass(window, 40, first_attempts=0, retries=1000) == (0, 40)


def test_first_attempts_get_almost_the_whole_pass_when_no_retry_waits() -> None:
    window = PublishWindow()
    run_pass(window, 40, first_attempts=1000, retries=0)
    assert run_pass(window, 40, first_attempts=1000, retries=0)[0] >= 39


def test_a_window_of_one_is_not_spent_on_retries_when_none_wait() -> None:
    window = PublishWindow()
    first_attempts = [run_pass(window, 1, first_attempts=1000, retries=0)[0] for _ in range(100)]
    assert sum(first_attempts) >= 75
    assert window.is_backlogged


def test_retries_that_become_due_later_are_noticed() -> None:
    window = PublishWindow()
    for _ in range(5):
        run_pass(window, 40, first_attempts=1000, retries=0)
    retries = [run_pass(window, 40, first_attempts=1000, retries=1000)[1] for _ in range(20)]
    assert sum(retries) >= 20 * 40 * 0.2


def batch_of(*capacities: float, drain: float = 0.0) -> int:
    """Return the pointers per message for workers of these capacities."""
    return max_batch(QueueThroughput(len(capacities), drain, worker_capacity(capacities)))


@given(st.floats(0, 1e6))
def test_a_message_carries_the_calls_that_a_worker_begins_in_thirty_milliseconds(
    capacity: float,
) -> None:
    count = batch_of(capacity)
    assert 1 <= count <= MAX_POINTERS_PER_MESSAGE
    assert count == 1 or count <= capacity * 0.03


def test_a_slow_queue_whose_calls_are_fast_gets_full_messages() -> None:
    assert batch_of(4 / 0.001, 4 / 0.001, drain=1.0) == MAX_POINTERS_PER_MESSAGE


def test_a_message_for_four_consumers_with_calls_of_20_ms_is_begun_in_two_calls_of_each() -> None:
    assert batch_of(4 / 0.02, drain=1000.0) <= 2 * 4


def test_a_message_does_not_grow_with_the_number_of_workers() -> None:
    assert {batch_of(*[510.0] * workers) for workers in (1, 2, 40)} == {15}


def test_a_message_is_small_if_one_worker_has_few_consumers() -> None:
    many, few = 64 / 0.02, 1 / 0.02
    assert batch_of(many, few) <= 2 * few * 0.03


@given(st.lists(st.floats(100, 1e5), min_size=1, max_size=20))
def test_a_message_takes_a_worker_thirty_milliseconds_on_average(capacities: list[float]) -> None:
    size = worker_capacity(capacities) * 0.03
    spans = [size / capacity for capacity in capacities]
    assert sum(spans) / len(spans) == pytest.approx(0.03)


def test_workers_that_may_not_send_do_not_count() -> None:
    assert worker_capacity([0.0, 500.0, 0.0]) == pytest.approx(500.0)
    assert (worker_capacity([]), worker_capacity([0.0])) == (0.0, 0.0)
    assert batch_of() == batch_of(0.0) == 1


def test_unconfirmed_pointers_leave_their_room_also_after_a_higher_report() -> None:
    window = PublishWindow()
    window.record_poll(40, now=0.0, limit=128)
    window.record_unconfirmed(60)
    assert window.ready == 0
    assert window.room(MIN_WINDOW) == MIN_WINDOW
