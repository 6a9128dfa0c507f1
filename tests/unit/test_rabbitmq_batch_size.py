"""The estimate of pointers per message, and the prefetch computed from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.rabbitmq.batch_size import BatchSizeEstimate, Prefetch
from notifier.domain.notification import Channel, Priority, QueueKey

QUEUE = QueueKey(Channel("email"), Priority.LOW)
OTHER = QueueKey(Channel("sms"), Priority.LOW)


def prefetch_of(pointers: int, batch_size: float = 1.0) -> Prefetch:
    prefetch = Prefetch()
    prefetch.pointers = pointers
    prefetch.follow(batch_size)
    return prefetch


def test_the_mean_follows_the_last_messages() -> None:
    batch_sizes = BatchSizeEstimate()
    assert (batch_sizes.mean(QUEUE), batch_sizes.pointers(QUEUE, 7)) == (1.0, 7)
    batch_sizes.record(QUEUE, 16)
    assert batch_sizes.mean(QUEUE) == 16
    batch_sizes.record(QUEUE, 8)
    assert batch_sizes.mean(QUEUE) == 12
    for _ in range(500):
        batch_sizes.record(QUEUE, 16)
    assert batch_sizes.mean(QUEUE) == pytest.approx(16, rel=0.01)
    assert batch_sizes.pointers(QUEUE, 10) == 160
    assert batch_sizes.mean(OTHER) == 1.0
    for _ in range(500):
        batch_sizes.record(QUEUE, 1)
    assert batch_sizes.mean(QUEUE) == pytest.approx(1, rel=0.05)


@given(st.integers(0, 10_000))
def test_with_one_pointer_per_message_the_prefetch_is_in_pointers(pointers: int) -> None:
    prefetch = prefetch_of(pointers)
    assert prefetch.messages == prefetch.max_held == pointers


@given(st.integers(1, 10_000), st.floats(1, 64))
def test_the_pointers_held_are_enough_and_bounded(pointers: int, batch_size: float) -> None:
    prefetch = prefetch_of(pointers, batch_size)
    assert 1 <= prefetch.messages <= pointers
    if pointers > 1:
        assert prefetch.messages >= 2
    assert prefetch.messages * batch_size <= prefetch.max_held * 1.5
    assert prefetch.messages * batch_size >= min(pointers, 2 * batch_size) * 0.9
    assert prefetch.max_held <= 8 * max(pointers, batch_size)


def test_a_prefetch_of_zero_holds_nothing() -> None:
    assert (prefetch_of(0, 16).messages, prefetch_of(0, 16).max_held) == (0, 0)


@given(st.floats(1, 64), st.lists(st.floats(0.95, 1.05), max_size=50))
def test_a_steady_batch_size_does_not_change_the_prefetch_again(
    batch_size: float, variations: list[float]
) -> None:
    prefetch = prefetch_of(64, 64.0)
    prefetch.follow(batch_size)
    settled = [prefetch.follow(batch_size * factor) for factor in variations]
    assert sum(settled) <= 1
