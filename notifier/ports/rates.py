"""The schedules of provider rates, which all processes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Reserved slots of a provider's schedule: `count` calls, `spacing_s` apart.

    The first slot is `starts_in_s` after the reply. A `count` of 0 means that the schedule is
    reserved up to there. `rate_per_s` is the present rate, after cuts.
    """

    starts_in_s: float
    spacing_s: float
    count: int
    rate_per_s: float


class RateStore(Protocol):
    """Keeps the schedules of provider rates. Raises StoreUnavailable."""

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        """Reserve the next `count` slots; none if the schedule is reserved 150 ms ahead.

        `rate_per_s` is the rate in the settings.
        """
        ...

    async def cut(self, provider: str) -> bool:
        """Cut the rate to 0.7 of its present value; returns whether it was cut.

        It is cut at most once a second.
        """
        ...
