"""Batched acks: whatever is settled in whatever order, RabbitMQ would take every ack."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.rabbitmq.tags import Ack, DeliveryTags


class _Channel:
    """RabbitMQ's side: an ack must name an unacked tag; `multiple` takes all up to it."""

    def __init__(self, delivered: int) -> None:
        self.unacked = set(range(1, delivered + 1))

    def take(self, ack: Ack) -> None:
        assert ack.tag in self.unacked, f"PRECONDITION_FAILED - unknown delivery tag {ack.tag}"
        if ack.multiple:
            self.unacked -= set(range(1, ack.tag + 1))
        else:
            self.unacked.remove(ack.tag)


def _tags(delivered: int) -> DeliveryTags:
    tags = DeliveryTags()
    for tag in range(1, delivered + 1):
        tags.deliver(tag)
    return tags


@given(st.data())
def test_exactly_what_was_settled_is_acked_in_any_order_and_any_batches(
    data: st.DataObject,
) -> None:
    delivered = data.draw(st.integers(1, 40))
    order = data.draw(st.permutations(range(1, delivered + 1)))
    settled = order[: data.draw(st.integers(0, delivered))]
    tags, channel = _tags(delivered), _Channel(delivered)
    for tag in settled:
        assert tags.settle(tag)
        if data.draw(st.booleans()):
            for ack in tags.take_batch():
                channel.take(ack)
    for ack in tags.take_batch():
        channel.take(ack)
    assert channel.unacked == set(range(1, delivered + 1)) - set(settled)
    assert tags.held == delivered - len(settled)


def test_a_complete_prefix_is_acked_at_once() -> None:
    tags = _tags(100)
    for tag in range(1, 101):
        tags.settle(tag)
    assert tags.take_batch() == [Ack(100, multiple=True)]


def test_a_gap_is_never_acked_over() -> None:
    tags = _tags(3)
    tags.settle(1)
    tags.settle(3)
    assert set(tags.take_batch()) == {Ack(1, multiple=False), Ack(3, multiple=False)}


def test_a_prefix_that_ends_in_an_acked_tag_is_not_acked_by_that_tag() -> None:
    tags = _tags(3)
    tags.settle(3)
    tags.take_batch()
    tags.settle(1)
    tags.settle(2)
    assert tags.take_batch() == [Ack(2, multiple=True)]


def test_a_tag_is_settled_once() -> None:
    tags = _tags(1)
    assert tags.settle(1)
    assert not tags.settle(1)
    assert tags.take_batch() == [Ack(1, multiple=False)]
    assert tags.take_batch() == []
