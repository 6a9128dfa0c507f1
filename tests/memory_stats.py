"""Statistics in memory, behind the port that the API needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from notifier.ports.stats import StatsPage, StatsRow, StatsSelection


class MemoryStats:
    """A StatsReader, which notes what it was asked. Each page has one row of `rows`."""

    def __init__(self, *rows: StatsRow) -> None:
        self.rows = sorted(rows, key=lambda row: row.at)
        self.asked: list[StatsSelection] = []
        self.error: Exception | None = None

    async def stats(self, selection: StatsSelection) -> StatsPage:
        self.asked.append(selection)
        if self.error is not None:
            raise self.error
        found = [row for row in self.rows if selection.begin <= row.at < selection.end]
        return StatsPage(rows=found[:1], next_begin=found[1].at if len(found) > 1 else None)


def a_row(hours_ago: int = 0, *, tag: str | None = None, sent: int = 1) -> StatsRow:
    """Return the row of an hour in which some were sent, each after 10 ms."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return StatsRow(
        at=hour - timedelta(hours=hours_ago),
        queue=None,
        tag=tag,
        provider=None,
        accepted=sent,
        sent=sent,
        delivered=0,
        undelivered=0,
        failed=2,
        expired=0,
        cancelled=0,
        suppressed=0,
        waits=[0] * 14 + [sent],
        calls=[],
    )
