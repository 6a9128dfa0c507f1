"""docs/operations.md lists every metric, docs/troubleshooting.md the fields of log events."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from notifier.adapters.telemetry.metrics import Metrics
from notifier.adapters.telemetry.series import Counts
from notifier.domain.notification import Channel, Priority, QueueKey

ROOT: Final = Path(__file__).resolve().parents[2]
OPERATIONS: Final = ROOT / "docs/operations.md"
TROUBLESHOOTING: Final = ROOT / "docs/troubleshooting.md"
QUEUE: Final = QueueKey(Channel("email"), Priority.HIGH)
SUFFIXES: Final = {"counter": "_total", "info": "_info"}


def exposed() -> dict[str, tuple[str, str, str]]:
    """By exposed name: type, label names and HELP of each metric of Notifier."""
    metrics = Metrics([QUEUE], {QUEUE.channel: ["smtp"]}, version="0")
    registered: dict[Collector, list[str]] = metrics.registry._collector_to_names
    return {
        f"{family.name}{SUFFIXES.get(family.type, '')}": (
            family.type,
            ", ".join(label_names(collector, family)),
            family.documentation,
        )
        for collector in registered
        for family in collector.collect()
        if family.name.startswith("notifier_")
    }


def label_names(collector: Collector, family: Metric) -> tuple[str, ...]:
    if isinstance(collector, MetricWrapperBase) and family.type != "info":
        return tuple(collector._labelnames)
    if isinstance(collector, Counts):
        return tuple(collector.label_names)
    return tuple(name for name in family.samples[0].labels if name != "le")


def rows(document: Path, columns: int) -> Iterator[list[str]]:
    """The table rows of a document that have so many columns and begin with a code span."""
    for line in document.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == columns:
            yield cells


def test_the_table_of_metrics_is_complete_and_current() -> None:
    documented = {
        name.strip("`"): (kind, labels.strip("-"), meaning)
        for name, kind, labels, meaning in rows(OPERATIONS, 4)
        if name.startswith("`notifier_")
    }
    assert documented == exposed()


def logged_fields() -> dict[str, set[str]]:
    """By event name, the fields given where the program logs it."""
    fields: dict[str, set[str]] = {}
    for path in (ROOT / "notifier").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            for word in words:
                if isinstance(word, str) and re.fullmatch(r"[a-z]+(_[a-z]+)+", word):
                    names = {keyword.arg for keyword in node.keywords if keyword.arg}
                    fields.setdefault(word, set()).update(names)
    return fields


def test_the_documented_log_events_exist_and_have_the_documented_fields() -> None:
    events = {
        name.strip("`"): set(fields.split(", "))
        for name, fields, _, _ in rows(TROUBLESHOOTING, 4)
        if re.fullmatch(r"`[a-z]+(_[a-z]+)+`", name)
    }
    logged = logged_fields()
    # report_opening() adds these two to the fields of a breaker's opening.
    for event in ("breaker_opened", "breaker_reopened"):
        logged[event] |= {"provider", "reason"}
    assert len(events) > 20
    assert events == {event: logged.get(event, set()) for event in events}
