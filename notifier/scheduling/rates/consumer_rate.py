"""The rate of one consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from aiolimiter import AsyncLimiter

from notifier.domain.notification import Channel

MAX_EVEN_RATE_PER_S: Final = 10.0
CLAIM_JITTER_S: Final = 0.03
BURST_S: Final = 0.05


def burst(rate_per_s: float) -> float:
    """The calls by which a consumer may exceed its rate in any one second.

    A leaky bucket of size b lets b calls pass at once and `rate_per_s` per second besides. Up to
    10/s there is no burst. Above, it is 50 ms of the rate and at least 2, because at that pace a
    bucket of one would lose slots to the lateness of the event loop.
    """
    return 0.0 if rate_per_s <= MAX_EVEN_RATE_PER_S else max(2.0, BURST_S * rate_per_s)


def consumer_limiter(rate_per_s: float) -> AsyncLimiter:
    """The limiter of one consumer on one channel.

    Up to 10/s it is a bucket of one, which spaces calls evenly, and 30 ms per second slower than
    configured: the claim between limiter and provider takes a varying time, and the provider must
    not count more than the rate in any second either.
    """
    bucket = burst(rate_per_s)
    if bucket:
        return AsyncLimiter(bucket, bucket / rate_per_s)
    return AsyncLimiter(1, 1 / rate_per_s + CLAIM_JITTER_S / max(1.0, rate_per_s))


class InterruptibleWait:
    """A wait of one consumer that another task may end."""

    def __init__(self) -> None:
        self._deadline: asyncio.Timeout | None = None

    async def wait_for(self, awaitable: Awaitable[None]) -> bool:
        """Await it; False if `interrupt` came first."""
        try:
            async with asyncio.timeout(None) as self._deadline:
                await awaitable
        except TimeoutError:
            return False
        finally:
            self._deadline = None
        return True

    def interrupt(self) -> None:
        """End the current wait, if any, by cancelling its awaitable."""
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())


class ConsumerRate:
    """The limiters of one consumer, one per channel.

    They live as long as the consumer: being moved gives it no new burst.
    """

    def __init__(self) -> None:
        self._limiters: dict[tuple[Channel, float], AsyncLimiter] = {}

    async def acquire(self, channel: Channel, rate_per_s: float | None) -> None:
        """Wait for the consumer's next slot on the channel; cancelled, the slot stays unused."""
        if rate_per_s is None:
            return
        limiter = self._limiters.get((channel, rate_per_s))
        if limiter is None:
            limiter = self._limiters[channel, rate_per_s] = consumer_limiter(rate_per_s)
        await limiter.acquire()
