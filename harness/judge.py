"""Figures computed from the sandbox's log of calls. Pure, so that tests can check them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

Call = Mapping[str, Any]


def instants(calls: Iterable[Call], ids: Collection[str] | None = None) -> list[float]:
    """Return when these calls arrived, oldest first, in seconds since the epoch."""
    found = (call for call in calls if ids is None or call["notification_id"] in ids)
    return sorted(_instant(call["at"]) for call in found)


def first_calls(calls: Iterable[Call]) -> dict[str, float]:
    """Return the time of the first call of each notification."""
    first = dict[str, float]()
    for call in calls:
        which, at = call["notification_id"], _instant(call["at"])
        first[which] = min(at, first.get(which, at))
    return first


def waits(since: Mapping[str, float], called: Mapping[str, float]) -> list[float]:
    """Return the milliseconds from each of these instants to the call of the same notification."""
    return [(called[which] - at) * 1000 for which, at in since.items()]


def times_accepted(calls: Iterable[Call]) -> Counter[str]:
    """Count how often each notification was accepted."""
    return Counter(call["notification_id"] for call in calls if call["accepted"])


def doubled(accepted: Mapping[str, int]) -> set[str]:
    return {which for which, count in accepted.items() if count > 1}


def unexplained_repeats(accepted: Mapping[str, int], in_flight: Collection[str]) -> int:
    """Count repeated sends, less one for each notification that was in flight."""
    return sum(max(0, count - 1 - (which in in_flight)) for which, count in accepted.items())


def max_in_any_second(at: Sequence[float]) -> int:
    """Return the largest number of calls in any span of one second; `at` is sorted."""
    return max((bisect_left(at, start + 1) - n for n, start in enumerate(at)), default=0)


def count_within(at: Sequence[float], start: float, end: float) -> int:
    """Count the sorted instants in [`start`, `end`)."""
    return bisect_left(at, end) - bisect_left(at, start)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of at least one value."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def _instant(at: datetime) -> float:
    return at.timestamp()
