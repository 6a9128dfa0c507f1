"""The part of docs/performance.md that shows what the sends of a workload cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from benchmarks.bench.cost import RECEIVERS
from benchmarks.bench.results import Table, ratios

WHOLE = "cpu_us"
GROUP = re.compile(r"cpu_([a-z0-9_-]+)_us")
STATEMENT = re.compile(r"cpu_postgres\.([a-z_]+)_us")
HOT = re.compile(r"hot_([a-z_]+)_percent")
LABELS: Mapping[str, str] = {
    "worker": "workers",
    "api": "API",
    "postgres": "Postgres",
    "rabbitmq": "RabbitMQ",
    "redis": "Redis",
}
"""The column heads of process groups; another group has its own name."""
SHOWN_US = 0.5
"""A statement that takes less is not shown."""


def is_cost(figure: str) -> bool:
    """Whether a figure belongs to this part, and not to the table of rates and waits."""
    return figure.startswith(("cpu_", "hot_")) or figure == "wal_bytes"


def costs(table: Table, workload: str) -> Iterator[str]:
    """Return the lines of one workload; none where its results have no such figures."""
    medians = {
        (system, figure): of.median
        for (which, system, figure), of in table.items()
        if which == workload and is_cost(figure)
    }
    systems = list(dict.fromkeys(system for system, figure in medians if figure == WHOLE))
    if not systems:
        return
    groups = _groups(medians)
    better = ratios(table)
    heads = ["CPU us per notification", "all", *(LABELS.get(one, one) for one in groups)]
    yield from ("", f"| {' | '.join([*heads, 'Notifier is better by'])} |")
    yield "|---|" + "---:|" * (len(heads))
    for system in systems:
        ratio = better.get((workload, system, WHOLE))
        figures = [WHOLE, *(f"cpu_{group}_us" for group in groups)]
        cells = [_us(medians.get((system, figure))) for figure in figures]
        beside = "" if ratio is None else f"{ratio:.2f} x"
        yield f"| {' | '.join([system, *cells, beside])} |"
    yield from _details(medians, systems)


def _groups(medians: Mapping[tuple[str, str], float]) -> list[str]:
    """Return the process groups in the order of their first appearance, receivers last."""
    found = dict.fromkeys(
        match[1] for _, figure in medians if (match := GROUP.fullmatch(figure)) is not None
    )
    return sorted(found, key=lambda group: group in RECEIVERS)


def _details(medians: Mapping[tuple[str, str], float], systems: list[str]) -> Iterator[str]:
    """Return a line for each system that keeps rows in Postgres."""
    for system in systems:
        own = {figure: value for (which, figure), value in medians.items() if which == system}
        parts = [f"{own['wal_bytes']:,.0f} bytes of WAL"] if "wal_bytes" in own else []
        parts += [
            f"{value:.0f} % of the updates of {match[1]} are HOT"
            for figure, value in own.items()
            if (match := HOT.fullmatch(figure)) is not None
        ]
        statements = {
            match[1]: value
            for figure, value in own.items()
            if (match := STATEMENT.fullmatch(figure)) is not None and value >= SHOWN_US
        }
        if statements:
            order = sorted(statements, key=lambda name: -statements[name])
            each = ", ".join(f"{name} {statements[name]:.1f}" for name in order)
            parts.append(f"us of Postgres by statement: {each}")
        if parts:
            yield from ("", f"{system}, per notification: {'; '.join(parts)}.")


def _us(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
