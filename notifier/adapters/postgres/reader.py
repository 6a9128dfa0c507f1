"""What the API reads from Postgres."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connections,
)
from notifier.adapters.postgres.explaining import count_before, pause_authors, read_subject
from notifier.adapters.postgres.heartbeat import decode_figures
from notifier.adapters.postgres.ids import id_bounds
from notifier.adapters.postgres.lookups import LookupKey
from notifier.adapters.postgres.searching import LookupSearch, search_of
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import Mode
from notifier.domain.features import ALL_FEATURES
from notifier.domain.notification import (
    FINAL,
    TEST_CHANNEL,
    WAITING,
    AttemptView,
    NotificationView,
    QueueKey,
    ResultView,
    Status,
)
from notifier.ports.heartbeat import NO_FIGURES
from notifier.ports.queries import ALL_LIVE, Page, WorkerState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Sequence

    from asyncpg import Connection, Record

    from notifier.domain.controls import Pause, Scope
    from notifier.domain.due import DueClass, Position
    from notifier.domain.explanation.facts import ClassCount, Subject, WaitingRow
    from notifier.domain.notification import NotificationId
    from notifier.ports.queries import Filter, View

CONNECTIONS: Final = 4
"""How many connections `open_reader` opens at most."""
MAX_SEARCH_S: Final = 1.0
"""How long a page of notifications is searched for. The cursor of a shorter page continues."""
MAX_CANDIDATES: Final = 2000
"""How many rows are read for a page by each list that it needs, whatever of them matches."""
GROWTH: Final = 8
"""How many times as many candidates are read when too few of those before match."""
_ANY_QUEUE: Final = "%.%"
_TEMPLATE: Final = re.compile(rb'\{"template":"([a-z0-9@_-]+)"')
_LOCALE: Final = re.compile(rb'\{"template":"[a-z0-9@_-]+","locale":"([A-Za-z0-9-]+)"')

# Search in the order of the index, whatever the statistics say: they may be from before a surge. To
# plan a statement for each day that is kept takes longer than to execute it, so that is done once.
_PLANNER_SETTINGS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_sort": "off",
    "enable_bitmapscan": "off",
}
_LISTS: Final[Mapping[str, str]] = {
    Status.SENDING: "list_sending",
    Status.SENT: "list_sent",
    Status.EXPIRED: "list_expired",
    Status.LOST: "list_lost",
    **dict.fromkeys(WAITING, "list_waiting"),
    **dict.fromkeys(FINAL - {Status.SENT, Status.EXPIRED}, "list_ended"),
}
"""The statement that finds the notifications in a status."""


class PostgresReader:
    """Implements ports.queries.Reader and WaitingReader over a few connections, used in turn.

    Each method reads one snapshot: status, attempts and pages belong together.
    """

    def __init__(self, connections: Sequence[PostgresConnection]) -> None:
        self._connections = cycle(connections)
        self._lookup_key = LookupKey()

    async def get(
        self,
        id: NotificationId,  # noqa: A002 the port's name
        *,
        view: View = ALL_LIVE,
        with_content: bool = False,
    ) -> NotificationView | None:
        async with self._snapshot() as connection:
            rows = await _read(connection, [id], with_content=with_content)
            if not rows or not _is_seen(rows[0], view):
                return None
            attempts = await connection.fetch(statement("get_attempts"), id)
        return _notification(rows[0], tuple(map(_attempt, attempts)))

    async def templates_of(
        self, ids: Collection[NotificationId]
    ) -> Mapping[NotificationId, str | None]:
        async with self._snapshot() as connection:
            rows = await _read(connection, list(ids))
        return {row["id"]: _named(_TEMPLATE, row["head"]) for row in rows}

    async def notifications(self, selection: Filter) -> Page:
        async with self._snapshot() as connection:
            search = await search_of(connection, self._lookup_key, selection)
            found = await _find(connection, selection, search)
            ids = found.ids[: selection.limit]
            rows = await _read(connection, ids)
        next_before = ids[-1] if len(found.ids) > len(ids) else found.floor
        views = map(_notification, rows)
        # A hash may be that of another value, and a row may have been erased since.
        return Page(views=[view for view in views if search.matches(view)], next_before=next_before)

    async def subject(
        self,
        id: NotificationId,  # noqa: A002 the port's name
        view: View,
    ) -> Subject | None:
        async with self._snapshot() as connection:
            rows = await _read(connection, [id])
            if not rows or not _is_seen(rows[0], view):
                return None
            return await read_subject(connection, rows[0])

    async def count_before(
        self, row: WaitingRow, until: Mapping[DueClass, Position]
    ) -> Mapping[DueClass, ClassCount]:
        async with next(self._connections).acquire() as connection:
            return await count_before(connection, row, until)

    async def pause_authors(self, pauses: Collection[Pause]) -> Mapping[Scope, str]:
        if not pauses:
            return {}
        async with next(self._connections).acquire() as connection:
            return await pause_authors(connection, pauses)

    async def workers(self) -> Sequence[WorkerState]:
        rows = await next(self._connections).fetch(statement("workers"))
        return list(map(worker_of, rows))

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection[Record]]:
        async with (
            next(self._connections).acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection


class _Found(NamedTuple):
    """Ids, the newest first. All down to the `floor` were found; None: there are no others."""

    ids: Sequence[NotificationId]
    floor: NotificationId | None


async def _find(connection: Connection[Record], selection: Filter, search: LookupSearch) -> _Found:
    """Return the ids of a page, and of one more notification if another page follows."""
    search_until = time.monotonic() + MAX_SEARCH_S
    lists = [
        await _search(connection, selection, search, name, parameters, search_until)
        for name, parameters in _lists_of(selection, search)
    ]
    floor = max((found.floor for found in lists if found.floor is not None), default=None)
    ids = {id_ for found in lists for id_ in found.ids if floor is None or id_ >= floor}
    return _Found(sorted(ids, reverse=True), floor)


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
) -> _Found:
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
            found = await _matching(connection, found, selection, search, wanted)
            if len(found) == wanted:  # the other candidates were not looked at
                last = found[-1]
        ids += await _seen(connection, found, selection.view, selection.channel)
        if len(ids) > selection.limit:
            ids = ids[: selection.limit + 1]
            return _Found(ids, ids[-1])
        if row["count"] < candidates and last == row["last"]:
            return _Found(ids, None)
        left -= row["count"]
        if left <= 0 or time.monotonic() > search_until:
            return _Found(ids, last)
        greatest = UUID(int=last.int - 1)
        candidates = min(GROWTH * candidates, left)


async def _matching(
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


def _is_seen(row: Record, view: View) -> bool:
    """Whether a view has the notification of a row of read_notifications.sql."""
    is_of_mode = (view.mode is Mode.TEST) == bool(row["test_channel"])
    return is_of_mode and view.tenant in {None, row["tenant"]}


async def _seen(
    connection: Connection[Record],
    ids: Sequence[NotificationId],
    view: View,
    channels: Sequence[str] = (),
) -> Sequence[NotificationId]:
    """Return the ids of the notifications that a view has, in their order.

    `channels` are those of which a test has asked for one, none for any.
    """
    if not ids:
        return []
    is_test = view.mode is Mode.TEST
    asked = list(channels) if is_test and channels else None
    rows = await connection.fetch(
        statement("seen"), ids, min(ids), max(ids), view.tenant, is_test, asked
    )
    seen = {row["id"] for row in rows}
    return [id_ for id_ in ids if id_ in seen]


async def _read(
    connection: Connection[Record], ids: Sequence[NotificationId], *, with_content: bool = False
) -> Sequence[Record]:
    if not ids:
        return []
    return await connection.fetch(
        statement("read_notifications"), ids, min(ids), max(ids), with_content
    )


def _patterns(selection: Filter) -> Sequence[str]:
    """Return LIKE patterns, one of which the queue's name matches."""
    is_test = selection.view.mode is Mode.TEST
    channels = [TEST_CHANNEL] if is_test else selection.channel or [None]
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


