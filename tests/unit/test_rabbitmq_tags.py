"""Batched acks: RabbitMQ would accept every ack, in whatever order messages are settled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.rabbitmq.tags import Ack, DeliveryTags


class _Channel:
    """A channel in RabbitMQ: an ack must name an unacked tag; `multiple` settles all up to it."""

    def __init__(self, delivered: int) -> None:
        self.unacked = set(range(1, delivered + 1))

    def accept(self, ack: Ack) -> None:
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
def test_exactly_the_settled_tags_are_acked_in_any_order_and_any_batches(
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
                channel.accept(ack)
    for ack in tags.take_batch():
        channel.accept(ack)
    assert channel.unacked == set(range(1, delivered + 1)) - set(settled)
    assert not any(tags.settle(tag) for tag in settled)
    assert sum(tags.settle(tag) for tag in range(1, delivered + 1)) == delivered - len(settled)


def test_a_complete_prefix_takes_one_ack() -> None:
    tags = _tags(100)
    for tag in range(1, 101):
        tags.settle(tag)
    assert tags.take_batch() == [Ack(100, multiple=True)]


def test_no_ack_settles_a_gap() -> None:
    tags = _tags(3)
    tags.settle(1)
    tags.settle(3)
    assert set(tags.take_batch()) == {Ack(1, multiple=False), Ack(3, multiple=False)}


def test_a_prefix_that_ends_in_an_acked_tag_is_acked_by_an_unsettled_tag() -> None:
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
