"""Stored results: the raw figures of every round and their origin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "results"
NOTIFIER = "Notifier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One system measured once; `error` is why a round does not count."""

    workload: str
    system: str
    number: int
    figures: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run of `make bench`: machine, time, versions and rounds."""

    date: str
    """The time to the minute, in UTC."""
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    rounds: Sequence[Round]
    left_out: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The values of one figure over several rounds."""

    median: float
    least: float
    most: float
    rounds: int


Table = Mapping[tuple[str, str, str], Spread]
"""Spreads by workload, system and figure."""


def spreads(rounds: Sequence[Round]) -> Table:
    """Return the spread of every measured figure, in the order of the rounds."""
    values = dict[tuple[str, str, str], list[float]]()
    for one in rounds:
        for figure, value in one.figures.items():
            values.setdefault((one.workload, one.system, figure), []).append(value)
    return {key: spread(many) for key, many in values.items()}


def spread(values: Sequence[float]) -> Spread:
    return Spread(median=median(values), least=min(values), most=max(values), rounds=len(values))


def is_better_high(figure: str) -> bool:
    """Whether more is better: true for rates, false for latencies."""
    return figure.endswith("_per_s") or figure == "per_s"


def ratios(table: Table) -> Mapping[tuple[str, str, str], float]:
    """Return how many times better Notifier's median is, by workload, peer and figure."""
    found = dict[tuple[str, str, str], float]()
    for (workload, system, figure), of in table.items():
        ours = table.get((workload, NOTIFIER, figure))
        if system == NOTIFIER or ours is None or not of.median or not ours.median:
            continue
        better = ours.median / of.median
        found[workload, system, figure] = better if is_better_high(figure) else 1 / better
    return found


def save(results: Results, folder: Path = FOLDER) -> Path:
    """Write the run to a new file."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{results.date.replace(' ', 'T').replace(':', '')}.json"
    path.write_text(json.dumps(asdict(results), indent=1) + "\n")
    return path


def load(folder: Path = FOLDER) -> Sequence[Results]:
    """Return the runs, oldest first, reduced to the latest measurement of each workload."""
    runs, seen = list[Results](), set[str]()
    for path in sorted(folder.glob("*.json"), reverse=True):
        run = _read(path)
        counting = [one for one in run.rounds if one.workload not in seen]
        if counting:
            runs.append(replace(run, rounds=counting))
            seen.update(one.workload for one in counting)
    return runs[::-1]


def _read(path: Path) -> Results:
    found = json.loads(path.read_text())
    return Results(**{**found, "rounds": [Round(**one) for one in found["rounds"]]})
