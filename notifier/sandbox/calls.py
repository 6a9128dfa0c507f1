"""The log of every call: what tests count instead of our own counters. In memory, append only."""

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
    """One message that somebody tried to hand over.

    `at` is when it arrived. `status` is the code it was answered with, 0 for none. A message that
    was taken and then cut is `accepted`. What the caller did not say is None.
    """

    at: datetime
    channel: str
    recipient: str
    notification_id: str | None
    claim: int | None
    fate: str
    accepted: bool
    status: int


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls a reader wants. `after` is how many calls of the log to pass over first."""

    notification_id: str | None = None
    channel: str | None = None
    since: datetime | None = None
    after: int = 0
    limit: int | None = None


class Group(msgspec.Struct, frozen=True):
    """How many calls of a channel with a fate were accepted, or not."""

    channel: str
    fate: str
    accepted: bool
    calls: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The log in figures. `doubled` notifications were accepted more than once."""

    calls: int
    accepted: int
    notifications: int
    accepted_notifications: int
    doubled: int
    groups: list[Group]


class CallLog:
    """Calls in the order they arrived, and how often each notification with a fate was here."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._earlier: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        """Log a call. Calls come in the order of their `at`."""
        self._calls.append(call)

    def count(self, channel: str, notification: str) -> int:
        """How many calls this notification made before; this one is counted from now on."""
        earlier = self._earlier[channel, notification]
        self._earlier[channel, notification] = earlier + 1
        return earlier

    def clear(self) -> None:
        """Forget everything, also how often a notification was here."""
        self._calls.clear()
        self._earlier.clear()

    def select(self, wanted: Wanted) -> Iterator[Call]:
        """The wanted calls, oldest first, as the log stands now."""
        found = (call for call in self._from(wanted) if _is_wanted(call, wanted))
        return islice(found, wanted.limit)

    async def summary(self) -> Summary:
        """One pass over the log as it stands now, page by page: others have their turn between."""
        groups: Counter[tuple[str, str, bool]] = Counter()
        accepted: Counter[str | None] = Counter()
        named: set[str | None] = set()
        calls = islice(self._calls, len(self._calls))
        while page := list(islice(calls, _PAGE)):
            groups.update((call.channel, call.fate, call.accepted) for call in page)
            accepted.update(call.notification_id for call in page if call.accepted)
            named.update(call.notification_id for call in page)
            await asyncio.sleep(0)
        return _summary(groups, accepted, named)

    def _from(self, wanted: Wanted) -> Iterator[Call]:
        first = wanted.after
        if wanted.since is not None:
            since = bisect_left(self._calls, wanted.since, key=lambda call: call.at)
            first = max(first, since)
        return islice(self._calls, first, len(self._calls))


def _summary(
    groups: Counter[tuple[str, str, bool]],
    accepted: Counter[str | None],
    named: set[str | None],
) -> Summary:
    del accepted[None]
    return Summary(
        calls=groups.total(),
        accepted=sum(count for (_, _, taken), count in groups.items() if taken),
        notifications=len(named - {None}),
        accepted_notifications=len(accepted),
        doubled=sum(count > 1 for count in accepted.values()),
        groups=[Group(*group, count) for group, count in sorted(groups.items())],
    )


def _is_wanted(call: Call, wanted: Wanted) -> bool:
    return (wanted.channel is None or call.channel == wanted.channel) and (
        wanted.notification_id is None or call.notification_id == wanted.notification_id
    )
