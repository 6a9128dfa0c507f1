"""Groups of failures: which kinds of failures there were in the last 24 hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from notifier.domain.notification import NotificationId

HOURS: Final = 24
MAX_GROUPS: Final = 100
"""How many groups are shown: those with the most failures."""
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """The failures of the last hours with the same reason, provider and code.

    `provider` and `code` are "" without one. `hours` has a count for each of the HOURS, the oldest
    first. `sample` is the newest notification of the group.
    """

    reason: str
    provider: str
    code: str
    queues: Sequence[str]
    count: int
    first_at: datetime
    last_at: datetime
    hours: Sequence[int]
    sample: NotificationId


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroups:
    """Groups, those with the most failures first, of what failed from `begin_at` on.

    Unless `is_exact`, there are more failures than were read, and each count is a minimum.
    """

    groups: Sequence[FailureGroup]
    begin_at: datetime
    is_exact: bool


def begin_of(now: datetime) -> datetime:
    """Return when the oldest of the HOURS begins. They are hours of UTC up to the present one."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour - (HOURS - 1) * _HOUR


def per_hour(counts: Iterable[tuple[int, int]]) -> Sequence[int]:
    """Return a count for each of the HOURS from pairs of an hour and a part of its count.

    Hours are numbered from the oldest on. One after the last counts as the last: another machine's
    clock may be ahead.
    """
    hours = [0] * HOURS
    for hour, count in counts:
        hours[min(hour, HOURS - 1)] += count
    return hours
