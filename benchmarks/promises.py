"""The stored results of `make prove`: one row per figure, the newest of each measurement."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).parent / "results/promised.tsv"


class Row(NamedTuple):
    line: str
    figure: str
    target: str
    measured: str
    verdict: str
    commit: str


def load(path: Path = PATH) -> list[Row]:
    """Return the rows in the order of their first measurement; none without a file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [Row(*row) for row in csv.reader(file, delimiter="\t")]


def save(rows: Sequence[Row], path: Path = PATH) -> None:
    """Replace the older rows of the same measurements."""
    before = load(path)
    path.parent.mkdir(exist_ok=True)
    order = dict.fromkeys(row.line for row in [*before, *rows])
    again = {row.line for row in rows}
    kept = [row for row in before if row.line not in again]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows(row for line in order for row in [*kept, *rows] if row.line == line)
