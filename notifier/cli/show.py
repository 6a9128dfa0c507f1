"""The output of commands: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNLIMITED_WIDTH = 10_000
COLOURS = {
    "sent": "green",
    "delivered": "green",
    "accepted": "green",
    "sending": "cyan",
    "queued": "cyan",
    "scheduled": "cyan",
    "retrying": "yellow",
    "deferred": "yellow",
    "throttled": "yellow",
    "unavailable": "yellow",
    "misconfigured": "red",
    "ambiguous": "yellow",
    "failed": "red",
    "refused": "red",
    "expired": "red",
    "undelivered": "red",
    "lost": "bold red",
    "cancelled": "dim",
    "suppressed": "dim",
    "ok": "green",
    "warning": "yellow",
    "wrong": "bold red",
}


def print_json(value: object) -> None:
    """Print one JSON document to stdout."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    sys.stdout.buffer.flush()


def print_csv(rows: Sequence[Mapping[str, Any]], document: type[msgspec.Struct]) -> None:
    """Print the rows of a list, which are documents of this type, as the API writes CSV."""
    from notifier.api.http.csv_text import csv_text  # noqa: PLC0415 start-up time

    sys.stdout.buffer.write(csv_text(rows, document).encode())
    sys.stdout.buffer.flush()


def print_settings(rows: Iterable[tuple[str, object, str]]) -> None:
    """Print a line `key = value  # origin` for each setting."""
    console = Console(soft_wrap=True, highlight=False, emoji=False, markup=False)
    for key, value, origin in rows:
        line = Text(f"{key} = {msgspec.json.encode(value).decode()}")
        console.print(line.append(f"  # {origin}", style="dim"))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """Print a table to stdout. Without a terminal it has its full width."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_UNLIMITED_WIDTH)
    console.print(table(columns, rows, title=title))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> Table:
    """Make a table: numbers right-aligned, status words coloured, no text read as markup."""
    cells = [list(row) for row in rows]
    result = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        values = [row[number] for row in cells]
        is_number = bool(values) and all(isinstance(value, int | float) for value in values)
        result.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        result.add_row(*[_cell(value) for value in row])
    return result


def _cell(value: object) -> Text:
    match value:
        case None | "":
            return Text("-", style="dim")
        case float():
            return Text(rounded(value))
        case datetime():
            return Text(str(msgspec.to_builtins(value)))  # as in the JSON of the API
        case _:
            return Text(str(value), style=COLOURS.get(str(value), ""))


def rounded(value: float) -> str:
    """Format a number with 3 decimals below 10, else with 1."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"  # noqa: PLR2004 see the docstring
