"""PromQL expressions that are right for any number of processes.

Figures of one process are summed. Of figures that every process reports about the deployment, the
maximum is taken (see notifier/adapters/telemetry/metrics.py). `by` and `where` are label lists and
matchers, as in PromQL.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = "$__rate_interval"
PROCESS: Final = "job, instance"
"""The labels that identify a process."""

BY_PRIORITY: Final = '"priority", "$1", "queue", ".+[.](.+)"'


def per_second(counter: str, *, by: str = "", where: str = "") -> str:
    """Return a counter's rate per second, summed over processes."""
    return f"sum{_by(by)} (rate({_series(counter, where)}[{WINDOW}]))"


def counted(counter: str, *, by: str = "", where: str = "") -> str:
    """Return a counter's increase within the window, summed over processes."""
    return f"sum{_by(by)} (increase({_series(counter, where)}[{WINDOW}]))"


def quantile(part: float, histogram: str, *, by: str = "", where: str = "") -> str:
    """Return the value below which `part` of the observations are."""
    groups = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({part:g}, {per_second(f'{histogram}_bucket', by=groups, where=where)})"
    )


def quantile_by_priority(part: float, histogram: str) -> str:
    """Return the quantile over all queues of each priority."""
    buckets = f"label_replace(rate({histogram}_bucket[{WINDOW}]), {BY_PRIORITY})"
    return f"histogram_quantile({part:g}, sum by (le, priority) ({buckets}))"


def total(gauge: str, *, by: str = "", where: str = "") -> str:
    """Return a gauge of single processes, summed over them."""
    return f"sum{_by(by)} ({_series(gauge, where)})"


def seen(gauge: str, *, by: str = "", where: str = "") -> str:
    """Return a gauge of the deployment. Processes that do not measure it report 0."""
    return f"max{_by(by)} ({_series(gauge, where)})"


def promised_by_priority() -> str:
    """Return the wait that each priority promises."""
    targets = f"label_replace(notifier_target_wait_seconds, {BY_PRIORITY})"
    return f"max by (priority) ({targets})"


def share(part: str, whole: str) -> str:
    """Return `part` / `whole`, and 0 where `whole` is 0. Both must have the same labels."""
    return f"{part} / ({whole} > 0) or 0 * {whole}"


def ours(metric: str) -> str:
    """Return a metric of the Python client, of Notifier's processes only."""
    return f"{metric} and on ({PROCESS}) notifier_build_info"


def of_workers(expression: str) -> str:
    """Return an expression by process, without the processes that have no consumers."""
    return f"{expression} and {total('notifier_consumers', by=PROCESS)} > 0"


def worst(gauge: str, label: str, ranks: dict[str, int], *, by: str = "", where: str = "") -> str:
    """Return the highest rank of a state that any process reports; 0 if there is none.

    The gauge is 1 for the present state, and `label` holds the state's name.
    """
    matchers = f", {where}" if where else ""
    states = " or ".join(
        f'{rank} * {gauge}{{{label}="{state}"{matchers}}}' for state, rank in ranks.items()
    )
    return f"max{_by(by)} ({states})"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _series(metric: str, where: str) -> str:
    return f"{metric}{{{where}}}" if where else metric
