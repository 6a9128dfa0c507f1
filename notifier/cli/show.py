"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "sent": "green",
    "delivered": "green",
    "accepted": "green",
    "sending": "cyan",
    "queued": "cyan",
    "scheduled": "cyan",
    "retrying": "yellow",
    "throttled": "yellow",
    "unavailable": "yellow",
    "ambiguous": "yellow",
    "failed": "red",
    "refused": "red",
    "expired": "red",
    "undelivered": "red",
    "cancelled": "dim",
    "suppressed": "dim",
    "ok": "green",
    "warning": "yellow",
    "wrong": "bold red",
}


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    sys.stdout.buffer.flush()


def print_settings(rows: Iterable[tuple[str, object, str]]) -> None:
    """One `key = value  # origin` a line, origins faint."""
    out = Console(soft_wrap=True, highlight=False, emoji=False, markup=False)
    for key, value, origin in rows:
        line = Text(f"{key} = {msgspec.json.encode(value).decode()}")
        out.print(line.append(f"  # {origin}", style="dim"))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """A table on stdout; at its full width where nobody looks at a screen."""
    out = Console()
    if not out.is_terminal:
        out = Console(width=10_000)
    out.print(table(columns, rows, title=title))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> Table:
    """Numbers to the right, words of a status in their colour, nothing read as markup."""
    cells = [list(row) for row in rows]
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        values = [row[number] for row in cells]
        is_number = bool(values) and all(isinstance(value, int | float) for value in values)
        made.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        made.add_row(*[_cell(value) for value in row])
    return made


def _cell(value: object) -> Text:
    match value:
        case None | "":
            return Text("-", style="dim")
        case float():
            return Text(seconds(value))
        case _:
            return Text(str(value), style=_COLOURS.get(str(value), ""))


def seconds(value: float) -> str:
    """A figure with as many digits as it deserves."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"  # noqa: PLR2004 three digits or so
