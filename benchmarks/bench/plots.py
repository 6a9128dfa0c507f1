"""`plots.py FOLDER`, rows on stdin; run by the Python of .cache/bench/venv, which has matplotlib.

One horizontal bar chart a workload; the line across a bar is the least and the most.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

mpl.rcParams["svg.hashsalt"] = "notifier"  # the same figures give the same file


class Bar(NamedTuple):
    workload: str
    title: str
    unit: str
    system: str
    median: float
    least: float
    most: float


def main(folder: Path) -> None:
    bars = [_read(line) for line in sys.stdin.read().splitlines()]
    for workload, group in groupby(bars, key=lambda bar: bar.workload):
        _draw(folder / f"{workload}.svg", list(group))


def _read(line: str) -> Bar:
    workload, title, unit, system, *figures = line.split("\t")
    return Bar(workload, title, unit, system, *map(float, figures))


def _draw(path: Path, bars: list[Bar]) -> None:
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(bars) + 1.1))
    spans = [[bar.median - bar.least for bar in bars], [bar.most - bar.median for bar in bars]]
    colours = ["#1f6feb" if bar.system == "Notifier" else "#9aa4b2" for bar in bars]
    names = [bar.system for bar in bars]
    axes.barh(names, [bar.median for bar in bars], xerr=spans, color=colours, capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(bars[0].unit)
    axes.set_title(bars[0].title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
