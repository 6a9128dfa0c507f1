"""A coroutine that takes rows from the lane it is assigned to and runs attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Final

from notifier.domain.notification import QueueKey
from notifier.lifecycle import Clock
from notifier.ports.attempts import ClaimedRow
from notifier.scheduling.consumers.buffer import Buffer
from notifier.scheduling.consumers.lane import Lane
from notifier.scheduling.rates.consumer_rate import ConsumerRate, InterruptibleWait
from notifier.scheduling.rates.provider_rate import ProviderRate
from notifier.scheduling.rates.slots import SLOT_VALID_S

MAX_ATTEMPTS_IN_A_ROW: Final = 32
"""A consumer yields to the event loop after this many attempts: calls that return at once never
yield by themselves."""


class Consumer:
    """Waits for an offer of its lane, then for its rates, then takes the row and runs its attempt.

    It waits for its own rate first and then for its provider's, where they exist. A reassigned
    consumer stops waiting at once; one in an attempt finishes the attempt first.
    """

    def __init__(self, provider_rates: Mapping[QueueKey, ProviderRate], *, clock: Clock) -> None:
        self._provider_rates = provider_rates
        self._clock = clock
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
        attempts = 0
        while True:
            lane = self._lane
            if lane is None:
                await self._unassigned.wait(self)
            elif await lane.wait(self):
                if lane is not self._lane:
                    lane.decline()
                    continue
                row = await self._take_at_rate(lane) if lane.rule.has_rate else lane.take()
                if row is not None:
                    await lane.run_attempt(row)
                    attempts += 1
                    if attempts % MAX_ATTEMPTS_IN_A_ROW == 0:
                        await asyncio.sleep(0)

    @property
    def _place(self) -> Buffer | Lane:
        return self._unassigned if self._lane is None else self._lane

    async def _take_at_rate(self, lane: Lane) -> ClaimedRow | None:
        """Take a row for the offer when the rates allow it, or pass offer and slot on."""
        lane.pass_on()
        if await self._has_slot(lane, self._acquire_slots(lane)):
            return await self._take_or_claim(lane)
        return None

    async def _has_slot(self, lane: Lane, acquire: Awaitable[None]) -> bool:
        """Wait for a slot; without it, or if the consumer is moved, the offer is passed on."""
        has_slot = may_take = False
        try:
            has_slot = await self._rate_wait.wait_for(acquire)
            may_take = has_slot and lane is self._lane
        finally:
            if not may_take:
                lane.decline()
        if has_slot and not may_take:
            self._restore_slot(lane)
        return may_take

    async def _take_or_claim(self, lane: Lane) -> ClaimedRow | None:
        """Take a row with the slot just acquired.

        If its claim was late, the slot has passed, and all consumers that waited for the same claim
        would call at once: the row goes back into the buffer until there is another slot.
        """
        rate = self._provider_rates.get(lane.queue)
        while True:
            row = lane.take()
            if row is not None:
                return row
            slot_at = self._clock()
            row = await lane.wait_for_claim(self)
            wait_s = self._clock() - slot_at
            if row is None:
                if wait_s <= SLOT_VALID_S:  # later it would be one call too many in a second
                    self._restore_slot(lane)
                return None
            is_late = lane.claim_lateness.is_late(wait_s)
            if rate is None or not is_late or wait_s <= _always_in_time_s(rate):
                return row
            lane.put_back(row)
            if not await self._has_slot(lane, rate.acquire(None)):
                return None

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


def _always_in_time_s(rate: ProviderRate) -> float:
    """How long after its slot a call may begin without two calls in one second.

    Above 0 only at rates below one call a second. There a row would go back before its next slot,
    and again after each slow claim.
    """
    return 1 / rate.rate_per_s - 1
