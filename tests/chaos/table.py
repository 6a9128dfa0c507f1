"""Totals of rounds, one line per fault, for the terminal and the page."""

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
    """Return the table cells of one fault."""
    recoveries = [result.recovered_s for result in rounds]
    counts = ("accepted", "final", "lost", "doubled", "unmarked", "ambiguous")
    return (
        rounds[0].fault,
        f"{len(rounds)}",
        *(f"{sum(getattr(result, name) for result in rounds):,}" for name in counts),
        seconds(median(recoveries)),
        seconds(max(recoveries)),
        f"{rounds[0].within_s:g}",
    )


def seconds(span_s: float) -> str:
    return "never" if isinf(span_s) else f"{span_s:.1f}"


def show(found: Mapping[str, Sequence[Result]]) -> None:
    """Print one line per fault and one line per figure of each trial."""
    table = Table(*HEADS, "", title="all rounds on this code")
    loads = Table("load", "figure (its target)", "")
    for name, rounds in found.items():
        is_kept = all(result.is_kept for result in rounds)
        word = "[green]kept[/]" if is_kept else "[red]broken[/]"
        if figures := rounds[-1].figures:
            loads.add_row(name, "\n".join(figures), word)
        else:
            table.add_row(*line(rounds), word)
    for printed in (table, loads):
        if printed.row_count:
            Console(width=160).print(printed)
