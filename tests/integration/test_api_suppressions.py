"""`/v1/suppressions` and the links to unsubscribe, over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from notifier.api.suppressions.csv_rows import MAX_ROWS
from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import NotificationId
from notifier.domain.suppressions import SuppressionScope
from notifier.domain.tenants import DEFAULT_TENANT, Tenant
from notifier.domain.unsubscribing import Unsubscribe
from tests.memory_access import memory_auth
from tests.memory_suppressions import MemorySuppressions
from tests.unit.fakes_api import MemoryStore, make_api, open_client

PATH = "/v1/suppressions"
CSV = {"Content-Type": "text/csv; charset=utf-8"}
HEAD = "channel,recipient,reason,expires_at\n"
FORM = "List-Unsubscribe=One-Click"
WISH = Unsubscribe(
    scope=SuppressionScope(DEFAULT_TENANT, Mode.LIVE),
    channel="email",
    topic="news",
    recipient=uuid4(),
    notification=NotificationId(uuid4()),
)


@pytest.fixture
def suppressions() -> MemorySuppressions:
    return MemorySuppressions()


@pytest.fixture
async def client(suppressions: MemorySuppressions) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(MemoryStore(), suppressions=suppressions)) as opened:
        yield opened


async def problem(response: aiohttp.ClientResponse) -> dict[str, Any]:
    assert response.content_type == "application/problem+json"
    document: dict[str, Any] = await response.json(content_type=None)
    return document


async def test_a_suppression_is_made_once_and_what_waits_is_ended(
    client: aiohttp.ClientSession, suppressions: MemorySuppressions
) -> None:
    body = {"channel": "email", "recipient": "Ada <Ada@STRASSE.test>", "note": "by phone"}
    async with client.post(PATH, json=body) as response:
        assert response.status == 201
        made = await response.json()
    assert (made["recipient"], made["reason"]) == ("ada@strasse.test", "manual")
    assert (made["topic"], made["expires_at"], made["note"]) == (None, None, "by phone")
    assert [str(id_) for id_ in suppressions.suppressed] == [made["id"]]
    async with client.post(PATH, json=body | {"recipient": "ada@strasse.test"}) as response:
        assert (response.status, (await response.json())["id"]) == (200, made["id"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"channel": "fax"}, "channel"),
        ({"recipient": "ada"}, "recipient"),
        ({"recipient": "Ada <a@b>, eve@example.com"}, "recipient"),
        ({"channel": "sms", "recipient": "015005550006"}, "recipient"),
        ({"topic": "News"}, "topic"),
        ({"topic": ""}, "topic"),
        ({"reason": "erased"}, "reason"),
        ({"note": "a\nb"}, "note"),
        ({"note": "x" * 301}, "note"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"for_s": 5}, "for_s"),
    ],
    ids=str,
)
async def test_the_error_names_a_wrong_field(
    client: aiohttp.ClientSession, changes: dict[str, object], field: str
) -> None:
    body = {"channel": "email", "recipient": "ada@example.com"} | changes
    async with client.post(PATH, json=body) as response:
        assert response.status == 400
        assert [error["field"] for error in (await problem(response))["errors"]] == [field]


async def test_csv_adds_the_right_rows_and_names_the_wrong_ones(
    client: aiohttp.ClientSession,
) -> None:
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = (
        "\ufeff"
        + HEAD
        + f"email,Ada@example.com,bounce,{soon}\r\n"
        + 'sms,"+15005550006",complaint,\r\n'
        + "email,ada@EXAMPLE.com,bounce,\r\n"
        + "email,ada,bounce,\r\n"
        + "email,eve@example.com\r\n"
        + "fax,eve@example.com,gone,\r\n"
    )
    async with client.post(PATH, data=body.encode(), headers=CSV) as response:
        assert response.status == 200
        result = await response.json()
    assert (result["added"], result["existing"]) == (2, 1)
    assert [row["line"] for row in result["problems"]] == [5, 6, 7]
    fields = [row["problem"]["errors"][0]["field"] for row in result["problems"]]
    assert fields == ["recipient", "$", "channel"]


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\x01\x02", b"\xff\xfe", b"name\nada\n", b'channel,recipient\n"'],
    ids=["empty", "binary", "utf-16", "columns", "quote"],
)
async def test_a_file_that_is_no_csv_is_refused(
    client: aiohttp.ClientSession, suppressions: MemorySuppressions, body: bytes
) -> None:
    async with client.post(PATH, data=body, headers=CSV) as response:
        assert response.status == 400
        assert (await problem(response))["errors"][0]["field"] == "$"
    assert suppressions.stored == {}


async def test_ten_thousand_rows_are_taken_and_one_more_is_not(
    client: aiohttp.ClientSession, suppressions: MemorySuppressions
) -> None:
    row = "sms,+15005550006\n"
    async with client.post(
        PATH, data=("channel,recipient\n" + row * (MAX_ROWS + 1)).encode(), headers=CSV
    ) as response:
        assert response.status == 400
        assert "10,000" in (await problem(response))["detail"]
    assert suppressions.stored == {}
    async with client.post(
        PATH, data=("channel,recipient\n" + row * MAX_ROWS).encode(), headers=CSV
    ) as response:
        assert await response.json() == {"added": 1, "existing": MAX_ROWS - 1, "problems": []}


async def test_another_type_and_a_huge_file_are_refused(client: aiohttp.ClientSession) -> None:
    async with client.post(PATH, data=b"x", headers={"Content-Type": "text/plain"}) as response:
        assert response.status == 415
    async with client.post(PATH, data=BytesIO(b"x" * (5 * 1024 * 1024)), headers=CSV) as response:
        assert response.status == 413


async def test_a_list_has_pages_and_filters(client: aiohttp.ClientSession) -> None:
    made = []
    for channel, recipient in (
        ("email", "ada@example.com"),
        ("email", "eve@example.com"),
        ("sms", "+15005550006"),
    ):
        async with client.post(PATH, json={"channel": channel, "recipient": recipient}) as response:
            made.append((await response.json())["id"])
    params = {"channel": "email", "limit": "1"}
    async with client.get(PATH, params=params) as response:
        page = await response.json()
    assert [row["id"] for row in page["items"]] == [made[1]]
    params["cursor"] = page["next_cursor"]
    async with client.get(PATH, params=params) as response:
        page = await response.json()
    assert ([row["id"] for row in page["items"]], page["next_cursor"]) == ([made[0]], None)
    async with client.get(PATH, params={"recipient": "ADA@example.com"}) as response:
        assert [row["id"] for row in (await response.json())["items"]] == [made[0]]
    for query in ("channel=fax", "reason=refused", "cursor=x", "colour=red", "limit=0"):
        async with client.get(f"{PATH}?{query}") as response:
            assert response.status == 400, query


async def test_a_suppression_is_deleted_by_its_id(client: aiohttp.ClientSession) -> None:
    body = {"channel": "email", "recipient": "ada@example.com"}
    async with client.post(PATH, json=body) as response:
        id_ = (await response.json())["id"]
    async with client.delete(f"{PATH}/{id_}") as response:
        assert (response.status, await response.read()) == (204, b"")
    for name in (id_, str(uuid4()), "x", "%00"):
        async with client.delete(f"{PATH}/{name}") as response:
            assert response.status == 404, name


async def test_an_outage_is_answered_503(
    client: aiohttp.ClientSession, suppressions: MemorySuppressions
) -> None:
    suppressions.error = StoreUnavailable("away")
    body = {"channel": "email", "recipient": "ada@example.com"}
    async with client.post(PATH, json=body) as response:
        assert response.status == 503
    async with client.get("/v1/unsubscribe/x") as response:
        assert response.status == 503


@pytest.fixture
def link(suppressions: MemorySuppressions) -> str:
    suppressions.wishes["token"] = WISH
    return "/v1/unsubscribe/token"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_looking_at_the_page_changes_nothing(
    client: aiohttp.ClientSession, suppressions: MemorySuppressions, link: str, method: str
) -> None:
    for _ in range(3):  # programs that scan mails follow links, with parameters of their own
        async with client.request(method, f"{link}?utm_source=scanner") as response:
            assert (response.status, response.content_type) == (200, "text/html")
            assert "form-action 'self'" in response.headers["Content-Security-Policy"]
            assert response.headers["Cache-Control"] == "no-store"
            assert (await response.text()).count("<button>") == (1 if method == "GET" else 0)
    assert suppressions.stored == {}


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (FORM, "application/x-www-form-urlencoded"),
        (
            (
                '--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\n'
                "One-Click\r\n--b--\r\n"
            ),
            "multipart/form-data; boundary=b",
        ),
        (
            (
                '--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n'
                "Content-Type: text/plain\r\n\r\nOne-Click\r\n--b--\r\n"
            ),
            "multipart/form-data; boundary=b",
        ),
    ],
)
async def test_one_click_unsubscribes_and_tells_nothing_of_the_recipient(
    client: aiohttp.ClientSession,
    suppressions: MemorySuppressions,
    link: str,
    body: str,
    media_type: str,
) -> None:
    pages = []
    for _ in range(2):
        async with client.post(link, data=body, headers={"Content-Type": media_type}) as response:
            assert response.status == 200
            pages.append(await response.text())
    (stored,) = suppressions.stored.values()
    assert (stored.channel, stored.topic, stored.reason) == ("email", "news", "unsubscribe")
    assert pages[0] == pages[1]  # nor whether it was unsubscribed before
    assert str(WISH.recipient) not in pages[0]
    assert set(suppressions.suppressed) == {stored.id}


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        ("", "application/x-www-form-urlencoded", 400),
        ("List-Unsubscribe=Two-Clicks", "application/x-www-form-urlencoded", 400),
        (json.dumps({"List-Unsubscribe": "One-Click"}), "application/json", 415),
        ("x" * 10_000, "application/x-www-form-urlencoded", 413),
        (FORM, "multipart/form-data; boundary=b", 400),
    ],
)
async def test_another_post_does_nothing(
    client: aiohttp.ClientSession,
    suppressions: MemorySuppressions,
    link: str,
    body: str,
    media_type: str,
    status: int,
) -> None:
    async with client.post(link, data=body, headers={"Content-Type": media_type}) as response:
        assert response.status == status
    assert suppressions.stored == {}


async def test_the_page_shows_the_title_that_the_tenant_gave_the_topic(
    suppressions: MemorySuppressions, link: str
) -> None:
    tenant = Tenant(
        id=WISH.scope.tenant,
        note="",
        created_at=datetime.now(UTC),
        topics={WISH.topic: "News & <more>"},
    )
    auth, _ = memory_auth(tenants=[tenant])
    await auth.keyring.read()
    app = make_api(MemoryStore(), suppressions=suppressions, auth=auth)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with open_client(app) as client:
        async with client.get(link) as response:
            assert "from News &amp; &lt;more&gt;?" in await response.text()
        async with client.post(link, data=FORM, headers=headers) as response:
            assert "from News &amp; &lt;more&gt;<" in await response.text()


@pytest.mark.parametrize("token", ["other", "token%20", "%00", "x" * 2000])
async def test_an_unknown_link_is_answered_404_alike(
    client: aiohttp.ClientSession, suppressions: MemorySuppressions, link: str, token: str
) -> None:
    assert link
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with client.get(f"/v1/unsubscribe/{token}") as response:
        assert (response.status, response.content_type) == (404, "text/html")
    async with client.post(f"/v1/unsubscribe/{token}", data=FORM, headers=headers) as response:
        assert (response.status, response.content_type) == (404, "text/html")
    assert suppressions.stored == {}
