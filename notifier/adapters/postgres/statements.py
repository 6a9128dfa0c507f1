"""The SQL of this adapter, read from sql/ once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files


def statement(name: str) -> str:
    """The text of sql/<name>.sql."""
    return _all()[f"{name}.sql"]


@cache
def _all() -> Mapping[str, str]:
    """All of them with the first: later the process may be out of files."""
    return {
        one.name: one.read_text(encoding="utf-8")
        for one in files(__package__).joinpath("sql").iterdir()
        if one.name.endswith(".sql")
    }
