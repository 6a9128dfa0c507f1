"""`/v1/failures/groups` over HTTP."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from typing import Final

import aiohttp
import pytest

from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.failures import HOURS, FailureGroup
from notifier.domain.tenants import TenantId
from notifier.ports.queries import View
from tests.builders import new_id
from tests.memory_failure_groups import MemoryFailureGroups
from tests.unit.fakes_api import MemoryStore, get_document, make_api, open_client

PATH: Final = "/v1/failures/groups"
get = partial(get_document, PATH)
AT: Final = datetime(2026, 12, 1, 14, tzinfo=UTC)
SAMPLE: Final = new_id()
EXHAUSTED: Final = FailureGroup(
    reason="exhausted",
    provider="smtp",
    code="421",
    queues=["email.high", "email.low"],
    count=3,
    first_at=AT,
    last_at=AT + timedelta(minutes=1),
    hours=[0] * (HOURS - 1) + [3],
    sample=SAMPLE,
)
POISON: Final = FailureGroup(
    reason="poison",
    provider="",
    code="",
    queues=["email.low"],
    count=1,
    first_at=AT,
    last_at=AT,
    hours=[1] + [0] * (HOURS - 1),
    sample=SAMPLE,
)


@pytest.fixture
def groups() -> MemoryFailureGroups:
    return MemoryFailureGroups(EXHAUSTED, POISON, is_exact=False)


@pytest.fixture
async def client(groups: MemoryFailureGroups) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(MemoryStore(), failure_groups=groups)) as opened:
        yield opened


async def test_a_group_says_what_failed_where_when_and_how_often(
    client: aiohttp.ClientSession,
) -> None:
    page = await get(client, {})
    assert page["items"][0] == {
        "reason": "exhausted",
        "provider": "smtp",
        "code": "421",
        "queues": ["email.high", "email.low"],
        "count": 3,
        "first_at": "2026-12-01T14:00:00Z",
        "last_at": "2026-12-01T14:01:00Z",
        "hours": [0] * (HOURS - 1) + [3],
        "sample": str(SAMPLE),
    }
    assert (page["is_exact"], page["next_cursor"]) == (False, None)


async def test_what_no_provider_had_has_neither_provider_nor_code(
    client: aiohttp.ClientSession,
) -> None:
    group = (await get(client, {}))["items"][1]
    assert (group["provider"], group["code"]) == (None, None)


async def test_the_page_begins_with_the_first_of_the_last_24_hours(
    client: aiohttp.ClientSession,
) -> None:
    begin = datetime.fromisoformat((await get(client, {}))["begin_at"])
    assert (
        timedelta(hours=HOURS - 1) <= datetime.now(UTC) - begin < timedelta(hours=HOURS, minutes=1)
    )
    assert (begin.minute, begin.second, begin.microsecond) == (0, 0, 0)


async def test_what_is_asked_for_is_selected(
    client: aiohttp.ClientSession, groups: MemoryFailureGroups
) -> None:
    await get(client, {"tenant": "shop", "mode": "test", "channel": "sms,email"})
    [asked] = groups.asked
    assert asked.view == View(TenantId("shop"), Mode.TEST)
    assert asked.channels == ("email", "sms")


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"channel": "fax"}, "?channel"),
        ({"mode": "dry"}, "?mode"),
        ({"tenant": "No"}, "?tenant"),
        ({"limit": "3"}, "?limit"),
        ({"from": "2026-12-01T00:00:00Z"}, "?from"),
    ],
)
async def test_a_wrong_parameter_is_named(
    client: aiohttp.ClientSession, parameters: dict[str, str], field: str
) -> None:
    problem = await get(client, parameters, 400)
    assert problem["errors"][0]["field"] == field


async def test_groups_are_written_as_csv(client: aiohttp.ClientSession) -> None:
    async with client.get(PATH, headers={"Accept": "text/csv"}) as response:
        assert response.content_type == "text/csv"
        row, _ = csv.DictReader(StringIO(await response.text()))
    assert (row["reason"], row["count"]) == ("exhausted", "3")
    assert row["queues"] == '["email.high","email.low"]'


async def test_while_postgres_is_away_the_answer_is_503(
    client: aiohttp.ClientSession, groups: MemoryFailureGroups
) -> None:
    groups.error = StoreUnavailable("away")
    problem = await get(client, {}, 503)
    assert problem["type"].endswith(":store-unavailable")
