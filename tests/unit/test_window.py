"""How much of a queue the relay keeps in the broker, and how retries stand behind firsts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery.publish_window import (
    MAX_POINTERS_PER_MESSAGE,
    MAX_WINDOW,
    MIN_WINDOW,
    QueuePace,
    Window,
    max_batch,
)


def limit(window: Window, consumers: int = 1, drain: float = 0.0) -> int:
    return window.limit(QueuePace(consumers=consumers, drain_per_s=drain))


def passes(window: Window, size: int, firsts: int, retries: int) -> tuple[int, int]:
    """One pass of `size` over a queue with that many due; what it took."""
    asked = window.split(size)
    taken = (min(asked[0], firsts), min(asked[1], retries))
    window.taken(asked=asked, firsts=taken[0], retries=taken[1])
    return taken


def test_a_queue_is_kept_within_a_second_of_its_drain() -> None:
    assert limit(Window(), consumers=4, drain=500.0) == 500


def test_a_slow_queue_still_gets_twice_its_consumers() -> None:
    assert limit(Window(), consumers=60, drain=1.0) == 120


def test_no_window_is_wider_than_the_most() -> None:
    assert limit(Window(), drain=1e9) == MAX_WINDOW


def test_each_of_several_relays_fills_its_part_rounded_up() -> None:
    window = Window()
    window.polled(70, 0.0, 100)
    assert window.missing(100, relays=1) == 30
    assert window.missing(100, relays=4) == 8
    window.polled(200, 0.0, 100)
    assert window.missing(100, relays=1) == 0


def test_between_two_words_a_relay_fills_its_part_once() -> None:
    window = Window()
    window.polled(60, 0.0, 100)
    for _ in range(3):
        missing = window.missing(100, relays=4)
        passes(window, missing, firsts=missing, retries=0)
    assert window.ready == 70
    window.polled(64, 0.1, 100)
    assert window.missing(100, relays=4) == 9


def test_a_window_found_empty_with_rows_due_doubles_and_comes_back() -> None:
    window = Window()
    passes(window, MIN_WINDOW, firsts=10_000, retries=0)
    for expected in (2 * MIN_WINDOW, 4 * MIN_WINDOW, 8 * MIN_WINDOW):
        window.polled(0, 1.0, limit(window))
        assert limit(window) == expected
    for _ in range(3):
        window.polled(limit(window), 2.0, limit(window))
    assert limit(window) == MIN_WINDOW


def test_a_window_found_empty_with_nothing_due_stays() -> None:
    window = Window()
    passes(window, MIN_WINDOW, firsts=3, retries=0)
    window.polled(0, 1.0, MIN_WINDOW)
    assert limit(window) == MIN_WINDOW


def test_a_widened_window_closes_again_when_nothing_is_due() -> None:
    window = Window()
    for _ in range(6):
        passes(window, MIN_WINDOW, firsts=10_000, retries=0)
        window.polled(0, 1.0, limit(window))
    passes(window, MIN_WINDOW, firsts=0, retries=0)
    for _ in range(6):
        window.polled(0, 2.0, limit(window))
    assert limit(window) == MIN_WINDOW


def test_what_a_full_pass_did_not_reach_still_waits() -> None:
    window = Window()
    window.taken(asked=(MIN_WINDOW, MIN_WINDOW), firsts=0, retries=0, is_cut=True)
    assert window.is_backlogged


def test_what_is_published_counts_until_the_next_word_and_silence_counts_as_empty() -> None:
    window = Window()
    passes(window, 20, firsts=20, retries=0)
    assert window.ready == 20
    window.polled(5, 10.0, MIN_WINDOW)
    window.polled(None, 14.0, MIN_WINDOW)
    assert window.ready == 5
    window.polled(None, 15.1, MIN_WINDOW)
    assert window.ready == 0
    window.taken(asked=(MIN_WINDOW, 0), firsts=MIN_WINDOW, retries=0)
    window.polled(None, 15.9, MIN_WINDOW)
    assert (
        window.missing(MIN_WINDOW, relays=1) == 0
    )  # for a second, or it were published without end
    window.polled(None, 16.2, MIN_WINDOW)
    assert window.missing(MIN_WINDOW, relays=1) == MIN_WINDOW


@given(size=st.integers(1, 50))
def test_one_in_four_is_a_retry_while_both_wait(size: int) -> None:
    window = Window()
    passes(window, size, 10_000, 10_000)
    taken = [passes(window, size, 10_000, 10_000) for _ in range(400)]
    firsts, retries = (sum(column) for column in zip(*taken, strict=True))
    assert 0.2 <= retries / (firsts + retries) <= 0.3


def test_retries_have_the_queue_when_no_first_attempt_waits() -> None:
    window = Window()
    passes(window, 40, firsts=0, retries=1000)
    assert passes(window, 40, firsts=0, retries=1000) == (0, 40)


def test_first_attempts_have_the_queue_when_no_retry_waits() -> None:
    window = Window()
    passes(window, 40, firsts=1000, retries=0)
    assert passes(window, 40, firsts=1000, retries=0)[0] >= 39


def test_a_window_of_one_is_not_wasted_on_retries_that_do_not_wait() -> None:
    window = Window()
    taken = [passes(window, 1, firsts=1000, retries=0)[0] for _ in range(100)]
    assert sum(taken) >= 75
    assert window.is_backlogged


def test_retries_get_their_part_of_passes_that_are_cut() -> None:
    window = Window()
    retries = 0
    for _ in range(40):
        asked = window.split(500)
        got = (asked[0], min(asked[1], 500 - asked[0]))
        window.taken(asked=asked, firsts=got[0], retries=got[1], is_cut=True)
        retries += got[1]
    assert retries >= 40 * 500 * 0.2


def test_retries_that_come_later_are_noticed() -> None:
    window = Window()
    for _ in range(5):
        passes(window, 40, firsts=1000, retries=0)
    taken = [passes(window, 40, firsts=1000, retries=1000)[1] for _ in range(20)]
    assert sum(taken) >= 20 * 40 * 0.2


@given(st.floats(0, 1e6))
def test_a_message_carries_what_is_done_in_thirty_milliseconds_and_never_many(drain: float) -> None:
    count = max_batch(QueuePace(consumers=1, drain_per_s=drain))
    assert 1 <= count <= MAX_POINTERS_PER_MESSAGE
    assert count == 1 or count <= drain * 0.03


def test_what_is_lost_leaves_its_room_also_where_the_broker_has_told_of_more() -> None:
    window = Window()
    window.polled(40, now=0.0, limit=128)
    window.lost(60)
    assert window.ready == 0
    assert window.missing(MIN_WINDOW, relays=1) == MIN_WINDOW
