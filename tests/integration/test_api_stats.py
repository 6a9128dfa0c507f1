"""`/v1/stats` over HTTP."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from typing import Final

import aiohttp
import pytest

from notifier.api.http.cursors import cursor_after_key
from notifier.api.routes.stats import DEFAULT_STEPS
from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.stats import Dimension, Step
from notifier.domain.tenants import TenantId
from notifier.ports.queries import View
from tests.memory_stats import MemoryStats, a_row
from tests.unit.fakes_api import MemoryStore, get_document, make_api, open_client

PATH: Final = "/v1/stats"
get = partial(get_document, PATH)
HOURS: Final = {"from": (datetime.now(UTC) - timedelta(days=2)).isoformat()}


@pytest.fixture
def stats() -> MemoryStats:
    return MemoryStats(a_row(3, tag="=sum"), a_row(2, sent=8), a_row(1))


@pytest.fixture
async def client(stats: MemoryStats) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_client(make_api(MemoryStore(), stats=stats)) as opened:
        yield opened


async def test_a_row_has_counts_and_quantiles(client: aiohttp.ClientSession) -> None:
    row, *_ = (await get(client, HOURS))["items"]
    assert (row["accepted"], row["sent"], row["failed"], row["tag"]) == (1, 1, 2, "=sum")
    assert 0.009 < row["wait_s"]["p50"] < 0.012
    assert set(row["wait_s"]) == {"p50", "p95", "p99"}
    assert row["call_s"] is None


async def test_pages_follow_each_other_up_to_the_same_end(
    client: aiohttp.ClientSession, stats: MemoryStats
) -> None:
    page = await get(client, HOURS)
    rows = page["items"]
    while page["next_cursor"]:
        page = await get(client, {"cursor": page["next_cursor"]})
        rows += page["items"]
    assert [row["sent"] for row in rows] == [1, 8, 1]
    assert len({selection.end for selection in stats.asked}) == 1


@pytest.mark.parametrize("step", Step)
async def test_without_an_instant_the_last_steps_are_shown(
    client: aiohttp.ClientSession, stats: MemoryStats, step: Step
) -> None:
    await get(client, {"step": step})
    [asked] = stats.asked
    assert asked.step is step
    assert asked.begin == step.begin(asked.begin)
    span = asked.end - asked.begin
    assert (DEFAULT_STEPS[step] - 1) * step.span <= span <= DEFAULT_STEPS[step] * step.span


async def test_what_is_asked_for_is_selected(
    client: aiohttp.ClientSession, stats: MemoryStats
) -> None:
    asked = {"from": "2026-11-01T10:59:00+02:00", "to": "2026-11-01T10:00:00Z"}
    await get(client, asked | {"step": "hour", "by": "tag,queue", "tenant": "shop"})
    [selection] = stats.asked
    assert selection.begin == datetime(2026, 11, 1, 8, tzinfo=UTC)
    assert selection.end == datetime(2026, 11, 1, 10, tzinfo=UTC)
    assert selection.by == {Dimension.TAG, Dimension.QUEUE}
    assert selection.view == View(TenantId("shop"), Mode.LIVE)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"step": "week"}, "?step"),
        ({"by": "recipient"}, "?by"),
        ({"from": "yesterday"}, "?from"),
        ({"from": "2026-11-01T10:00:00Z", "to": "2026-11-01T10:00:00Z"}, "?from"),
        ({"tenant": "No"}, "?tenant"),
        ({"limit": "3"}, "?limit"),
        ({"cursor": "abc"}, "?cursor"),
    ],
)
async def test_a_wrong_parameter_is_named(
    client: aiohttp.ClientSession, parameters: dict[str, str], field: str
) -> None:
    problem = await get(client, parameters, 400)
    assert problem["errors"][0]["field"] == field


async def test_a_cursor_belongs_to_what_was_asked(client: aiohttp.ClientSession) -> None:
    cursor = (await get(client, HOURS))["next_cursor"]
    for other in ({"step": "day"}, {"by": "tag"}, {"tenant": "shop"}):
        await get(client, {"cursor": cursor, **other}, 400)


@pytest.mark.parametrize(
    "key", ["", "1", "1 2 3", "a b", f"{10**30} 1", "-1 9e9", "1 253402300800"]
)
async def test_a_made_up_cursor_is_refused(client: aiohttp.ClientSession, key: str) -> None:
    listed = f"stats hour [] None {Mode.LIVE}"
    problem = await get(client, {"cursor": cursor_after_key(key, listed)}, 400)
    assert problem["errors"][0]["field"] == "?cursor"
    assert (await get(client, {"cursor": cursor_after_key("1 2", listed)}))["items"] == []


@pytest.mark.parametrize("instant", ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z"])
async def test_any_instant_is_understood(client: aiohttp.ClientSession, instant: str) -> None:
    await get(client, {"from": instant})
    await get(client, {"to": instant})


async def test_rows_are_written_as_csv(client: aiohttp.ClientSession) -> None:
    headers = {"Accept": "text/csv"}
    async with client.get(PATH, params=HOURS, headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "text/csv"
        assert "Next-Cursor" in response.headers
        [row] = csv.DictReader(StringIO(await response.text()))
    assert (row["sent"], row["tag"], row["call_s.p99"]) == ("1", "'=sum", "")
    assert float(row["wait_s.p99"]) < 0.012


async def test_while_postgres_is_away_the_answer_is_503(
    client: aiohttp.ClientSession, stats: MemoryStats
) -> None:
    stats.error = StoreUnavailable("away")
    problem = await get(client, {}, 503)
    assert problem["type"].endswith(":store-unavailable")
