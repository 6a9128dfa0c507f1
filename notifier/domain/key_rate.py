"""The rate of a key: a bucket of tokens, one for each notification and each other call.

That of a tenant is another one, for the notifications that its keys submit.

It holds what comes in a second, but at least one token. A call passes if the bucket has as many
tokens as it costs, or is full: a batch may cost more than the bucket holds, and leaves a debt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MIN_RATE_PER_S: Final = 0.00001
"""About one call a day. The debt of a batch is then a span that Postgres can add to an instant."""
MAX_RATE_PER_S: Final = 1_000_000.0
MAX_BATCH: Final = 10_000
"""Notifications of the largest batch that the settings allow: no call costs more."""
SLICE_S: Final = 0.1
"""A process takes the tokens of so long a time at once, for its next calls."""
MIN_SLICED_RATE: Final = 10.0
"""Below this rate a slice is less than one token: each call asks Postgres."""
UNUSED_S: Final = 1.0
"""How long a process keeps the tokens of a slice."""


def usable_rate(stored: float) -> float:
    """Return a stored rate, or the nearest one that a key can be held to; the least for NaN."""
    return min(max(MIN_RATE_PER_S, stored), MAX_RATE_PER_S)


def burst(rate_per_s: float) -> float:
    """Return how many tokens the bucket holds."""
    return max(1.0, rate_per_s)


def slice_tokens(rate_per_s: float) -> float:
    """Return how many tokens a process takes in advance."""
    return rate_per_s * SLICE_S if rate_per_s >= MIN_SLICED_RATE else 0.0


class RateHolder(StrEnum):
    """What has a rate, as the headers name it."""

    KEY = "key"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What is left of a rate after a call, as this process knows it.

    `retry_after_s` is 0 if the call has passed. `holder` is what has the rate, a key or a tenant.
    """

    rate_per_s: float
    left: float
    retry_after_s: float = 0.0
    holder: RateHolder = RateHolder.KEY

    @property
    def policy(self) -> str:
        """The value of `RateLimit-Policy`."""
        quota = math.floor(burst(self.rate_per_s))
        return f'"{self.holder}";q={quota};w={math.ceil(quota / self.rate_per_s)}'

    @property
    def state(self) -> str:
        """The value of `RateLimit`: what is left, and the seconds until all is back."""
        missing = burst(self.rate_per_s) - self.left
        left, full_in_s = max(0, math.floor(self.left)), math.ceil(missing / self.rate_per_s)
        return f'"{self.holder}";r={left};t={max(0, full_in_s)}'
