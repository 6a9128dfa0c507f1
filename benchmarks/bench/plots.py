"""`plots.py FOLDER` draws plots of the rows on stdin; it needs the matplotlib of .cache/bench/venv.

One horizontal bar chart or one curve per workload; error bars show minimum and maximum.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.rcParams["svg.hashsalt"] = "notifier"  # equal figures give equal files


class Bar(NamedTuple):
    workload: str
    title: str
    unit_of_x: str
    unit: str
    system: str
    median: float
    least: float
    most: float


def main(folder: Path) -> None:
    read = [_read(line) for line in sys.stdin.read().splitlines()]
    for workload, group in groupby(read, key=lambda bar: bar.workload):
        bars = list(group)
        draw = _draw_curve if bars[0].unit_of_x else _draw_bars
        draw(folder / f"{workload}.svg", bars)


def _read(line: str) -> Bar:
    *words, median, least, most = line.split("\t")
    return Bar(*words, float(median), float(least), float(most))


def _draw_bars(path: Path, bars: list[Bar]) -> None:
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(bars) + 1.1))
    colours = ["#1f6feb" if bar.system == "Notifier" else "#9aa4b2" for bar in bars]
    names = [bar.system for bar in bars]
    axes.barh(names, [bar.median for bar in bars], xerr=_spans(bars), color=colours, capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(bars[0].unit)
    _save(path, figure, axes, bars[0].title)


def _draw_curve(path: Path, bars: list[Bar]) -> None:
    figure, axes = plt.subplots(figsize=(7, 3))
    xs = [float(bar.system) for bar in bars]
    ys = [bar.median for bar in bars]
    axes.errorbar(xs, ys, yerr=_spans(bars), color="#1f6feb", marker="o", capsize=3)
    axes.set_ylim(bottom=0)
    axes.set_xticks(xs)
    axes.set_xlabel(bars[0].unit_of_x)
    axes.set_ylabel(bars[0].unit)
    _save(path, figure, axes, bars[0].title)


def _spans(bars: list[Bar]) -> list[list[float]]:
    return [[bar.median - bar.least for bar in bars], [bar.most - bar.median for bar in bars]]


def _save(path: Path, figure: Figure, axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
