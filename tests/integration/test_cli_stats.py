"""`notifier stats` against a real API."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest

from notifier.api.http.server import open_server
from notifier.domain.stats import Dimension, Step
from tests.integration.test_cli_api import Cli
from tests.memory_stats import MemoryStats, a_row
from tests.unit.fakes_api import MemoryStore, make_api


@pytest.fixture
def stats() -> MemoryStats:
    return MemoryStats(a_row(2, tag="spring", sent=8), a_row(1, sent=5))


@pytest.fixture
async def cli(stats: MemoryStats, tmp_path: Path) -> AsyncIterator[Cli]:
    app = make_api(MemoryStore(), stats=stats)
    async with open_server(app, host="127.0.0.1", port=0, grace_s=5) as port:
        yield Cli(f"http://127.0.0.1:{port}", tmp_path)


async def test_rows_of_all_pages_are_shown_as_a_table_as_json_and_as_csv(cli: Cli) -> None:
    table = await cli.run("stats", "--by", "tag")
    assert (table.code, table.err) == (0, "")
    header, first, second = table.out.splitlines()
    assert header.split()[:4] == ["at", "tag", "accepted", "sent"]
    assert first.split()[1:4] == ["spring", "8", "8"]
    assert second.split()[1:4] == ["-", "5", "5"]
    shown = json.loads((await cli.run("stats", "--json")).out)
    assert [row["sent"] for row in shown["items"]] == [8, 5]
    rows = list(csv.DictReader(StringIO((await cli.run("stats", "--csv")).out)))
    assert [(row["sent"], row["tag"]) for row in rows] == [("8", "spring"), ("5", "")]


async def test_what_is_asked_for_reaches_the_api(cli: Cli, stats: MemoryStats) -> None:
    options = ("--step", "minute", "--by", "queue,tag", "--to", "2026-11-01T10:00:00Z")
    done = await cli.run("stats", "--from", "2026-11-01T09:00:00Z", *options, "--tenant", "shop")
    assert done.code == 0
    [asked] = stats.asked
    assert (asked.begin.hour, asked.end.hour, asked.step) == (9, 10, Step.MINUTE)
    assert asked.by == {Dimension.QUEUE, Dimension.TAG}
    assert asked.view.tenant == "shop"


async def test_a_span_means_so_long_ago(cli: Cli, stats: MemoryStats) -> None:
    assert (await cli.run("stats", "--from", "6h")).code == 0
    age = datetime.now(UTC) - stats.asked[0].begin
    assert timedelta(hours=6) <= age < timedelta(hours=7, minutes=1)


async def test_the_api_says_what_is_wrong(cli: Cli) -> None:
    done = await cli.run("stats", "--from", "yesterday")
    assert done.code == 1
    assert "from" in done.err
