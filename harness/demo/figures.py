"""The counters of `/metrics` that the demo shows."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Figures:
    """Counters of the node by queue, since it started."""

    sent: Counter[str]
    failed: Counter[str]
    retries: Counter[str]
    finished: int


def read_figures(text: str) -> Figures:
    """Read the demo's counters from a Prometheus exposition."""
    counts: dict[tuple[str, str | None], Counter[str]] = defaultdict(Counter)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, sample.labels.get("status")
            counts[key][sample.labels.get("queue", "")] += int(sample.value)
    finished = (
        by_queue for (name, _), by_queue in counts.items() if name == "notifier_finished_total"
    )
    return Figures(
        sent=counts["notifier_finished_total", "sent"],
        failed=counts["notifier_finished_total", "failed"],
        retries=counts["notifier_retries_total", None],
        finished=sum(map(Counter.total, finished)),
    )
