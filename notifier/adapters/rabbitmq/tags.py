"""The delivery tags of a channel, and the fewest acks that settle a batch.

Pure. A channel numbers its deliveries 1, 2, 3, ... over all its consumers. An ack with `multiple`
settles every tag up to its own, so it is used only where all of those are settled. Its own tag must
still be unsettled, or RabbitMQ closes the channel ("unknown delivery tag").
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ack:
    """One ack to be sent."""

    tag: int
    multiple: bool


class DeliveryTags:
    """The delivery tags of one channel, from its first delivery on."""

    def __init__(self) -> None:
        self._unsettled: set[int] = set()
        self._settled_above: set[int] = set()
        self._settled_up_to = 0
        self._batch: list[int] = []

    def deliver(self, tag: int) -> None:
        """Record a delivery."""
        self._unsettled.add(tag)

    def settle(self, tag: int) -> bool:
        """Put a tag into the next batch; return False if it is unknown or settled before."""
        if tag not in self._unsettled:
            return False
        self._unsettled.remove(tag)
        self._batch.append(tag)
        return True

    def returned(self, tag: int) -> None:
        """Record that a tag was put back: the broker no longer counts it as delivered."""
        self._unsettled.discard(tag)
        self._settled_above.add(tag)

    def take_batch(self) -> list[Ack]:
        """Return the acks that settle all tags put into the batch since the last call."""
        batch, self._batch = self._batch, []
        self._settled_above.update(batch)
        while self._settled_up_to + 1 in self._settled_above:
            self._settled_up_to += 1
            self._settled_above.remove(self._settled_up_to)
        prefix = [tag for tag in batch if tag <= self._settled_up_to]
        acks = [Ack(tag, multiple=False) for tag in batch if tag > self._settled_up_to]
        if prefix:
            acks.append(Ack(max(prefix), multiple=len(prefix) > 1))
        return acks
