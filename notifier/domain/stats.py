"""Statistics: what happened in a minute, an hour or a day, by queue, tag and provider.

How long calls waited and took is kept as a histogram with fixed bounds, so that the histograms of
many rows can be added.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

BUCKETS_PER_DOUBLING: Final = 4
BOUNDS_S: Final = tuple(round(0.001 * 2 ** (n / BUCKETS_PER_DOUBLING), 9) for n in range(106))
"""The bounds between buckets, from 1 ms to 22 hours. A bucket is 19 % wide; so a quantile is at
most as far from the exact one, and 1 ms below the first bound."""
MAX_TAGS: Final = 200
"""How many tags of a tenant are counted by themselves in an hour."""
OTHER: Final = "other"
"""Counts for the tags beyond these."""
CALL: Final = "call"
"""A call of a provider that was recorded. If it was accepted, the notification is sent."""
REFUSED: Final = "refused"
COUNTED: Final = (
    "accepted",
    "sent",
    "delivered",
    "undelivered",
    "failed",
    REFUSED,
    "expired",
    "cancelled",
    "suppressed",
)
"""What is counted. REFUSED is a part of failed."""


class Step(StrEnum):
    """The length of the spans in which things are counted, in UTC."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def span(self) -> timedelta:
        """How long one lasts."""
        return _SPANS[self]

    def begin(self, at: datetime) -> datetime:
        """Return when the one that has this instant begins."""
        at = at.astimezone(UTC)
        return at - (at - datetime.min.replace(tzinfo=UTC)) % self.span


_SPANS: Final = {
    Step.MINUTE: timedelta(minutes=1),
    Step.HOUR: timedelta(hours=1),
    Step.DAY: timedelta(days=1),
}


class Dimension(StrEnum):
    """By what rows are told apart."""

    QUEUE = "queue"
    TAG = "tag"
    PROVIDER = "provider"


class Change(NamedTuple):
    """What happened `number` times in a minute. A negative one takes back what was counted before.

    `what` is accepted, CALL or the status of an end; `reason` is the outcome of a call, and the
    reason of an end. `tag` and `provider` are "" without one. The buckets are those of a call.
    """

    minute: datetime
    tenant: str
    is_test: bool
    queue: str
    tag: str
    provider: str
    what: str
    reason: str
    wait_bucket: int | None
    call_bucket: int | None
    number: int


class TagHour(NamedTuple):
    """In what the number of tags is limited."""

    at: datetime
    tenant: str
    is_test: bool


class RollUpKey(NamedTuple):
    """What a row of the roll-ups is of."""

    step: Step
    at: datetime
    tenant: str
    is_test: bool
    queue: str
    tag: str
    provider: str


@dataclass(slots=True)
class Counts:
    """What is added to a row of the roll-ups. `waits` and `calls` have a number per bucket."""

    counts: Counter[str] = field(default_factory=Counter)
    waits: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    def add(self, change: Change) -> None:
        """Count a change."""
        what = change.what
        if what == CALL and change.reason == "accepted":
            what = "sent"
        if what in COUNTED:
            self.counts[what] += change.number
        if (what, change.reason) == ("failed", REFUSED):
            self.counts[REFUSED] += change.number
        _add(self.waits, change.wait_bucket, change.number)
        _add(self.calls, change.call_bucket, change.number)


def tag_hours(changes: Iterable[Change]) -> frozenset[TagHour]:
    """Return in which hours these changes have tags."""
    return frozenset(_tag_hour(change) for change in changes if change.tag)


def roll_up(
    changes: Iterable[Change], tags: Mapping[TagHour, Iterable[str]]
) -> Mapping[RollUpKey, Counts]:
    """Return what these changes add to which rows. `tags` are those that each hour has already."""
    known: MutableMapping[TagHour, set[str]] = defaultdict(set)
    for hour, names in tags.items():
        known[hour] = set(names) - {OTHER}
    added: MutableMapping[RollUpKey, Counts] = defaultdict(Counts)
    for change in changes:
        tag = _counted_tag(change, known)
        for step in Step:
            key = RollUpKey(
                step,
                step.begin(change.minute),
                change.tenant,
                change.is_test,
                change.queue,
                tag,
                change.provider,
            )
            added[key].add(change)
    return added


def quantile(histogram: Sequence[int], share: float) -> float | None:
    """Return the seconds that this share of the values does not exceed, None without values.

    Within a bucket the values are taken as evenly spread. Values above the last bound count as it.
    """
    rank = share * sum(histogram)
    before = 0
    for bucket, count in enumerate(histogram):
        if count and before + count >= rank:
            if bucket >= len(BOUNDS_S):
                break
            low = BOUNDS_S[bucket - 1] if bucket else 0.0
            return low + (BOUNDS_S[bucket] - low) * (rank - before) / count
        before += count
    return BOUNDS_S[-1] if before or rank else None


def _tag_hour(change: Change) -> TagHour:
    return TagHour(Step.HOUR.begin(change.minute), change.tenant, change.is_test)


def _counted_tag(change: Change, known: Mapping[TagHour, set[str]]) -> str:
    if not change.tag:
        return ""
    tags = known[_tag_hour(change)]
    if change.tag in tags:
        return change.tag
    if len(tags) >= MAX_TAGS:
        return OTHER
    tags.add(change.tag)
    return change.tag


def _add(histogram: list[int], bucket: int | None, count: int) -> None:
    if bucket is None:
        return
    histogram.extend([0] * (bucket + 1 - len(histogram)))
    histogram[bucket] += count