def _notification(row: Record, attempts: tuple[AttemptView, ...] = ()) -> NotificationView:
    return NotificationView(
        id=row["id"],
        status=Status(row["status"]),
        tenant=row["tenant"],
        test_channel=row["test_channel"],
        queue=QueueKey.parse(row["queue"]),
        recipient=row["recipient"],
        content=row["content"],
        template=_named(_TEMPLATE, row["head"]),
        locale=_named(_LOCALE, row["head"]),
        metadata=row["metadata"],
        provider=row["provider"],
        reference=row["reference"],
        tries=row["tries"],
        max_tries=row["max_tries"],
        last_error=row["last_error"],
        result=_result(row),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        due_at=row["due_at"],
        expires_at=row["expires_at"],
        replaced_by=row["replaced_by"],
        tag=row["tag"],
        topic=row["topic"],
        attempts=attempts,
    )


def _named(pattern: re.Pattern[bytes], head: bytes | None) -> str | None:
    """Return what the begin of a content names."""
    match = None if head is None else pattern.match(head)
    return match[1].decode() if match else None


def _result(row: Record) -> ResultView | None:
    if row["result_at"] is None:
        return None
    return ResultView(
        reason=row["result_reason"],
        provider=row["result_provider"],
        code=row["result_code"],
        detail=row["result_detail"],
        at=row["result_at"],
    )


def _attempt(row: Record) -> AttemptView:
    return AttemptView(
        number=row["number"],
        provider=row["provider"],
        outcome=row["outcome"],
        code=row["code"],
        http_status=row["http_status"],
        detail=row["detail"],
        reference=row["reference"],
        queue_wait_s=row["queue_wait_s"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        next_at=row["next_at"],
        repeats=row["repeats"],
        late=row["late"],
    )


def worker_of(row: Record) -> WorkerState:
    """Return the process that a row of workers.sql describes."""
    try:
        figures = decode_figures(row["figures"])
    except ValueError:  # of another version: the process is alive all the same
        figures = NO_FIGURES
    return WorkerState(
        id=row["id"],
        kind=row["kind"],
        host=row["host"],
        pid=row["pid"],
        version=figures.version,
        started_at=row["started_at"],
        beat_at=row["beat_at"],
        consumers=sum(queue.consumers for queue in figures.queues.values()),
        busy=sum(queue.busy for queue in figures.queues.values()),
        lacks=tuple(sorted(ALL_FEATURES - figures.features)),
    )


@asynccontextmanager
async def open_reader(settings: ConnectionSettings) -> AsyncIterator[PostgresReader]:
    """A reader whose statements are planned once and read in the order of an index."""
    async with open_connections(settings, [_PLANNER_SETTINGS] * CONNECTIONS) as connections:
        yield PostgresReader(connections)
