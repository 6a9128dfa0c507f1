"""How many messages a subscription asks for, so as to hold about so many pointers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.rabbitmq.batch_size import Carried, Prefetch
from notifier.domain.notification import Channel, Priority, QueueKey

QUEUE = QueueKey(Channel("email"), Priority.LOW)
OTHER = QueueKey(Channel("sms"), Priority.LOW)


def prefetch_of(pointers: int, carried: float = 1.0) -> Prefetch:
    prefetch = Prefetch()
    prefetch.pointers = pointers
    prefetch.follow(carried)
    return prefetch


def test_the_mean_comes_near_what_passes_and_forgets_what_passed_before() -> None:
    carried = Carried()
    assert (carried.mean(QUEUE), carried.pointers(QUEUE, 7)) == (1.0, 7)
    carried.saw(QUEUE, 16)
    assert carried.mean(QUEUE) == 16
    carried.saw(QUEUE, 8)
    assert carried.mean(QUEUE) == 12
    for _ in range(500):
        carried.saw(QUEUE, 16)
    assert carried.mean(QUEUE) == pytest.approx(16, rel=0.01)
    assert carried.pointers(QUEUE, 10) == 160
    assert carried.mean(OTHER) == 1.0
    for _ in range(500):
        carried.saw(QUEUE, 1)
    assert carried.mean(QUEUE) == pytest.approx(1, rel=0.05)


@given(st.integers(0, 10_000))
def test_messages_of_one_pointer_are_as_many_as_the_pointers(pointers: int) -> None:
    prefetch = prefetch_of(pointers)
    assert prefetch.messages == prefetch.held_most == pointers


@given(st.integers(1, 10_000), st.floats(1, 64))
def test_what_is_held_is_enough_and_bounded(pointers: int, carried: float) -> None:
    prefetch = prefetch_of(pointers, carried)
    assert 1 <= prefetch.messages <= pointers
    if pointers > 1:
        assert prefetch.messages >= 2
    assert prefetch.messages * carried <= prefetch.held_most * 1.5
    assert prefetch.messages * carried >= min(pointers, 2 * carried) * 0.9
    assert prefetch.held_most <= 8 * max(pointers, carried)


def test_nothing_is_held_of_nothing() -> None:
    assert (prefetch_of(0, 16).messages, prefetch_of(0, 16).held_most) == (0, 0)


@given(st.floats(1, 64), st.lists(st.floats(0.95, 1.05), max_size=50))
def test_what_stays_about_the_same_changes_nothing_more(
    carried: float, wobble: list[float]
) -> None:
    prefetch = prefetch_of(64, 64.0)
    prefetch.follow(carried)
    settled = [prefetch.follow(carried * each) for each in wobble]
    assert sum(settled) <= 1
