"""Which messages of one channel are held, and the fewest acks that settle a batch of them.

Pure. A channel numbers its deliveries 1, 2, 3, ... over all its consumers. An ack with `multiple`
settles everything up to its tag, so it is used only where everything up to there is settled; and
its own tag must still be unsettled, or RabbitMQ closes the channel ("unknown delivery tag").
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
        self._held: set[int] = set()
        self._settled_above: set[int] = set()
        self._settled_up_to = 0
        self._batch: list[int] = []

    @property
    def held(self) -> int:
        """How many messages are delivered and not settled."""
        return len(self._held)

    def deliver(self, tag: int) -> None:
        """The broker handed out this tag."""
        self._held.add(tag)

    def settle(self, tag: int) -> bool:
        """Put a tag into the next batch; False if it is not held (settled before)."""
        if tag not in self._held:
            return False
        self._held.remove(tag)
        self._batch.append(tag)
        return True

    def take_batch(self) -> list[Ack]:
        """What must be sent for all tags settled since the last call."""
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
