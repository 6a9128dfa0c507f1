"""The constants of a provider's rate schedule, shared by the workers and by the store's SQL.

A rate is a schedule of calls. Workers reserve slices of it ahead of time. After a "too many
requests" response the rate is multiplied by a factor below 1, which grows back with time.
"""

from __future__ import annotations

from typing import Final

SLICE_S: Final = 0.05
"""A worker reserves at most the calls of this span at once, but at least one call."""
MAX_LEAD_S: Final = 0.15
"""The schedule is reserved at most this far ahead."""
CUT_FACTOR: Final = 0.7
MIN_FACTOR: Final = 0.05
REGROWTH_PER_S: Final = 0.05
CUT_INTERVAL_S: Final = 1.0
"""A rate is cut at most once in this interval: later responses answer calls made before the cut."""


def max_reach_s(rate_per_s: float) -> float:
    """Return how far ahead the end of the schedule can be, at the lowest rate.

    A slice holds the calls of `SLICE_S`, rounded up to whole calls. At the lowest factor its calls
    are `1 / (MIN_FACTOR * rate_per_s)` seconds apart.
    """
    return MAX_LEAD_S + (SLICE_S * rate_per_s + 1) / (MIN_FACTOR * rate_per_s)
