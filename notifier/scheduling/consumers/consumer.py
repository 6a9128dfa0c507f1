"""One coroutine that takes messages of the lane it is assigned to and carries out attempts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from notifier.domain.notification import QueueKey
from notifier.ports.broker import Delivery
from notifier.scheduling.consumers.buffer import Buffer
from notifier.scheduling.consumers.lane import Lane
from notifier.scheduling.rates.consumer_rate import Pace, Wait
from notifier.scheduling.rates.provider_rate import ProviderRate

NO_RATES: Final[Mapping[QueueKey, ProviderRate]] = MappingProxyType({})


class Consumer:
    """Waits for a message of its lane, then for its turn, then takes it, then carries it out.

    Its turn comes by its own rate and then by its provider's, if there are any. Reassigned, it
    wakes at once if it waits, and finishes first what it carries out.
    """

    def __init__(self, provider_rates: Mapping[QueueKey, ProviderRate] = NO_RATES) -> None:
        self._provider_rates = provider_rates
        self._pace = Pace()
        self._wait = Wait()
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
        self._wait.interrupt()
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
        """Turn a promise of the lane into a message when it is its turn, or pass both on."""
        has_turn = False
        try:
            if lane is self._lane:
                has_turn = self._is_free(lane) or await self._wait.until(self._turn(lane))
        finally:
            # Nothing awaits between here and the hand-over, so the lane cannot change any more.
            may_take = has_turn and lane is self._lane
            if not may_take:
                lane.buffer.renounce()
        delivery = lane.buffer.take() if may_take else None
        if has_turn and delivery is None:
            self._restore_turn(lane)
        return delivery

    def _is_free(self, lane: Lane) -> bool:
        """Whether no rate holds here, as in most attempts: nothing is waited for then."""
        return lane.rule.consumer_rate is None and lane.rule.queue not in self._provider_rates

    async def _turn(self, lane: Lane) -> None:
        queue = lane.rule.queue
        await self._pace.acquire(queue.channel, lane.rule.consumer_rate)
        rate = self._provider_rates.get(queue)
        if rate is not None:
            await rate.acquire(queue.priority)

    def _restore_turn(self, lane: Lane) -> None:
        rate = self._provider_rates.get(lane.rule.queue)
        if rate is not None:
            rate.restore()
