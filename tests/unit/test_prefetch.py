"""How many messages a lane holds, and the size of messages that it is computed from."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.scheduling.consumers.prefetch import MessageSize, is_worth_a_change, prefetch_for

SIZES = st.sampled_from([1, 2, 4, 8, 16, 32, 64])


@pytest.mark.parametrize(
    ("consumers", "rate_per_s", "prefetch"),
    [
        (0, None, 0),
        (1, None, 1),
        (3, None, 4),
        (64, None, 64),
        (65, None, 128),
        (64, 4.0, 20),
        (64, 1 / 60, 1),
        (2, 100.0, 2),
    ],
)
def test_prefetch_is_the_next_power_of_two_within_five_seconds_of_the_rate(
    consumers: int, rate_per_s: float | None, prefetch: int
) -> None:
    assert prefetch_for(consumers, rate_per_s=rate_per_s) == prefetch


@pytest.mark.parametrize(
    ("consumers", "ahead", "prefetch"),
    [(4, 0.0, 4), (4, 3.5, 8), (4, 100.0, 128), (4, 5_000.0, 1_024), (1_500, 5_000.0, 2_048)],
)
def test_what_the_consumers_begin_during_a_claim_is_held_too_up_to_a_limit(
    consumers: int, ahead: float, prefetch: int
) -> None:
    assert prefetch_for(consumers, ahead=ahead) == prefetch


@given(st.integers(1, 10_000), st.floats(0, 10_000), SIZES)
def test_the_pointers_held_are_enough_and_bounded(
    consumers: int, ahead: float, message_size: int
) -> None:
    pointers = prefetch_for(consumers, ahead=ahead)
    messages = prefetch_for(consumers, ahead=ahead, message_size=message_size)
    assert 1 <= messages <= pointers
    if message_size > 1:
        # A second message is there when the first has been taken.
        assert messages * message_size >= min(pointers * message_size, 2 * pointers)
        assert messages * message_size <= 2 * max(pointers, message_size)


@given(st.integers(1, 300), st.integers(0, 400), SIZES.filter(lambda size: size > 1))
def test_a_message_that_waits_for_slow_calls_takes_no_place_of_another(
    consumers: int, tails: int, message_size: int
) -> None:
    without = prefetch_for(consumers, message_size=message_size)
    messages = prefetch_for(consumers, message_size=message_size, tails=tails)
    if tails < consumers:
        assert messages - tails >= without
    # Each tail has at least one call, so there are no more tails than consumers.
    assert messages <= without + 2 * consumers


def test_a_tail_leaves_a_place_at_a_slow_rate_too() -> None:
    assert prefetch_for(1, rate_per_s=0.1, message_size=64) == 1
    assert prefetch_for(1, rate_per_s=0.1, message_size=64, tails=1) == 2


@given(st.floats(0.01, 100), st.integers(1, 300), SIZES)
def test_a_rate_limits_the_pointers_to_five_seconds_of_it(
    rate_per_s: float, consumers: int, message_size: int
) -> None:
    messages = prefetch_for(consumers, rate_per_s=rate_per_s, message_size=message_size)
    assert 1 <= messages <= max(1, rate_per_s * 5)


def test_without_consumers_nothing_is_held() -> None:
    assert prefetch_for(0, ahead=50.0, message_size=16, tails=3) == 0


def test_the_message_size_follows_the_mean_as_a_power_of_two() -> None:
    size = MessageSize()
    assert size.pointers == 1
    size.record(64)
    assert size.pointers == 64
    for _ in range(500):
        size.record(9)
    assert size.pointers == 8
    for _ in range(500):
        size.record(1)
    assert size.pointers == 1


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=300))
def test_a_steady_message_size_settles(pointers: int, is_one_more: list[bool]) -> None:
    """Sizes that differ by one pointer change the result at most once."""
    size = MessageSize()
    for _ in range(500):
        size.record(pointers)
    seen = [size.pointers]
    for more in is_one_more:
        size.record(pointers + more)
        seen.append(size.pointers)
    assert sum(before != after for before, after in pairwise(seen)) <= 1
    assert size.pointers / 2 <= pointers + 1 <= 2 * size.pointers


@pytest.mark.parametrize(
    ("wanted", "present", "is_worth_it"),
    [
        (65, 64, True),
        (64, 64, False),
        (33, 64, False),
        (32, 64, False),
        (31, 64, True),
        (0, 1, True),
        (1, 0, True),
        (0, 0, False),
        (1, 2, False),
    ],
)
def test_a_prefetch_grows_at_once_and_shrinks_below_half(
    wanted: int, present: int, is_worth_it: bool
) -> None:
    assert is_worth_a_change(wanted, present) is is_worth_it
