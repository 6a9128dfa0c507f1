from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Final
from uuid import UUID

import aiohttp
import msgspec
import pytest
from typing_extensions import override
from yarl import URL

from notifier.api.http.pages import item_type
from notifier.api.routes.route import Route
from notifier.api.routes.table import ROUTES
from notifier.domain.errors import StoreUnavailable
from notifier.domain.lookups import LookupRules
from notifier.domain.notification import NotificationId, ResultView, Status
from notifier.ports.queries import ALL_LIVE, View
from tests.unit.fakes_api import MemoryStore, make_api, make_rules, open_client, submit_body

NOTIFICATIONS = "/v1/notifications"
UNKNOWN_ID = UUID("01a22375-b455-7605-a5d8-2a5c96469f96")

AS_CSV: Final = {"Accept": "text/csv"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def client(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(store)) as client:
        yield client


async def fields_in(response: aiohttp.ClientResponse) -> list[str]:
    """The fields that a problem names."""
    problem = await response.json(content_type=None)
    return [error["field"] for error in problem["errors"]]


async def submit(client: aiohttp.ClientSession, **changes: object) -> str:
    async with client.post(NOTIFICATIONS, json=submit_body(**changes)) as response:
        assert response.status == 202
        notification_id: str = (await response.json())["id"]
        return notification_id


async def test_an_explanation_is_shown_with_its_blockers(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    notification_id = await submit(client)
    url = f"{NOTIFICATIONS}/{notification_id}/explain"
    async with client.get(url) as response:
        body = await response.json()
    [view] = store.views.values()
    assert body == {
        "id": notification_id,
        "status": "queued",
        "queue": "email.high",
        "as_of_at": "2030-01-31T08:00:00Z",
        "expires_at": msgspec.to_builtins(view.expires_at),
        "blockers": [
            {
                "kind": "pause",
                "name": "queue:email.high",
                "until_at": "2030-01-31T08:00:05Z",
                "detail": "by key:8Rk2vQ0ZpLx1: wrong newsletter",
            }
        ],
        "ahead": {"count": 4210, "is_exact": True},
        "expected": {
            "earliest_at": "2030-01-31T08:00:05Z",
            "latest_at": "2030-02-01T08:00:05Z",
        },
    }
    store.fail(view.id)
    async with client.get(url) as response:
        body = await response.json()
    assert (body["status"], body["blockers"], body["expected"]) == ("failed", [], None)
    assert body["ahead"] == {"count": 0, "is_exact": True}


@pytest.mark.parametrize("which", [str(UNKNOWN_ID), "x", f"{{{UNKNOWN_ID}}}"])
async def test_what_is_no_id_of_a_notification_has_no_explanation(
    client: aiohttp.ClientSession, which: str
) -> None:
    async with client.get(f"{NOTIFICATIONS}/{which}/explain") as response:
        assert response.status == 404


async def test_an_explanation_takes_no_parameter(client: aiohttp.ClientSession) -> None:
    async with client.get(f"{NOTIFICATIONS}/{UNKNOWN_ID}/explain?tenant=shop") as response:
        assert response.status == 400
        assert await fields_in(response) == ["?tenant"]


async def test_a_notification_is_shown_with_its_attempts(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    notification_id = await submit(client, metadata={"order": 7}, max_tries=3)
    store.fail(next(iter(store.views)))
    url = f"{NOTIFICATIONS}/{notification_id}?include=content"
    async with client.get(url) as response:
        body = await response.json()
    assert body["id"] == notification_id
    assert (body["status"], body["tries"], body["last_error"]) == (Status.FAILED, 1, "550")
    assert (body["channel"], body["priority"], body["queue"]) == ("email", "high", "email.high")
    assert body["content"] == {"subject": "Your code", "body": "123456"}
    assert body["metadata"] == {"order": 7}
    assert [(attempt["number"], attempt["outcome"]) for attempt in body["attempts"]] == [
        (1, "refused")
    ]
    assert (body["provider"], body["reference"], body["sent_at"]) == ("smtp", None, None)
    assert body["result"] == {
        "reason": "refused",
        "provider": "smtp",
        "code": "550",
        "detail": "no such user",
        "at": body["attempts"][0]["finished_at"],
    }
    assert body["created_at"].endswith("Z")


async def test_a_sent_notification_says_when_it_was_sent(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    notification_id = await submit(client)
    (id_,) = store.views
    at = datetime(2026, 1, 1, 8, tzinfo=UTC)
    result = ResultView(reason=None, provider="smtp", code="250", detail=None, at=at)
    store.views[id_] = replace(store.views[id_], status=Status.SENT, result=result, sent_at=at)
    async with client.get(f"{NOTIFICATIONS}/{notification_id}") as response:
        assert (await response.json())["sent_at"] == "2026-01-01T08:00:00Z"


async def test_the_content_is_shown_only_to_who_asks_for_it(
    client: aiohttp.ClientSession,
) -> None:
    notification_id = await submit(client)
    async with client.get(f"{NOTIFICATIONS}/{notification_id}") as response:
        body = await response.json()
    assert "content" not in body
    assert body["result"] is None


@pytest.mark.parametrize("include", ["receipt", "content,attempts", "", "Content"])
async def test_an_unknown_part_of_the_answer_is_refused(
    client: aiohttp.ClientSession, include: str
) -> None:
    async with client.get(f"{NOTIFICATIONS}/{UNKNOWN_ID}?include={include}") as response:
        assert (response.status, await fields_in(response)) == (400, ["?include"])


@pytest.mark.parametrize(
    "name",
    [
        str(UNKNOWN_ID),
        "nonsense",
        "%00",
        "%ff",
        "{" + str(UNKNOWN_ID) + "}",
        UNKNOWN_ID.hex,
        "1" * 36,
    ],
)
async def test_an_unknown_or_malformed_id_is_answered_404(
    client: aiohttp.ClientSession, name: str
) -> None:
    async with client.get(f"{NOTIFICATIONS}/{name}") as response:
        assert (response.status, response.content_type) == (404, "application/problem+json")


async def test_pages_list_each_notification_once_newest_first(
    client: aiohttp.ClientSession,
) -> None:
    submitted = [await submit(client) for _ in range(5)]
    seen: list[str] = []
    params = {"limit": "2"}
    while True:
        async with client.get(NOTIFICATIONS, params=params) as response:
            page = await response.json()
        seen += [row["id"] for row in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == sorted(submitted, reverse=True)


async def test_filters_reach_the_store(client: aiohttp.ClientSession, store: MemoryStore) -> None:
    params = {
        "status": "queued,sent",
        "channel": "email",
        "priority": "low,high",
        "created_from": "2026-01-01T00:00:00Z",
        "created_to": "2026-01-01T02:00:00+02:00",
    }
    async with client.get(NOTIFICATIONS, params=params) as response:
        assert await response.json() == {"items": [], "next_cursor": None}
    (page,) = store.filters
    assert (page.status, page.channel, page.priority) == (
        ("queued", "sent"),
        ("email",),
        ("high", "low"),
    )
    assert page.created_from == page.created_to == 1_767_225_600


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "?limit"),
        ("limit=201", "?limit"),
        ("limit=x", "?limit"),
        ("limit=%D9%A1", "?limit"),
        ("limit=1&limit=2", "?limit"),
        ("cursor=x", "?cursor"),
        ("cursor=%00", "?cursor"),
        ("cursor=%C3%A9%C3%A9", "?cursor"),
        ("status=nowhere", "?status"),
        ("channel=fax", "?channel"),
        ("priority=urgent", "?priority"),
        ("created_from=yesterday", "?created_from"),
        ("created_to=2026-01-01T00:00:00", "?created_to"),
        ("created_to=2026-01-01T00:00:00+02:00", "?created_to"),
        ("status=failed,", "?status"),
        ("status=failed&reason=bored", "?reason"),
        ("reason=refused", "?status"),
        ("status=failed,queued&provider=smtp", "?status"),
        ("code=550", "?status"),
        ("status=failed&code=", "?code"),
        ("status=failed&code=%00", "?code"),
        ("status=failed&provider=" + "x" * 101, "?provider"),
        ("status=failed&code=" + ",".join(map(str, range(21))), "?code"),
        ("include=content", "?include"),
        ("colour=red", "?colour"),
    ],
)
async def test_the_error_names_a_wrong_parameter(
    client: aiohttp.ClientSession, query: str, field: str
) -> None:
    async with client.get(f"{NOTIFICATIONS}?{query}") as response:
        assert (response.status, response.content_type) == (400, "application/problem+json")
        assert await fields_in(response) == [field]


@pytest.fixture
async def searching(store: MemoryStore) -> AsyncIterator[aiohttp.ClientSession]:
    lookups = LookupRules(recipient=True, reference=True, metadata_keys=("order",))
    async with open_client(make_api(store, make_rules(lookups=lookups))) as client:
        yield client


@pytest.mark.parametrize(
    ("query", "recipients"),
    [
        ("%2B15005550006", ("+15005550006",)),
        ("Ada%20%3CAda@Example.com%3E", ("ada@example.com",)),
        ("Ada+<ada@straße.test>,bob@example.com", ("ada@xn--strae-oqa.test", "bob@example.com")),
        ("token<1>", ("token<1>",)),
    ],
)
async def test_a_recipient_is_found_as_it_was_submitted(
    searching: aiohttp.ClientSession, store: MemoryStore, query: str, recipients: tuple[str, ...]
) -> None:
    async with searching.get(URL(f"{NOTIFICATIONS}?recipient={query}")) as response:
        assert response.status == 200
    assert store.filters[-1].recipient == recipients


@pytest.mark.parametrize(
    ("query", "values"),
    [
        (r"a,b", ("a", "b")),
        (r"a\,b", ("a,b",)),
        (r"a%5C%2Cb,c", ("a,b", "c")),
        (r"a\\,b", ("a\\", "b")),
        (r"a\b", (r"a\b",)),
        (r"\,", (",",)),
    ],
)
async def test_a_comma_of_a_value_is_written_after_a_backslash(
    searching: aiohttp.ClientSession, store: MemoryStore, query: str, values: tuple[str, ...]
) -> None:
    url = URL(f"{NOTIFICATIONS}?metadata.order={query}", encoded="%" in query)
    async with searching.get(url) as response:
        assert response.status == 200
    assert store.filters[-1].metadata == (("order", values),)


@pytest.mark.parametrize(
    "query", ["recipient=+15005550006", "recipient=ada@example.com,%20bob@x.org", "q=+1500"]
)
async def test_a_recipient_with_a_blank_that_none_has_is_refused(
    searching: aiohttp.ClientSession, query: str
) -> None:
    async with searching.get(URL(f"{NOTIFICATIONS}?{query}", encoded=True)) as response:
        assert response.status == 400
        (error,) = (await response.json(content_type=None))["errors"]
    assert (error["field"], "%2B" in error["expected"]) == (f"?{query.partition('=')[0]}", True)


async def test_without_keys_live_notifications_and_those_of_tests_are_listed_each_by_its_mode(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    for query, mode in (("", "live"), ("mode=live", "live"), ("mode=test", "test")):
        async with client.get(f"{NOTIFICATIONS}?{query}") as response:
            assert response.status == 200
        assert store.filters[-1].view.mode == mode
    async with client.get(f"{NOTIFICATIONS}?mode=dry") as response:
        assert await fields_in(response) == ["?mode"]


PAGES: Final = [
    route
    for route in ROUTES
    if route.response and "next_cursor" in route.response.__struct_fields__
    if route.id != "listEvents"  # as lines, if at all
]


@pytest.mark.parametrize("route", PAGES, ids=lambda route: route.id)
async def test_every_list_is_answered_as_csv_to_who_asks_for_it(
    client: aiohttp.ClientSession, route: Route
) -> None:
    async with client.get(route.path) as response:
        items = (await response.json())["items"]
    async with client.get(route.path, headers={"Accept": "text/csv"}) as response:
        assert (response.status, response.content_type) == (200, "text/csv")
        head, *rows = csv.reader(StringIO(await response.text(), newline=""), strict=True)
    assert len(rows) == len(items)
    assert route.response is not None
    fields = [field.encode_name for field in msgspec.structs.fields(item_type(route.response))]
    assert list(dict.fromkeys(name.partition(".")[0] for name in head)) == fields


async def test_a_page_as_csv_has_the_same_rows_and_its_cursor_in_a_header(
    client: aiohttp.ClientSession,
) -> None:
    submitted = [await submit(client) for _ in range(3)]
    params, seen = {"limit": "2"}, []
    while True:
        async with client.get(NOTIFICATIONS, params=params, headers=AS_CSV) as response:
            rows = list(csv.DictReader(StringIO(await response.text(), newline="")))
        seen += [row["id"] for row in rows]
        assert all((row["metadata"], row["result.reason"]) == ("{}", "") for row in rows)
        if "Next-Cursor" not in response.headers:
            break
        params["cursor"] = response.headers["Next-Cursor"]
    assert seen == submitted[::-1]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV; q=0.5", "text/csv"),
        ("text/csv, application/json;q=0.9", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("text/csv, application/json", "application/json"),
        ("text/csv;q=0", "application/json"),
        ("text/csv;q=x", "application/json"),
        ("text/html, */*;q=0.8", "application/json"),
        ("text/csv;q=0.1, */*", "application/json"),
        ("text/csv;q=0.2, application/*", "application/json"),
        ("text/csv, */*;q=0.1", "text/csv"),
        ("application/json;q=0.1, text/csv;q=0.2, */*", "text/csv"),
    ],
)
async def test_the_weights_of_accept_decide(
    client: aiohttp.ClientSession, accept: str, media_type: str
) -> None:
    async with client.get(NOTIFICATIONS, headers={"Accept": accept}) as response:
        assert (response.status, response.content_type) == (200, media_type)


async def test_all_wrong_parameters_are_named_at_once(client: aiohttp.ClientSession) -> None:
    query = "state=failed&limit=0&chanel=sms&since=x&priority=urgent"
    async with client.get(f"{NOTIFICATIONS}?{query}") as response:
        problem = await response.json(content_type=None)
    assert problem["detail"] == "5 fields are wrong."
    assert {error["field"]: error["expected"] for error in problem["errors"]} == {
        "?state": "status",
        "?limit": "a whole number from 1 to 200",
        "?chanel": "channel",
        "?since": "created_from",
        "?priority": "one of high, medium, low, or several with commas between them",
    }


async def first_cursor(client: aiohttp.ClientSession, query: str) -> str:
    async with client.get(f"{NOTIFICATIONS}?limit=1&{query}") as response:
        cursor: str = (await response.json())["next_cursor"]
        return cursor


async def test_a_cursor_is_valid_for_the_same_filter_only(client: aiohttp.ClientSession) -> None:
    for _ in range(3):
        await submit(client)
    cursor = await first_cursor(client, "status=queued,sent&channel=email")
    for query, status in [
        ("status=queued,sent&channel=email", 200),
        ("channel=email&status=sent,queued&limit=2", 200),
        ("status=queued&channel=email", 400),
        ("status=queued,sent", 400),
        ("status=queued,sent&channel=email&created_from=2026-01-01T00:00:00Z", 400),
        ("", 400),
    ]:
        async with client.get(f"{NOTIFICATIONS}?{query}&cursor={cursor}") as response:
            assert response.status == status, query
            if status == 400:
                assert await fields_in(response) == ["?cursor"]


@pytest.mark.parametrize("cut", [slice(1, None), slice(-1), slice(0, 22)], ids=str)
async def test_a_cursor_that_was_changed_is_refused(
    client: aiohttp.ClientSession, cut: slice
) -> None:
    for _ in range(2):
        await submit(client)
    cursor = await first_cursor(client, "")
    async with client.get(f"{NOTIFICATIONS}?cursor={cursor[cut]}") as response:
        assert (response.status, await fields_in(response)) == (400, ["?cursor"])


@pytest.mark.parametrize(
    ("instant", "seconds"),
    [
        ("0001-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00+14:00", 0),
        ("1969-12-31T23:59:59.999Z", 0),
        ("1970-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59Z", 253_402_300_799),
        ("9999-12-31T23:59:59-14:00", 253_402_300_800),
    ],
)
@pytest.mark.parametrize("path", [NOTIFICATIONS, "/v1/failures"])
@pytest.mark.parametrize("name", ["created_from", "created_to"])
async def test_every_instant_is_accepted_and_limited_to_what_postgres_can_hold(
    client: aiohttp.ClientSession,
    store: MemoryStore,
    path: str,
    name: str,
    instant: str,
    seconds: int,
) -> None:
    async with client.get(path, params={name: instant}) as response:
        assert response.status == 200
    assert getattr(store.filters[-1], name) == pytest.approx(seconds)


async def test_the_deprecated_failures_are_the_failed_notifications(
    client: aiohttp.ClientSession, store: MemoryStore
) -> None:
    for _ in range(3):
        await submit(client)
    failed = list(store.views)[:2]
    for notification_id in failed:
        store.fail(notification_id)
    params = {"reason": "refused", "limit": "1"}
    async with client.get("/v1/failures", params=params) as response:
        assert response.headers["Deprecation"].startswith("@1")
        assert response.headers["Link"] == (
            f'<{NOTIFICATIONS}?status=failed>; rel="successor-version", '
            '</docs#listFailures>; rel="deprecation"; type="text/html"'
        )
        page = await response.json()
    async with client.get(NOTIFICATIONS, params=params | {"status": "failed"}) as response:
        assert "Deprecation" not in response.headers
        assert await response.json() == page
    (failure,) = page["items"]
    assert (failure["id"], failure["result"]["reason"]) == (str(max(failed)), "refused")
    assert {selection.status for selection in store.filters} == {("failed",)}
    assert {selection.reason for selection in store.filters} == {("refused",)}
    next_page = params | {"cursor": page["next_cursor"]}
    async with client.get("/v1/failures", params=next_page) as response:
        assert [row["id"] for row in (await response.json())["items"]] == [str(min(failed))]


@pytest.mark.parametrize("query", ["status=failed", "status=sent", "colour=red"])
async def test_the_deprecated_failures_take_no_status(
    client: aiohttp.ClientSession, query: str
) -> None:
    async with client.get(f"/v1/failures?{query}") as response:
        assert response.status == 400


async def test_queues_are_a_list_of_one_page(client: aiohttp.ClientSession) -> None:
    async with client.get("/v1/queues") as response:
        page = await response.json()
    (queue,) = page.pop("items")
    assert page == {"next_cursor": None}
    assert queue == {
        "queue": "email.high",
        "ready": 3,
        "due": 1,
        "due_is_exact": True,
        "consumers": 2,
        "busy": 1,
        "rate_per_s": 12.5,
        "oldest_wait_s": 0.25,
        "limited_by": None,
        "limited_by_detail": None,
        "paused": False,
        "configured": True,
        "foreign": 0,
    }


async def test_workers_are_a_list_of_one_page(client: aiohttp.ClientSession) -> None:
    async with client.get("/v1/workers") as response:
        assert await response.json() == {
            "items": [
                {
                    "id": "00000000-0000-0000-0000-000000000007",
                    "kind": "worker",
                    "host": "node-1",
                    "pid": 17,
                    "version": "0.2.0",
                    "started_at": "2030-01-31T08:00:00Z",
                    "beat_at": "2030-01-31T08:00:05Z",
                    "consumers": 64,
                    "busy": 3,
                    "lacks": ["copies"],
                }
            ],
            "next_cursor": None,
        }


@pytest.mark.parametrize(
    "path",
    [NOTIFICATIONS, f"{NOTIFICATIONS}/{UNKNOWN_ID}", "/v1/failures", "/v1/queues", "/v1/workers"],
)
async def test_reads_are_answered_503_without_postgres(
    client: aiohttp.ClientSession, store: MemoryStore, path: str
) -> None:
    store.error = StoreUnavailable("no")
    async with client.get(path) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")


class HangingStore(MemoryStore):
    @override
    async def get(
        self,
        id: NotificationId,
        *,
        view: View = ALL_LIVE,
        with_content: bool = False,
        with_receipts: bool = False,
    ) -> None:
        assert (id in self.views, view, with_content) == (False, ALL_LIVE, False)
        await asyncio.Event().wait()


async def test_a_read_that_hangs_is_answered_503_at_the_deadline() -> None:
    app = make_api(HangingStore(), make_rules(request_deadline_s=0.05))
    async with open_client(app) as client, client.get(f"{NOTIFICATIONS}/{UNKNOWN_ID}") as response:
        assert response.status == 503
