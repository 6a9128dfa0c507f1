"""A coroutine that takes messages from the lane it is assigned to and runs attempts."""

from __future__ import annotations

from collections.abc import Mapping

from notifier.domain.notification import QueueKey
from notifier.ports.broker import Delivery
from notifier.scheduling.consumers.buffer import Buffer
from notifier.scheduling.consumers.lane import Lane
from notifier.scheduling.rates.consumer_rate import ConsumerRate, InterruptibleWait
from notifier.scheduling.rates.provider_rate import ProviderRate


class Consumer:
    """Waits for a message of its lane, then for its rates, then takes the message and runs it.

    It waits for its own rate first and then for its provider's, where they exist. A reassigned
    consumer stops waiting at once; one in an attempt finishes the attempt first.
    """

    def __init__(self, provider_rates: Mapping[QueueKey, ProviderRate]) -> None:
        self._provider_rates = provider_rates
        self._own_rate = ConsumerRate()
        self._rate_wait = InterruptibleWait()
        self._unassigned = Buffer()
        self._lane: Lane | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it waits without an offer."""
        return self._place.is_waiting(self)

    def assign(self, lane: Lane | None) -> None:
        """Work for another lane from now on; None unassigns the consumer."""
        if lane is self._lane:
            return
        self._place.dismiss(self)
        self._rate_wait.interrupt()
        self._lane = lane

    async def run(self) -> None:
        """Work until cancelled. An error of an attempt ends the consumer, and so the process."""
        while True:
            lane = self._lane
            if lane is None:
                await self._unassigned.wait(self)
            elif await lane.wait(self):
                delivery = await self._take(lane)
                if delivery is not None:
                    await lane.run_attempt(delivery)

    @property
    def _place(self) -> Buffer | Lane:
        return self._unassigned if self._lane is None else self._lane

    async def _take(self, lane: Lane) -> Delivery | None:
        """Take the offered message when the rates allow it, or pass offer and slot on."""
        has_slot = False
        try:
            if lane is self._lane:
                has_slot = self._has_no_rate(lane) or await self._rate_wait.wait_for(
                    self._acquire_slots(lane)
                )
        finally:
            # The lane cannot change from here on: no await follows before the message is taken.
            may_take = has_slot and lane is self._lane
            if not may_take:
                lane.decline()
        delivery = lane.take() if may_take else None
        if has_slot and delivery is None:
            self._restore_slot(lane)
        return delivery

    def _has_no_rate(self, lane: Lane) -> bool:
        # The usual case: it saves most attempts a wait.
        return lane.rule.consumer_rate is None and lane.rule.queue not in self._provider_rates

    async def _acquire_slots(self, lane: Lane) -> None:
        queue = lane.rule.queue
        await self._own_rate.acquire(queue.channel, lane.rule.consumer_rate)
        rate = self._provider_rates.get(queue)
        if rate is not None:
            await rate.acquire(queue.priority)

    def _restore_slot(self, lane: Lane) -> None:
        rate = self._provider_rates.get(lane.rule.queue)
        if rate is not None:
            rate.restore()
