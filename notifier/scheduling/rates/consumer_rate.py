"""How fast one consumer may go, and how much a lane may hold because of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import floor
from typing import Final

from aiolimiter import AsyncLimiter

from notifier.domain.notification import Channel

SMOOTH_UP_TO_PER_S: Final = 10.0
CLAIM_JITTER_S: Final = 0.03
BURST_S: Final = 0.05
HOLD_S: Final = 5.0


def burst(rate_per_s: float) -> float:
    """How far above its rate a consumer may go in any one second.

    A leaky bucket of b lets b pass at once and `rate` a second besides. Up to 10/s there is no
    burst; above, it is two or 50 ms of the rate, because at such a pace a bucket of one loses to
    the lateness of the event loop.
    """
    return 0.0 if rate_per_s <= SMOOTH_UP_TO_PER_S else max(2.0, BURST_S * rate_per_s)


def consumer_limiter(rate_per_s: float) -> AsyncLimiter:
    """The limiter of one consumer on one channel.

    Up to 10/s it is a bucket of one, that is even spacing, and 30 ms a second slower than asked:
    the claim between limiter and provider takes now more and now less, and the provider should
    count no more than the rate in any second either.
    """
    bucket = burst(rate_per_s)
    if bucket:
        return AsyncLimiter(bucket, bucket / rate_per_s)
    return AsyncLimiter(1, 1 / rate_per_s + CLAIM_JITTER_S / max(1.0, rate_per_s))


def prefetch_for(consumers: int, rate_per_s: float | None) -> int:
    """What a lane may hold unacked: the next power of two, but no more than 5 s of its rate."""
    if consumers <= 0:
        return 0
    prefetch: int = 1 << (consumers - 1).bit_length()
    if rate_per_s is None:
        return prefetch
    return max(1, min(prefetch, floor(rate_per_s * HOLD_S)))


class Wait:
    """One consumer's wait for its turn, which somebody else may end."""

    def __init__(self) -> None:
        self._deadline: asyncio.Timeout | None = None

    async def until(self, turn: Awaitable[None]) -> bool:
        """Wait for the turn; False if interrupted before it."""
        try:
            async with asyncio.timeout(None) as self._deadline:
                await turn
        except TimeoutError:
            return False
        finally:
            self._deadline = None
        return True

    def interrupt(self) -> None:
        """End a wait that is going on, by a cancellation inside of it."""
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())


class Pace:
    """One consumer's limiters, one a channel, kept for its life: moving gives no new burst."""

    def __init__(self) -> None:
        self._limiters: dict[tuple[Channel, float], AsyncLimiter] = {}

    async def acquire(self, channel: Channel, rate_per_s: float | None) -> None:
        """Wait for this consumer's next slot on the channel; cancelled, the slot stays free."""
        if rate_per_s is None:
            return
        limiter = self._limiters.get((channel, rate_per_s))
        if limiter is None:
            limiter = self._limiters[channel, rate_per_s] = consumer_limiter(rate_per_s)
        await limiter.acquire()
