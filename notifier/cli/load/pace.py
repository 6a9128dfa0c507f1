"""When each batch is due: in even steps, by chance (Poisson), or at once."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def instants(rate: float, batch: int, random: Random | None) -> Iterator[float]:
    """Seconds from the start, without end. `rate` counts notifications; 0 is "at once".

    With `random` the gaps are exponential, as of many callers who know nothing of each other.
    """
    at = 0.0
    while True:
        yield at
        if rate > 0:
            gap = batch / rate
            at += random.expovariate(1 / gap) if random else gap
