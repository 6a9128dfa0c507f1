"""The SQL statements of this adapter: the files in sql/, read once.

A statement may have a line `-- :parts`, where parts are inserted that only some calls need. What a
call does not need costs it nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

_PARTS: Final = "-- :parts\n"
_PARAMETER: Final = re.compile(r"\$(\d+)")


class Part(NamedTuple):
    """A part of a statement: its file, and the values of its own parameters."""

    name: str
    values: Sequence[object]


def statement(name: str) -> str:
    """Return the text of sql/<name>.sql."""
    return _statements()[f"{name}.sql"]


def statement_with(name: str, taken: int, parts: Sequence[Part]) -> str:
    """Return a statement that has `taken` parameters, with parts.

    The parameters of each part follow all those before it.
    """
    shapes = tuple((part.name, len(part.values)) for part in parts)
    return _composed(name, taken, shapes) if shapes else statement(name)


@cache
def _composed(name: str, taken: int, parts: tuple[tuple[str, int], ...]) -> str:
    texts = []
    for part, count in parts:
        texts.append(_renumbered(statement(part), taken))
        taken += count
    return statement(name).replace(_PARTS, "".join(texts), 1)


def _renumbered(text: str, by: int) -> str:
    return _PARAMETER.sub(lambda match: f"${int(match[1]) + by}", text)


@cache
def _statements() -> Mapping[str, str]:
    # All files are read at the first call: later the process may have no file descriptor left.
    return {
        path.name: path.read_text(encoding="utf-8")
        for path in files(__package__).joinpath("sql").iterdir()
        if path.name.endswith(".sql")
    }
