"""One coroutine that takes messages of the lane it is assigned to and carries out attempts."""

from __future__ import annotations

from notifier.ports import Delivery
from notifier.scheduling.buffer import Buffer
from notifier.scheduling.lane import Lane
from notifier.scheduling.rates import Pace


class Consumer:
    """Waits for a message of its lane, then for its rate, then takes it, then carries it out.

    Reassigned, it wakes at once if it waits, and finishes first what it carries out.
    """

    def __init__(self) -> None:
        self._pace = Pace()
        self._bench = Buffer()
        self._lane: Lane | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it waits and no message was promised to it."""
        return self._buffer.is_idle(self)

    def assign(self, lane: Lane | None) -> None:
        """Work for another lane from now on; None is the bench."""
        if lane is self._lane:
            return
        self._buffer.dismiss(self)
        self._pace.interrupt()
        self._lane = lane

    async def run(self) -> None:
        """Work until cancelled. What an attempt raises ends it, and with it the process."""
        while True:
            lane = self._lane
            if lane is None:
                await self._bench.wait(self)
            elif await lane.buffer.wait(self):
                delivery = await self._redeem(lane)
                if delivery is not None:
                    await lane.carry_out(delivery)

    @property
    def _buffer(self) -> Buffer:
        return self._bench if self._lane is None else self._lane.buffer

    async def _redeem(self, lane: Lane) -> Delivery | None:
        """Turn a promise of the lane into a message once the rate allows it, or pass it on."""
        is_paced = False
        try:
            if lane is self._lane:
                rate_per_s = lane.rule.consumer_rate
                is_paced = await self._pace.acquire(lane.rule.queue.channel, rate_per_s)
        finally:
            # Nothing awaits between here and the hand-over, so the lane cannot change any more.
            may_take = is_paced and lane is self._lane
            if not may_take:
                lane.buffer.renounce()
        return lane.buffer.take() if may_take else None
