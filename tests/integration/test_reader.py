"""What readers see of rows in every combination of tables that the statements leave."""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from notifier.adapters.postgres import finding
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.leases import encode_progress
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.store import open_store
from notifier.domain.credentials import Mode
from notifier.domain.due import DueClass, Position
from notifier.domain.notification import (
    FINAL,
    WAITING,
    Claimed,
    NotificationId,
    NotificationView,
    QueueKey,
    ResultView,
    Status,
)
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.leases import Progress
from notifier.ports.queries import Filter, View
from notifier.ports.store import ClaimRequest
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    QUEUES,
    SMS_HIGH,
    a_notification,
    a_result,
    new_id,
    worker_id,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from notifier.adapters.postgres.reader import PostgresReader
    from notifier.adapters.postgres.store import PostgresStore

Row = dict[str, Any]

RESTORE_GUIDE: Final = Path(__file__).parents[2] / "docs/backup-and-restore.md"
SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)


class Rows:
    """Writes rows to the tables, as seen from one instant `now` of Postgres's clock."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], now: datetime) -> None:
        self._connection = connection
        self.now = now

    async def add(
        self,
        queue: QueueKey = EMAIL_HIGH,
        *,
        live: Row | None = None,
        end: Row | None = None,
        attempts: Sequence[Row] = (),
    ) -> NotificationId:
        """Write a notification and its other rows; each names the columns that matter."""
        id_ = new_id()
        await self._insert(
            "notifications",
            id=id_,
            created_at=self.now - HOUR,
            expires_at=self.now + HOUR,
            queue=str(queue),
            recipient="ada@example.com",
            content=b'{"body":"Hello"}',
            metadata=b"{}",
        )
        if live is not None:
            await self._insert("live", **self._live(id_, queue) | live)
        if end is not None:
            await self._insert("ends", **self._end(id_, queue) | end)
        for claim, attempt in enumerate(attempts, start=1):
            await self._insert("attempts", **self._attempt(id_, claim) | attempt)
        return id_

    async def progress(self, queue: QueueKey, progress: Progress) -> None:
        """Write the lease of a queue."""
        await self._connection.execute(
            "INSERT INTO leases (queue, progress) VALUES ($1, $2::text::jsonb)"
            " ON CONFLICT (queue) DO UPDATE SET progress = excluded.progress",
            str(queue),
            encode_progress(progress),
        )

    async def _insert(self, table: str, **columns: object) -> None:
        places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        await self._connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})",
            *columns.values(),
        )

    def _live(self, id_: NotificationId, queue: QueueKey) -> Row:
        return {
            "id": id_,
            "created_at": self.now - HOUR,
            "due_at": self.now,
            "ready_at": self.now,
            "expires_at": self.now + HOUR,
            "size": 16,
            "class": DueClass.FIRST,
            "queue": str(queue),
        }

    def _end(self, id_: NotificationId, queue: QueueKey) -> Row:
        return {
            "id": id_,
            "claim": 1,
            "status": "failed",
            "queue": str(queue),
            "reason": "refused",
            "provider": "smtp",
            "code": "550",
            "detail": "no such user",
            "tries": 2,
            "first_at": self.now - 2 * SECOND,
            "at": self.now - SECOND,
        }

    def _attempt(self, id_: NotificationId, claim: int) -> Row:
        return {
            "id": id_,
            "claim": claim,
            "recorded_by": worker_id(),
            "started_at": self.now - 3 * SECOND,
            "finished_at": self.now - 2 * SECOND,
            "queue_wait_s": 0.5,
            "provider": "smtp",
            "outcome": "accepted",
            "code": "250",
            "detail": "",
            "reference": "",
            "tries": claim,
        }


@pytest.fixture
async def rows(connection: asyncpg.Connection[asyncpg.Record]) -> Rows:
    return Rows(connection, await connection.fetchval("SELECT now()"))


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[PostgresReader]:
    async with open_reader(ConnectionSettings(url=database_url)) as reader:
        yield reader


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


def claimed(now: datetime) -> Row:
    return {"claimed_by": worker_id(), "claimed_at": now, "claim": 1}


def refused(**columns: object) -> Row:
    return {"outcome": "refused", "code": "550", "detail": "no such user"} | columns


async def view_of(reader: PostgresReader, id_: NotificationId) -> NotificationView:
    view = await reader.get(id_)
    assert view is not None
    return view


STATES: Final[Mapping[str, tuple[Status, Row]]] = {
    "due": (Status.QUEUED, {"live": {}}),
    "due again after a retry": (Status.QUEUED, {"live": {"class": DueClass.RETRY}}),
    "due in an hour": (Status.SCHEDULED, {"live": {"due_at": HOUR}}),
    "a retry in an hour": (Status.RETRYING, {"live": {"due_at": HOUR, "class": DueClass.RETRY}}),
    "claimed": (Status.SENDING, {"live": {"claimed": True}}),
    "claimed and out of time": (
        Status.SENDING,
        {"live": {"claimed": True, "expires_at": -SECOND}},
    ),
    "unclaimed and out of time": (Status.EXPIRED, {"live": {"expires_at": -SECOND}}),
    "scheduled and out of time": (
        Status.EXPIRED,
        {"live": {"due_at": HOUR, "expires_at": -SECOND}},
    ),
    "ended as failed": (Status.FAILED, {"end": {"status": "failed"}}),
    "ended as expired": (Status.EXPIRED, {"end": {"status": "expired"}}),
    "ended as cancelled": (Status.CANCELLED, {"end": {"status": "cancelled"}}),
    "ended as suppressed": (Status.SUPPRESSED, {"end": {"status": "suppressed"}}),
    "ended as undelivered": (Status.UNDELIVERED, {"end": {"status": "undelivered"}}),
    "accepted": (Status.SENT, {"attempts": [{}]}),
    "accepted after a refusal": (Status.SENT, {"attempts": [refused(), {}]}),
    "accepted late, before a refusal": (Status.SENT, {"attempts": [{"late": True}, refused()]}),
    "accepted late, live again": (Status.QUEUED, {"live": {"claim": 2}, "attempts": [{}]}),
    "accepted late, ended": (Status.FAILED, {"end": {"claim": 2}, "attempts": [{}]}),
    "without any row": (Status.LOST, {}),
    "with a refusal alone": (Status.LOST, {"attempts": [refused()]}),
}


async def add_state(rows: Rows, name: str, queue: QueueKey = EMAIL_HIGH) -> NotificationId:
    parts = dict(STATES[name][1])
    if live := parts.get("live"):
        live = dict(live)
        if live.pop("claimed", False):
            live |= claimed(rows.now)
        spans = {key: span for key, span in live.items() if isinstance(span, timedelta)}
        parts["live"] = live | {key: rows.now + span for key, span in spans.items()}
    return await rows.add(queue, **parts)


@pytest.mark.parametrize("state", STATES)
async def test_the_status_follows_from_the_rows(
    rows: Rows, reader: PostgresReader, state: str
) -> None:
    assert (await view_of(reader, await add_state(rows, state))).status is STATES[state][0]


async def test_only_a_wait_that_lies_ahead_has_a_due_time(
    rows: Rows, reader: PostgresReader
) -> None:
    for state, (status, _) in STATES.items():
        view = await view_of(reader, await add_state(rows, state))
        is_ahead = status in {Status.SCHEDULED, Status.RETRYING}
        assert view.due_at == (rows.now + HOUR if is_ahead else None), state


async def test_the_restore_guide_expires_what_waits(
    rows: Rows, reader: PostgresReader, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    waiting = [
        await add_state(rows, name)
        for name, (status, _) in STATES.items()
        if status in {*WAITING, Status.SENDING}
    ]
    (script,) = re.findall(r"```sql\n(.*?)```", RESTORE_GUIDE.read_text(), re.DOTALL)
    await connection.execute(script.replace("{...}", "{" + ",".join(map(str, waiting)) + "}"))
    assert {(await view_of(reader, id_)).status for id_ in waiting} == {Status.EXPIRED}


@pytest.mark.parametrize(
    ("parts", "tries"),
    [
        ({"live": {"tries": 3}, "attempts": [refused()]}, 3),
        ({"end": {"tries": 4}, "attempts": [refused()]}, 4),
        ({"attempts": [refused(), {"tries": 2}]}, 2),
        ({"attempts": [refused(), refused(outcome="throttled"), {"tries": None}]}, 2),
    ],
    ids=["live", "ended", "sent", "sent before the column existed"],
)
async def test_the_tries_are_those_of_the_row_that_decides_the_status(
    rows: Rows, reader: PostgresReader, parts: Row, tries: int
) -> None:
    assert (await view_of(reader, await rows.add(**parts))).tries == tries


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({"live": {}}, None),
        ({"attempts": [{}]}, None),
        ({"live": {}, "attempts": [refused()]}, "refused 550 no such user"),
        ({"attempts": [refused(code="", detail=""), {}]}, "refused"),
        ({"attempts": [refused(code="1"), refused(code="2")]}, "refused 2 no such user"),
        ({"live": {}, "attempts": [refused(detail="x" * 600)]}, "refused 550 " + "x" * 488),
        ({"end": {"code": "claim_rejected"}, "attempts": [refused()]}, "claim_rejected"),
    ],
)
async def test_the_last_error_is_of_the_newest_attempt_that_was_not_accepted(
    rows: Rows, reader: PostgresReader, parts: Row, error: str | None
) -> None:
    assert (await view_of(reader, await rows.add(**parts))).last_error == error


async def test_a_change_is_as_old_as_the_newest_of_claim_attempt_and_end(
    rows: Rows, reader: PostgresReader
) -> None:
    now = rows.now
    ages = [
        (await rows.add(live={}), HOUR),
        (await rows.add(live=claimed(now - SECOND), attempts=[refused()]), SECOND),
        (await rows.add(attempts=[refused(finished_at=now - 9 * SECOND), {}]), 2 * SECOND),
        (await rows.add(end={}, attempts=[refused()]), SECOND),
    ]
    for id_, age in ages:
        assert now - (await view_of(reader, id_)).updated_at == age


async def test_an_unknown_id_is_none(reader: PostgresReader) -> None:
    assert await reader.get(new_id()) is None


def one(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


async def listed(reader: PostgresReader, selection: Filter) -> list[NotificationView]:
    """Read all pages of a list."""
    views: list[NotificationView] = []
    before = selection.before
    while True:
        page = await reader.notifications(replace(selection, before=before))
        assert len(page.views) <= selection.limit
        views += page.views
        if page.next_before is None:
            return views
        before = page.next_before


async def test_a_row_that_moves_is_never_seen_as_lost_or_in_a_list_of_another_status(
    store: PostgresStore, reader: PostgresReader
) -> None:
    async with asyncio.TaskGroup() as group:
        moving = group.create_task(_move_rows(store))
        while not moving.done():
            for status in [None, Status.QUEUED, Status.SENDING, Status.SENT, Status.FAILED]:
                page = await reader.notifications(Filter(status=one(status), limit=200))
                found = {view.status for view in page.views}
                assert found <= ({status} if status else set(Status) - {Status.LOST})
    page = await reader.notifications(Filter(limit=200))
    assert {view.status for view in page.views} == {Status.SENT, Status.FAILED}


async def _move_rows(store: PostgresStore) -> None:
    """Send 50 notifications, a few at a time; every third is refused."""
    items = [a_notification() for _ in range(50)]
    await store.insert(items)
    for start in range(0, len(items), 5):
        batch = items[start : start + 5]
        replies = await store.claim([ClaimRequest(id=item.id, claim=0) for item in batch])
        claims = [reply for reply in replies if isinstance(reply, Claimed)]
        assert len(claims) == len(batch)
        await store.record(
            [
                a_result(claim, Status.FAILED, outcome="refused", reason="refused")
                if number % 3 == 0
                else a_result(claim)
                for number, claim in enumerate(claims)
            ]
        )


@pytest.mark.parametrize("limit", [2, 200])
@pytest.mark.parametrize("max_search_s", [0.0, 10.0], ids=["short pages", "full pages"])
async def test_each_list_has_exactly_the_notifications_with_that_status_newest_first(
    rows: Rows,
    reader: PostgresReader,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    max_search_s: float,
) -> None:
    monkeypatch.setattr(finding, "MAX_SEARCH_S", max_search_s)
    monkeypatch.setattr(finding, "MAX_CANDIDATES", limit + 1)
    queues = [EMAIL_HIGH, EMAIL_LOW, SMS_HIGH]
    added = [
        (await add_state(rows, state, queue), queue, STATES[state][0])
        for _ in range(2)
        for state, queue in itertools.product(STATES, queues)
    ]
    added.reverse()
    for status in [None, *Status]:
        for channel, priority in [(None, None), ("email", None), (None, "high"), ("email", "high")]:
            expected = [
                (id_, found)
                for id_, queue, found in added
                if status in {None, found}
                and channel in {None, queue.channel}
                and priority in {None, queue.priority}
            ]
            selection = Filter(
                status=one(status), channel=one(channel), priority=one(priority), limit=limit
            )
            views = await listed(reader, selection)
            assert [(view.id, view.status) for view in views] == expected, (status, channel)


async def test_a_channel_is_no_pattern(rows: Rows, reader: PostgresReader) -> None:
    await rows.add(live={})
    for channel in ("e%", "emai_", "email\\"):
        assert (await reader.notifications(Filter(channel=(channel,)))).views == []


async def test_a_page_that_took_too_long_is_short_and_says_where_to_go_on(
    rows: Rows, reader: PostgresReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = await rows.add(SMS_HIGH, live={})
    others = [await rows.add(EMAIL_HIGH, live={}) for _ in range(5)]
    monkeypatch.setattr(finding, "MAX_SEARCH_S", 0.0)
    first = await reader.notifications(Filter(channel=("sms",), limit=3))
    assert first.views == []
    assert first.next_before is not None
    assert wanted < first.next_before < others[-1]
    second = await reader.notifications(Filter(channel=("sms",), limit=3, before=first.next_before))
    assert [view.id for view in second.views] == [wanted]
    assert second.next_before is None


async def test_a_list_ends_without_a_cursor_at_exactly_a_page(
    rows: Rows, reader: PostgresReader
) -> None:
    for _ in range(3):
        await rows.add(live={})
    assert (await reader.notifications(Filter(limit=3))).next_before is None
    assert (await reader.notifications(Filter(limit=2))).next_before is not None


async def test_lists_are_bounded_by_the_time_of_acceptance(
    rows: Rows, reader: PostgresReader
) -> None:
    id_ = await rows.add(live={})
    accepted_at = (id_.int >> 80) / 1000
    for created_from, created_to, count in [
        (accepted_at, accepted_at + 0.001, 1),
        (accepted_at + 0.001, None, 0),
        (None, accepted_at, 0),
    ]:
        page = await reader.notifications(Filter(created_from=created_from, created_to=created_to))
        assert len(page.views) == count


async def test_rows_that_are_being_sent_are_found_up_to_the_floor_and_behind_it(
    rows: Rows, reader: PostgresReader
) -> None:
    floor = Position(rows.now - 5 * SECOND, new_id())
    await rows.progress(EMAIL_HIGH, Progress(floors={DueClass.FIRST: floor}))
    sending = [
        await rows.add(
            live=claimed(rows.now) | {"due_at": rows.now - ago * SECOND, "class": class_}
        )
        for ago in (9, 1)
        for class_ in DueClass
    ]
    page = await reader.notifications(Filter(status=(Status.SENDING,)))
    assert [view.id for view in page.views] == sorted(sending, reverse=True)


async def test_more_scheduled_rows_than_the_index_search_takes_are_listed_by_their_ids(
    rows: Rows, reader: PostgresReader, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    retry = await rows.add(live={"due_at": rows.now + HOUR, "class": DueClass.RETRY})
    scheduled = await rows.add(live={"due_at": rows.now + HOUR})
    await connection.execute(
        """INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, queue)
           SELECT gen_random_uuid(), now(), now() + interval '1 hour', now(), now(), 1, 1,
                  'email.high' FROM generate_series(1, 5001)"""
    )
    for status, id_ in [(Status.SCHEDULED, scheduled), (Status.RETRYING, retry)]:
        views = await listed(reader, Filter(status=(status,)))
        assert [view.id for view in views] == [id_]


@pytest.mark.parametrize("limit", [1, 3, 200])
@pytest.mark.parametrize("max_search_s", [0.0, 10.0], ids=["short pages", "full pages"])
async def test_a_list_of_several_statuses_is_one_list_newest_first(
    rows: Rows,
    reader: PostgresReader,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    max_search_s: float,
) -> None:
    monkeypatch.setattr(finding, "MAX_SEARCH_S", max_search_s)
    monkeypatch.setattr(finding, "MAX_CANDIDATES", limit + 1)
    added = [
        (await add_state(rows, state), status)
        for _ in range(2)
        for state, (status, _) in STATES.items()
    ]
    for statuses in itertools.combinations(
        [Status.SENT, Status.FAILED, Status.EXPIRED, Status.QUEUED, Status.SENDING], 3
    ):
        expected = [id_ for id_, status in reversed(added) if status in statuses]
        views = await listed(reader, Filter(status=statuses, limit=limit))
        assert [view.id for view in views] == expected, statuses


async def test_several_channels_and_priorities_select_any_of_them(
    rows: Rows, reader: PostgresReader
) -> None:
    low, high, sms = [await rows.add(key, live={}) for key in (EMAIL_LOW, EMAIL_HIGH, SMS_HIGH)]
    for selection, ids in [
        (Filter(channel=("email", "sms")), [sms, high, low]),
        (Filter(channel=("email", "sms"), priority=("high",)), [sms, high]),
        (Filter(priority=("low", "medium")), [low]),
    ]:
        assert [view.id for view in await listed(reader, selection)] == ids


async def test_a_result_is_selected_by_its_reason_provider_and_code(
    rows: Rows, reader: PostgresReader
) -> None:
    overdue = await add_state(rows, "unclaimed and out of time")
    expired = await rows.add(end={"status": "expired", "reason": "", "code": "451"})
    exhausted = await rows.add(end={"reason": "exhausted", "provider": "relay", "code": "421"})
    refused_ = await rows.add(end={})
    sent = await rows.add(attempts=[refused(), {"provider": "relay"}])
    every = (Status.FAILED, Status.EXPIRED, Status.SENT)
    for selection, ids in [
        (Filter(status=every), [sent, refused_, exhausted, expired, overdue]),
        (Filter(status=every, reason=("refused", "exhausted")), [refused_, exhausted]),
        (Filter(status=every, reason=("ttl",)), [expired, overdue]),
        (Filter(status=every, provider=("relay",)), [sent, exhausted]),
        (Filter(status=every, provider=("relay",), code=("421", "451")), [exhausted]),
        (Filter(status=every, code=("250", "451")), [sent, expired]),
        (Filter(status=(Status.FAILED,), code=("250",)), []),
    ]:
        assert [view.id for view in await listed(reader, selection)] == ids, selection


async def test_the_result_is_that_of_the_end_or_of_the_accepted_attempt(
    rows: Rows, reader: PostgresReader
) -> None:
    now = rows.now
    for state, (status, _) in STATES.items():
        view = await view_of(reader, await add_state(rows, state))
        assert (view.result is not None) == (status in FINAL), state
    failed = await view_of(reader, await rows.add(end={}, attempts=[refused(provider="relay")]))
    assert failed.result == ResultView(
        reason="refused", provider="smtp", code="550", detail="no such user", at=now - SECOND
    )
    accepted = {"reference": "SM1", "detail": "queued", "provider": "relay"}
    sent = await view_of(reader, await rows.add(attempts=[refused(), accepted]))
    assert sent.result == ResultView(
        reason=None, provider="relay", code="250", detail="queued", at=now - 2 * SECOND
    )
    assert (sent.provider, sent.reference) == ("relay", "SM1")
    assert sent.attempts[1].reference == "SM1"
    overdue = await view_of(reader, await rows.add(live={"expires_at": now - SECOND}))
    assert overdue.result is not None
    assert (overdue.result.reason, overdue.result.at) == ("ttl", now - SECOND)


async def test_the_content_is_read_only_for_who_asks_for_it(
    rows: Rows, reader: PostgresReader
) -> None:
    id_ = await rows.add(live={})
    assert (await view_of(reader, id_)).content is None
    assert [view.content for view in (await reader.notifications(Filter())).views] == [None]
    view = await reader.get(id_, with_content=True)
    assert view is not None
    assert view.content == b'{"body":"Hello"}'


class TestWaiting:
    async def test_due_rows_are_counted_from_the_beginning_without_a_lease(
        self, rows: Rows, store: PostgresStore
    ) -> None:
        for class_ in (DueClass.BACK, DueClass.FIRST, DueClass.RETRY):
            await rows.add(live={"class": class_, "ready_at": rows.now - 60 * SECOND})
        await rows.add(live={"due_at": rows.now + HOUR})
        await rows.add(live=claimed(rows.now))
        await rows.add(EMAIL_LOW, live={})
        waiting = await store.waiting(QUEUES)
        assert {queue: found.due for queue, found in waiting.items() if found.due} == {
            EMAIL_HIGH: 3,
            EMAIL_LOW: 1,
        }
        assert waiting[EMAIL_HIGH].oldest_wait >= 60 * SECOND
        assert waiting[EMAIL_LOW].oldest_wait < 60 * SECOND

    async def test_published_rows_are_not_counted_and_still_wait(
        self, rows: Rows, store: PostgresStore
    ) -> None:
        published = Position(rows.now - 30 * SECOND, new_id())
        await rows.add(live={"due_at": published.due_at - SECOND, "ready_at": published.due_at})
        await rows.add(live={})
        await rows.progress(EMAIL_HIGH, Progress(floors={DueClass.FIRST: published}))
        waiting = (await store.waiting([EMAIL_HIGH]))[EMAIL_HIGH]
        assert waiting.due == 1
        assert waiting.oldest_wait >= 30 * SECOND

    async def test_the_oldest_wait_is_looked_for_from_the_mark_on(
        self, rows: Rows, store: PostgresStore
    ) -> None:
        mark = Position(rows.now - 30 * SECOND, new_id())
        await rows.add(live={"due_at": mark.due_at - SECOND, "ready_at": rows.now - HOUR})
        await rows.add(live={"due_at": mark.due_at + SECOND, "ready_at": rows.now - 60 * SECOND})
        await rows.progress(EMAIL_HIGH, Progress(marks={DueClass.FIRST: mark}))
        waiting = (await store.waiting([EMAIL_HIGH]))[EMAIL_HIGH]
        assert waiting.due == 2
        assert 60 * SECOND <= waiting.oldest_wait < HOUR

    async def test_a_row_that_its_acceptor_publishes_is_counted_after_2_s(
        self, rows: Rows, store: PostgresStore
    ) -> None:
        class_ = {"class": DueClass.DIRECT}
        await rows.add(live=class_ | {"due_at": rows.now - 9 * SECOND})
        await rows.add(live=class_ | {"due_at": rows.now + 30 * SECOND})
        assert (await store.waiting([EMAIL_HIGH]))[EMAIL_HIGH].due == 1

    async def test_rows_out_of_time_do_not_wait(self, rows: Rows, store: PostgresStore) -> None:
        await rows.add(live={"ready_at": rows.now - HOUR, "expires_at": rows.now - SECOND})
        assert (await store.waiting([EMAIL_HIGH]))[EMAIL_HIGH].oldest_wait == timedelta(0)


async def test_the_backlog_is_estimated_from_the_statistics(
    rows: Rows, store: PostgresStore, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    assert await store.estimate_backlog() == 0
    for _ in range(3):
        await rows.add(live={})
    await connection.execute("ANALYZE live")
    assert await store.estimate_backlog() == 3


async def test_a_view_has_the_notifications_of_its_tenant_and_mode_alone(
    store: PostgresStore, reader: PostgresReader
) -> None:
    shop, test_queue = TenantId("shop"), QueueKey.parse("test.low")
    rows = {
        "live": a_notification(),
        "live of the shop": a_notification(tenant=shop),
        "test": a_notification(test_queue, test_channel="email"),
        "test of the shop": a_notification(test_queue, test_channel="email", tenant=shop),
        "text of the shop": a_notification(test_queue, test_channel="sms", tenant=shop),
    }
    await store.insert(list(rows.values()))
    seen = {
        View(): {"live", "live of the shop"},
        View(DEFAULT_TENANT): {"live"},
        View(shop): {"live of the shop"},
        View(None, Mode.TEST): {"test", "test of the shop", "text of the shop"},
        View(shop, Mode.TEST): {"test of the shop", "text of the shop"},
        View(TenantId("bank")): set(),
    }
    names = {row.id: name for name, row in rows.items()}
    for view, expected in seen.items():
        for selection in (Filter(view=view), Filter(view=view, status=(Status.QUEUED,))):
            page = await reader.notifications(selection)
            assert {names[row.id] for row in page.views} == expected, view
        found = {name for name, row in rows.items() if await reader.get(row.id, view=view)}
        assert found == expected, view
    of_channel = Filter(view=View(shop, Mode.TEST), channel=("email",))
    page = await reader.notifications(of_channel)
    assert [names[row.id] for row in page.views] == ["test of the shop"]
    live = await reader.notifications(Filter(view=View(shop), channel=("test",)))
    assert live.views == []


async def test_a_page_of_one_tenant_among_many_rows_of_others_is_found(
    store: PostgresStore, reader: PostgresReader
) -> None:
    shop = TenantId("shop")
    mine = [a_notification(tenant=shop) for _ in range(5)]
    await store.insert(mine)
    for _ in range(4):
        await store.insert([a_notification() for _ in range(500)])
    found = await listed(reader, Filter(view=View(shop), limit=2))
    assert {row.id for row in found} == {row.id for row in mine}
