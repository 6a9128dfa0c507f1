"""The schedules of provider rates, shared by all processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A piece of a provider's schedule: `count` calls, `spacing_s` apart.

    The first is due `starts_in_s` after the answer. A `count` of 0 says that the schedule is given
    away up to there. `rate_per_s` is the rate now, after cuts.
    """

    starts_in_s: float
    spacing_s: float
    count: int
    rate_per_s: float


class RateStore(Protocol):
    """The schedules of provider rates. Raises StoreUnavailable."""

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        """The next `count` calls of the schedule; none if it is given away 150 ms ahead."""
        ...

    async def cut(self, provider: str) -> bool:
        """The provider said "too fast": 0.7 of what it was, at most once a second."""
        ...
