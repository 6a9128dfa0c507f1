"""How many messages a subscription asks for, so as to hold about so many pointers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.rabbitmq.batch_size import BatchSizeEstimate, Prefetch
from notifier.domain.notification import Channel, Priority, QueueKey

QUEUE = QueueKey(Channel("email"), Priority.LOW)
OTHER = QueueKey(Channel("sms"), Priority.LOW)


def prefetch_of(pointers: int, batch_sizes: float = 1.0) -> Prefetch:
    prefetch = Prefetch()
    prefetch.pointers = pointers
    prefetch.follow(batch_sizes)
    return prefetch


def test_the_mean_comes_near_what_passes_and_forgets_what_passed_before() -> None:
    batch_sizes = BatchSizeEstimate()
    assert (batch_sizes.mean(QUEUE), batch_sizes.pointers(QUEUE, 7)) == (1.0, 7)
    batch_sizes.saw(QUEUE, 16)
    assert batch_sizes.mean(QUEUE) == 16
    batch_sizes.saw(QUEUE, 8)
    assert batch_sizes.mean(QUEUE) == 12
    for _ in range(500):
        batch_sizes.saw(QUEUE, 16)
    assert batch_sizes.mean(QUEUE) == pytest.approx(16, rel=0.01)
    assert batch_sizes.pointers(QUEUE, 10) == 160
    assert batch_sizes.mean(OTHER) == 1.0
    for _ in range(500):
        batch_sizes.saw(QUEUE, 1)
    assert batch_sizes.mean(QUEUE) == pytest.approx(1, rel=0.05)


@given(st.integers(0, 10_000))
def test_messages_of_one_pointer_are_as_many_as_the_pointers(pointers: int) -> None:
    prefetch = prefetch_of(pointers)
    assert prefetch.messages == prefetch.max_held == pointers


@given(st.integers(1, 10_000), st.floats(1, 64))
def test_what_is_held_is_enough_and_bounded(pointers: int, batch_sizes: float) -> None:
    prefetch = prefetch_of(pointers, batch_sizes)
    assert 1 <= prefetch.messages <= pointers
    if pointers > 1:
        assert prefetch.messages >= 2
    assert prefetch.messages * batch_sizes <= prefetch.max_held * 1.5
    assert prefetch.messages * batch_sizes >= min(pointers, 2 * batch_sizes) * 0.9
    assert prefetch.max_held <= 8 * max(pointers, batch_sizes)


def test_nothing_is_held_of_nothing() -> None:
    assert (prefetch_of(0, 16).messages, prefetch_of(0, 16).max_held) == (0, 0)


@given(st.floats(1, 64), st.lists(st.floats(0.95, 1.05), max_size=50))
def test_what_stays_about_the_same_changes_nothing_more(
    batch_sizes: float, wobble: list[float]
) -> None:
    prefetch = prefetch_of(64, 64.0)
    prefetch.follow(batch_sizes)
    settled = [prefetch.follow(batch_sizes * each) for each in wobble]
    assert sum(settled) <= 1
