"""Compares the statuses and calls of all notifications with the plan. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.demo.plan import FATES, Fate, PlannedNotification


@dataclass(frozen=True, slots=True, kw_only=True)
class FateTotals:
    """The notifications of one fate. `wrong` differ from the plan in status or number of calls."""

    fate: Fate
    submitted: int
    sent: int
    failed: int
    calls: int
    wrong: int


def compare(
    planned: Mapping[str, PlannedNotification],
    statuses: Mapping[str, str],
    calls: Mapping[str, int],
) -> Sequence[FateTotals]:
    """Compare the API's statuses and the sandbox's calls with the plan, for each notification.

    All three are by id. An id that is missing in `statuses` or `calls` counts as wrong.
    """
    return [_totals(fate, planned, statuses, calls) for fate in FATES]


def unknown_calls(planned: Mapping[str, PlannedNotification], calls: Mapping[str, int]) -> int:
    """Count the calls in the sandbox's log that belong to no planned notification."""
    return sum(count for id_, count in calls.items() if id_ not in planned)


def _totals(
    fate: Fate,
    planned: Mapping[str, PlannedNotification],
    statuses: Mapping[str, str],
    calls: Mapping[str, int],
) -> FateTotals:
    ids = [id_ for id_, notification in planned.items() if notification.fate is fate]
    results = [(statuses.get(id_, "unknown"), calls.get(id_, 0)) for id_ in ids]
    return FateTotals(
        fate=fate,
        submitted=len(ids),
        sent=sum(status == "sent" for status, _ in results),
        failed=sum(status == "failed" for status, _ in results),
        calls=sum(count for _, count in results),
        wrong=sum(result != (fate.status, fate.calls) for result in results),
    )
