"""Writes the rows of a list as CSV (RFC 4180)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from io import StringIO
from typing import Any, Final

import msgspec

from notifier.api.http.suggestions import struct_in

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_NUMBER: Final = re.compile(r"[+-][0-9.]+")


def csv_text(rows: Iterable[Mapping[str, Any]], document: type[msgspec.Struct]) -> str:
    """Returns a line of column names, and one for each row, which is a document of this type.

    The columns are its fields, those of a document inside it after a dot. Absent and null are
    empty; lists and other objects are JSON. A text that a spreadsheet would take for a formula has
    a `'` before it; a number, such as that of a phone, is none.
    """
    columns = _columns(document)
    written = StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(columns)
    writer.writerows([_cell(_value(row, name)) for name in columns] for row in rows)
    return written.getvalue()


def without_guard(cell: str) -> str:
    """Returns the text that `csv_text` has written as this cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


@cache
def _columns(document: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(_paths(document))


def _paths(document: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(document):
        inner = struct_in(field.type)
        if inner is None:
            yield field.encode_name
        else:
            yield from (f"{field.encode_name}.{name}" for name in _columns(inner))


def _value(row: Mapping[str, Any], path: str) -> object:
    name, _, rest = path.partition(".")
    value = row.get(name)
    return _value(value, rest) if rest and isinstance(value, dict) else None if rest else value


def _cell(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return msgspec.json.encode(value).decode()
    is_formula = _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value
