"""Queries that are right for any number of processes, as the docstring of the metrics has it.

What a process counts or holds itself is summed; what every process says of the deployment is taken
at its maximum. `by` and `where` are label lists and matchers, as in PromQL.
"""

from __future__ import annotations

from typing import Final

WINDOW: Final = "$__rate_interval"
PROCESS: Final = "job, instance"
"""The labels that tell one process from another."""

BY_PRIORITY: Final = '"priority", "$1", "queue", ".+[.](.+)"'


def per_second(counter: str, *, by: str = "", where: str = "") -> str:
    """How often a second, all processes together."""
    return f"sum{_by(by)} (rate({_series(counter, where)}[{WINDOW}]))"


def counted(counter: str, *, by: str = "", where: str = "") -> str:
    """How often within the window, all processes together."""
    return f"sum{_by(by)} (increase({_series(counter, where)}[{WINDOW}]))"


def quantile(part: float, histogram: str, *, by: str = "", where: str = "") -> str:
    """What `part` of the observations stayed below."""
    groups = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({part:g}, {per_second(f'{histogram}_bucket', by=groups, where=where)})"
    )


def quantile_by_priority(part: float, histogram: str) -> str:
    """The same for the queues of each priority together."""
    buckets = f"label_replace(rate({histogram}_bucket[{WINDOW}]), {BY_PRIORITY})"
    return f"histogram_quantile({part:g}, sum by (le, priority) ({buckets}))"


def total(gauge: str, *, by: str = "", where: str = "") -> str:
    """A gauge of each process, over all of them."""
    return f"sum{_by(by)} ({_series(gauge, where)})"


def seen(gauge: str, *, by: str = "", where: str = "") -> str:
    """A gauge of the deployment: those that do not measure it say 0."""
    return f"max{_by(by)} ({_series(gauge, where)})"


def promised_by_priority() -> str:
    """The wait that each priority promises."""
    targets = f"label_replace(notifier_target_wait_seconds, {BY_PRIORITY})"
    return f"max by (priority) ({targets})"


def share(part: str, whole: str) -> str:
    """0 to 1, and 0 where there is no whole. Both have the same labels."""
    return f"{part} / ({whole} > 0) or 0 * {whole}"


def ours(metric: str) -> str:
    """What the Python client says of any process, of Notifier's alone."""
    return f"{metric} and on ({PROCESS}) notifier_build_info"


def of_workers(expression: str) -> str:
    """By process, without the processes that have no consumers."""
    return f"{expression} and {total('notifier_consumers', by=PROCESS)} > 0"


def worst(gauge: str, label: str, ranks: dict[str, int], *, by: str = "", where: str = "") -> str:
    """The number of the worst state that any process sees; 0 where none of them is.

    The gauge is 1 for the state it is in, and `label` names it.
    """
    more = f", {where}" if where else ""
    states = " or ".join(
        f'{rank} * {gauge}{{{label}="{state}"{more}}}' for state, rank in ranks.items()
    )
    return f"max{_by(by)} ({states})"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def _series(metric: str, where: str) -> str:
    return f"{metric}{{{where}}}" if where else metric
