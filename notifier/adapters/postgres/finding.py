"""Finds the notifications that a filter selects, newest first."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from notifier.adapters.postgres.ids import id_bounds
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import Mode
from notifier.domain.events import UNANNOUNCED_CHANNELS
from notifier.domain.notification import FINAL, TEST_CHANNEL, WAITING, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncpg import Connection, Record

    from notifier.adapters.postgres.searching import LookupSearch
    from notifier.domain.notification import NotificationId
    from notifier.ports.queries import Filter, View

MAX_SEARCH_S: Final = 1.0
"""How long a page of notifications is searched for. The cursor of a shorter page continues."""
MAX_CANDIDATES: Final = 2000
"""How many rows are read for a page by each list that it needs, whatever of them matches."""
GROWTH: Final = 8
"""How many times as many candidates are read when too few of those before match."""
_ANY_QUEUE: Final = "%.%"
_HIDDEN: Final = frozenset(UNANNOUNCED_CHANNELS)
"""Channels whose notifications are found only by those who ask for their channel."""

# Search in the order of the index, whatever the statistics say: they may be from before a surge. To
# plan a statement for each day that is kept takes longer than to execute it, so that is done once.
SEARCH_SETTINGS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_sort": "off",
    "enable_bitmapscan": "off",
}
LOOK_UP_SETTINGS: Final = {**SEARCH_SETTINGS, "enable_hashjoin": "off", "enable_mergejoin": "off"}
"""For statements that look up each row of theirs in another table."""
_LISTS: Final[Mapping[str, str]] = {
    Status.SENDING: "list_sending",
    Status.SENT: "list_sent",
    Status.EXPIRED: "list_expired",
    Status.LOST: "list_lost",
    **dict.fromkeys(WAITING, "list_waiting"),
    **dict.fromkeys(FINAL - {Status.SENT, Status.EXPIRED}, "list_ended"),
}
"""The statement that finds the notifications in a status."""


class Found(NamedTuple):
    """Ids, the newest first. All down to the `floor` were found; None: there are no others."""

    ids: Sequence[NotificationId]
    floor: NotificationId | None


async def find(connection: Connection[Record], selection: Filter, search: LookupSearch) -> Found:
    """Return the ids of a page, and of one more notification if another page follows."""
    search_until = time.monotonic() + MAX_SEARCH_S
    lists = [
        await _search(connection, selection, search, name, parameters, search_until)
        for name, parameters in _lists_of(selection, search)
    ]
    floor = max((found.floor for found in lists if found.floor is not None), default=None)
    ids = {id_ for found in lists for id_ in found.ids if floor is None or id_ >= floor}
    return Found(sorted(ids, reverse=True), floor)


def _lists_of(selection: Filter, search: LookupSearch) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield the statement that finds each status, and its parameters after the third."""
    if search.is_used:
        yield "list_lookup", (search.hashes[0],)
        return
    patterns = _patterns(selection)
    reasons, *of_attempt = _of_result(selection)
    if set(selection.status) in (set(), set(Status)):
        yield "list_notifications", (patterns,)
        return
    for status in selection.status:
        name = _LISTS[status]
        parameters: dict[str, tuple[object, ...]] = {
            "list_waiting": (status,),
            "list_ended": (status, reasons, *of_attempt),
            "list_expired": (reasons, *of_attempt),
            "list_sent": tuple(of_attempt),
        }
        if not (reasons and name == "list_sent"):  # what was sent has no reason
            yield name, (patterns, *parameters.get(name, ()))


async def _search(
    connection: Connection[Record],
    selection: Filter,
    search: LookupSearch,
    name: str,
    parameters: Sequence[object],
    search_until: float,
) -> Found:
    """Find `limit` + 1 notifications: the one beyond the page shows that another page follows.

    Reads more and more candidates until these are found, none is left, or enough was read.
    """
    least, greatest = id_bounds(selection.created_from, selection.created_to, selection.before)
    if selection.id is not None:
        least, greatest = max(least, selection.id), min(greatest, selection.id)
    ids: list[NotificationId] = []
    candidates = selection.limit + 1
    left = MAX_CANDIDATES
    while True:
        (row,) = await connection.fetch(statement(name), least, greatest, candidates, *parameters)
        found, last = row["ids"], row["last"]
        if search.is_used:
            wanted = selection.limit + 1 - len(ids)
            found = await matching(connection, found, selection, search, wanted)
            if len(found) == wanted:  # the other candidates were not looked at
                last = found[-1]
        ids += await seen(
            connection,
            found,
            selection.view,
            selection.channel,
            sees_all=not _HIDDEN.isdisjoint(selection.channel),
        )
        if len(ids) > selection.limit:
            ids = ids[: selection.limit + 1]
            return Found(ids, ids[-1])
        if row["count"] < candidates and last == row["last"]:
            return Found(ids, None)
        left -= row["count"]
        if left <= 0 or time.monotonic() > search_until:
            return Found(ids, last)
        greatest = UUID(int=last.int - 1)
        candidates = min(GROWTH * candidates, left)


async def matching(
    connection: Connection[Record],
    ids: Sequence[NotificationId],
    selection: Filter,
    search: LookupSearch,
    limit: int,
) -> Sequence[NotificationId]:
    """Return the first `limit` of the notifications that match what a list_lookup did not check."""
    patterns = _patterns(selection)
    others = search.other_groups
    statuses = list(selection.status) or None
    if not ids or (patterns == [_ANY_QUEUE] and not others and statuses is None):
        return ids[:limit]
    rows = await connection.fetch(
        statement("match_lookup"),
        ids,
        min(ids),
        max(ids),
        None if patterns == [_ANY_QUEUE] else patterns,
        others,
        len(others),
        statuses,
        *_of_result(selection),
        limit,
    )
    return [row["id"] for row in rows]


def _of_result(selection: Filter) -> Sequence[Sequence[str] | None]:
    """Return reasons, providers and codes, None for any."""
    return [list(each) or None for each in (selection.reason, selection.provider, selection.code)]


async def seen(
    connection: Connection[Record],
    ids: Sequence[NotificationId],
    view: View,
    channels: Sequence[str] = (),
    *,
    sees_all: bool = True,
) -> Sequence[NotificationId]:
    """Return the ids of the notifications that a view has, in their order.

    `channels` are those of which a test has asked for one, none for any. `sees_all`: also calls of
    webhooks, which are hidden from lists of no channel.
    """
    if not ids:
        return []
    is_test = view.mode is Mode.TEST
    asked = list(channels) if is_test and channels else None
    rows = await connection.fetch(
        statement("seen"), ids, min(ids), max(ids), view.tenant, is_test, asked, sees_all
    )
    seen = {row["id"] for row in rows}
    return [id_ for id_ in ids if id_ in seen]


def _patterns(selection: Filter) -> Sequence[str]:
    """Return LIKE patterns, one of which the queue's name matches."""
    is_test = selection.view.mode is Mode.TEST
    channels: Sequence[str | None] = selection.channel or [None]
    if is_test:  # what test keys submit is on one channel, their calls of webhooks are not
        channels = [TEST_CHANNEL, *_HIDDEN.intersection(selection.channel)]
    return [
        f"{channel}.{priority}"
        for channel in map(_like_pattern, channels)
        for priority in map(_like_pattern, selection.priority or [None])
    ]


def _like_pattern(name: str | None) -> str:
    """Return a LIKE pattern that matches this name only, or any name if it is None."""
    if name is None:
        return "%"
    return name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
