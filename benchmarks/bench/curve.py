"""Figures from samples of a job log. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import TypeVar

from harness.judge import percentile

T = TypeVar("T")
Sample = tuple[float, int]
"""A time and the number of jobs done by then."""
Figures = Mapping[str, float]


def throughput(samples: Sequence[Sample], count: int) -> float:
    """Return the rate between the 10th and the 90th percentile of `count` completions."""
    first, last = count * 0.1, count * 0.9
    return (last - first) / (crossing(samples, last) - crossing(samples, first))


def crossing(samples: Sequence[Sample], many: float) -> float:
    """Return when `count` jobs were done, interpolated between two samples."""
    for (before, few), (after, more) in pairwise(samples):
        if few < many <= more:
            return before + (after - before) * (many - few) / (more - few)
    raise ValueError(f"never came to {many:g}")


def points(figures: Mapping[str, T]) -> Mapping[int, T]:
    """Return the figures named `<x>_per_s` by x."""
    rates = {name.removesuffix("_per_s"): value for name, value in figures.items()}
    return {int(x): value for x, value in rates.items() if x.isdigit()}


def waits_of(log: str, queue: str) -> list[tuple[float, float]]:
    """Return, for each started job of a queue, its submit time and its wait in seconds."""
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
