"""The due times of the batches: even steps, random (Poisson), or all at once."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def due_times(rate: float, batch: int, random: Random | None) -> Iterator[float]:
    """Yield the due time of each batch, in seconds from the start, without end.

    `rate` is notifications per second; 0 makes every batch due at 0. With `random` the gaps are
    exponentially distributed, as those of many independent callers.
    """
    due_at = 0.0
    while True:
        yield due_at
        if rate > 0:
            gap = batch / rate
            due_at += random.expovariate(1 / gap) if random else gap
