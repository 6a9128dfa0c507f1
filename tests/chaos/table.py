"""Rounds added up: a line a fault, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.chaos.results import Result

HEADS: Final = (
    "fault",
    "rounds",
    "accepted",
    "final",
    "lost",
    "doubled",
    "unmarked",
    "Ambiguous",
    "recovery s: median",
    "most",
    "bound",
)


def line(rounds: Sequence[Result]) -> Sequence[str]:
    """The cells of one fault."""
    recoveries = [one.recovered_s for one in rounds]
    counts = ("accepted", "final", "lost", "doubled", "unmarked", "ambiguous")
    return (
        rounds[0].fault,
        f"{len(rounds)}",
        *(f"{sum(getattr(one, name) for one in rounds):,}" for name in counts),
        seconds(median(recoveries)),
        seconds(max(recoveries)),
        f"{rounds[0].within_s:g}",
    )


def seconds(span_s: float) -> str:
    return "never" if isinf(span_s) else f"{span_s:.1f}"


def show(found: Mapping[str, Sequence[Result]]) -> None:
    """Print what was played: a line a fault, and a line a figure of each load."""
    table = Table(*HEADS, "", title="all rounds on this code")
    loads = Table("load", "figure (its target)", "")
    for name, rounds in found.items():
        is_kept = all(one.is_kept for one in rounds)
        word = "[green]kept[/]" if is_kept else "[red]broken[/]"
        if figures := rounds[-1].figures:
            loads.add_row(name, "\n".join(figures), word)
        else:
            table.add_row(*line(rounds), word)
    for one in (table, loads):
        if one.row_count:
            Console(width=160).print(one)
