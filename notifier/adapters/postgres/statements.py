"""The SQL statements of this adapter: the files in sql/, read once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files


def statement(name: str) -> str:
    """Return the text of sql/<name>.sql."""
    return _statements()[f"{name}.sql"]


@cache
def _statements() -> Mapping[str, str]:
    # All files are read at the first call: later the process may have no file descriptor left.
    return {
        path.name: path.read_text(encoding="utf-8")
        for path in files(__package__).joinpath("sql").iterdir()
        if path.name.endswith(".sql")
    }
