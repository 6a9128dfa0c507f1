"""Drain workload by number of worker processes."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.bench.curve import Figures
from benchmarks.bench.draining import AT_ITS_BEST, drain
from benchmarks.bench.place import Servers
from benchmarks.bench.systems import NOTIFIER

PROCESSES = (1, 2, 4)


def processes(servers: Servers, count: int) -> Figures:
    """No-op sends with 1, 2 and 4 worker processes."""
    return {
        f"{number}_per_s": drain(servers, NOTIFIER, count, replace(AT_ITS_BEST, processes=number))[
            "per_s"
        ]
        for number in PROCESSES
    }
