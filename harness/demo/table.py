"""The live table of the demo and its final table."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from harness.demo.comparison import FateTotals
from harness.demo.figures import Figures
from notifier.api.responses import Queue

RATE_READINGS = 4
"""Rates are measured over this many readings."""


class LiveTable:
    """A row for each queue. Keeps the last readings to compute how many are sent a second."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, Counter[str]]] = deque(maxlen=RATE_READINGS)

    def draw(self, queues: Sequence[Queue], figures: Figures) -> Table:
        """A row for every queue, then the sum of each column."""
        self._sent.append((time.monotonic(), figures.sent))
        rows = [self._row(queue, figures) for queue in queues]
        table = Table(title=f"{figures.finished:,} finished")
        for name in ("queue", "ready", "due", "consumers", "sent/s", "sent", "retries", "failed"):
            table.add_column(name, justify="left" if name == "queue" else "right")
        for row in rows:
            table.add_row(row[0], *(f"{value:,}" for value in row[1:]))
        table.add_section()
        sums = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
        table.add_row("all", *(f"{value:,}" for value in sums), style="bold")
        return table

    def _row(self, queue: Queue, figures: Figures) -> tuple[str, *tuple[int, ...]]:
        name = queue.queue
        return (
            name,
            queue.ready,
            queue.due,
            queue.consumers,
            self._rate(name),
            figures.sent[name],
            figures.retries[name],
            figures.failed[name],
        )

    def _rate(self, name: str) -> int:
        (start, before), (end, now) = self._sent[0], self._sent[-1]
        return round((now[name] - before[name]) / (end - start)) if end > start else 0


def draw_totals(totals: Sequence[FateTotals]) -> Table:
    """For each fate: the statuses of the API, the planned calls and those of the sandbox's log."""
    table = Table(title="results", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("recipients", no_wrap=True)
    for name in ("all", "sent", "failed", "planned", "calls"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for total in totals:
        table.add_row(
            f"{total.fate.name}: {total.fate.meaning}",
            f"{total.submitted:,}",
            f"{total.sent:,}",
            f"{total.failed:,}",
            f"{total.submitted * total.fate.calls:,}",
            f"{total.calls:,}",
            "[red]differs[/]" if total.wrong else "[green]agrees[/]",
        )
    return table
