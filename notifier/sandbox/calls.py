"""An append-only in-memory log of every call, which tests count instead of Notifier's metrics."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec

_PAGE: Final = 10_000


class Call(msgspec.Struct, frozen=True, gc=False):
    """One attempt of a client to send a message.

    `at` is the time of arrival. `status` is the code of the response, 0 if there was none. A
    message that was accepted before the connection was cut is `accepted`. `notification_id` and
    `claim` are None if the client did not send them.
    """

    at: datetime
    channel: str
    recipient: str
    notification_id: str | None
    claim: int | None
    fate: str
    accepted: bool
    status: int


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects calls. The first `after` calls of the log are skipped."""

    notification_id: str | None = None
    channel: str | None = None
    since: datetime | None = None
    after: int = 0
    limit: int | None = None


class CallGroup(msgspec.Struct, frozen=True):
    """The number of accepted or not accepted calls of one channel with one fate."""

    channel: str
    fate: str
    accepted: bool
    calls: int


class CallSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of the log. `doubled` is the number of notifications accepted more than once."""

    calls: int
    accepted: int
    notifications: int
    accepted_notifications: int
    doubled: int
    groups: list[CallGroup]


class CallLog:
    """Calls in the order of their arrival, and the number of calls of counted notifications."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._call_counts: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        """Logs a call. Calls must arrive in the order of their `at`."""
        self._calls.append(call)

    def count_call(self, channel: str, notification: str) -> int:
        """Counts a call of this notification and returns the number of earlier ones."""
        earlier = self._call_counts[channel, notification]
        self._call_counts[channel, notification] = earlier + 1
        return earlier

    def clear(self) -> None:
        """Removes all calls and all counts."""
        self._calls.clear()
        self._call_counts.clear()

    def select(self, call_filter: CallFilter) -> Iterator[Call]:
        """Yields the selected calls, oldest first. Later calls are not included."""
        calls = (call for call in self._slice(call_filter) if _matches(call, call_filter))
        return islice(calls, call_filter.limit)

    async def summary(self) -> CallSummary:
        """Returns the totals. Yields to the event loop between the pages of a long log."""
        groups: Counter[tuple[str, str, bool]] = Counter()
        accepted: Counter[str | None] = Counter()
        notifications: set[str | None] = set()
        calls = islice(self._calls, len(self._calls))
        while page := list(islice(calls, _PAGE)):
            groups.update((call.channel, call.fate, call.accepted) for call in page)
            accepted.update(call.notification_id for call in page if call.accepted)
            notifications.update(call.notification_id for call in page)
            await asyncio.sleep(0)
        return _summary(groups, accepted, notifications)

    def _slice(self, call_filter: CallFilter) -> Iterator[Call]:
        first = call_filter.after
        if call_filter.since is not None:
            since = bisect_left(self._calls, call_filter.since, key=lambda call: call.at)
            first = max(first, since)
        return islice(self._calls, first, len(self._calls))


def _summary(
    groups: Counter[tuple[str, str, bool]],
    accepted: Counter[str | None],
    notifications: set[str | None],
) -> CallSummary:
    del accepted[None]
    return CallSummary(
        calls=groups.total(),
        accepted=sum(count for (_, _, is_accepted), count in groups.items() if is_accepted),
        notifications=len(notifications - {None}),
        accepted_notifications=len(accepted),
        doubled=sum(count > 1 for count in accepted.values()),
        groups=[CallGroup(*group, count) for group, count in sorted(groups.items())],
    )


def _matches(call: Call, call_filter: CallFilter) -> bool:
    return (call_filter.channel is None or call.channel == call_filter.channel) and (
        call_filter.notification_id is None or call.notification_id == call_filter.notification_id
    )
