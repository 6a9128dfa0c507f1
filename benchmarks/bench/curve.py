"""From what was seen of a running job log to figures: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import TypeVar

from harness.judge import percentile

T = TypeVar("T")
Sample = tuple[float, int]
"""An instant, and how many had been done by then."""
Figures = Mapping[str, float]


def throughput(samples: Sequence[Sample], count: int) -> float:
    """How many a second between the tenth and the ninetieth percentile of `count` completions."""
    first, last = count * 0.1, count * 0.9
    return (last - first) / (crossing(samples, last) - crossing(samples, first))


def crossing(samples: Sequence[Sample], many: float) -> float:
    """When so many had been done, read off the straight line between two samples."""
    for (before, few), (after, more) in pairwise(samples):
        if few < many <= more:
            return before + (after - before) * (many - few) / (more - few)
    raise ValueError(f"never came to {many:g}")


def points(figures: Mapping[str, T]) -> Mapping[int, T]:
    """Of figures that are named `<x>_per_s`, each by its x."""
    rates = {name.removesuffix("_per_s"): value for name, value in figures.items()}
    return {int(x): value for x, value in rates.items() if x.isdigit()}


def waits_of(log: str, queue: str) -> list[tuple[float, float]]:
    """Of each job of a queue that has begun: when it was submitted, and the seconds until then."""
    waits = list[tuple[float, float]]()
    for line in log.splitlines():
        which, submitted_at, began_at = line.split()
        if which == queue:
            waits.append((float(submitted_at), float(began_at) - float(submitted_at)))
    return waits


def latencies(waits: Sequence[float], suffix: str = "") -> Figures:
    return {
        f"p50{suffix}_ms": median(waits) * 1000,
        f"p99{suffix}_ms": percentile(waits, 0.99) * 1000,
    }
