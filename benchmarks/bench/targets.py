"""The promised figures of the workloads, as rows like those of `make prove`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks.bench.results import NOTIFIER, Results, Table, ratios, spreads
from benchmarks.promises import Row


class Target(NamedTuple):
    """A target: `measure` returns the figure or None; `bound` is a minimum unless `most`."""

    workload: str
    says: str
    measure: Callable[[Table], float | None]
    bound: float
    unit: str
    most: bool = False

    def row(self, table: Table, commit: str) -> Row | None:
        found = self.measure(table)
        if found is None:
            return None
        is_met = found <= self.bound if self.most else found >= self.bound
        target = f"{'<=' if self.most else '>='} {self.bound:,g}{self.unit}"
        measured = f"{found:,.0f}{self.unit}" if found >= 100 else f"{found:.2f}{self.unit}"
        verdict = "met" if is_met else "missed"
        return Row(self.workload, self.says, target, measured, verdict, commit)


def _beside(workload: str, peer: str = "") -> Callable[[Table], float | None]:
    """Return Notifier's rate as a multiple of a peer's, or of the fastest peer's."""

    def measure(table: Table) -> float | None:
        found = [
            ratio
            for (which, system, figure), ratio in ratios(table).items()
            if which == workload and figure == "per_s" and peer in {"", system}
        ]
        return min(found, default=None)

    return measure


def _rate(table: Table) -> float | None:
    ours = table.get(("submit_batch_2", NOTIFIER, "per_s"))
    return ours.median if ours else None


def _hot(table: Table) -> float | None:
    ours = table.get(("drain", NOTIFIER, "hot_live_percent"))
    return ours.median if ours else None


def _change(table: Table) -> float | None:
    before = table.get(("hang", NOTIFIER, "p99_before_ms"))
    during = table.get(("hang", NOTIFIER, "p99_during_ms"))
    return during.median / before.median if before and during else None


TARGETS = (
    Target("submit_2", "single submits, beside the fastest peer", _beside("submit_2"), 3, " x"),
    Target("submit_batch_2", "submits in batches", _rate, 20_000, " /s"),
    Target("drain", "drained, beside pgqueuer", _beside("drain", "pgqueuer"), 1.1, " x"),
    Target(
        "drain", "drained, beside graphile-worker", _beside("drain", "graphile-worker"), 0.8, " x"
    ),
    Target("drain", "drained, beside Dramatiq", _beside("drain", "Dramatiq"), 2.5, " x"),
    Target("drain", "HOT updates of live", _hot, 90, " %"),
    Target("past", "drained, beside an empty database", _beside("past"), 0.9, " x"),
    Target(
        "hang", "p99 of urgent email while SMS hang, compared with before", _change, 1.1, " x", True
    ),
)


def rows(runs: Sequence[Results]) -> Iterator[Row]:
    """Return the rows of the targets that were measured."""
    tables = [(spreads(run.rounds), str(run.machine["commit"])) for run in runs]
    for target in TARGETS:
        for table, commit in tables:
            if row := target.row(table, commit):
                yield row
