"""Reads suppressions from CSV (RFC 4180) in UTF-8, with a first line of column names."""

from __future__ import annotations

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Final, NamedTuple

import msgspec

from notifier.api.http.csv_text import without_guard
from notifier.api.http.decode_errors import invalid_field
from notifier.api.http.suggestions import enum_values, field_paths, suggested
from notifier.api.requests import WHOLE_BODY
from notifier.api.suppressions.documents import SuppressionRequest
from notifier.domain.errors import InvalidNotification

MAX_ROWS: Final = 10_000
COLUMNS: Final = tuple(name for name in SuppressionRequest.__struct_fields__ if name != "tenant")
REQUIRED: Final = ("channel", "recipient")
_PATHS: Final = field_paths(SuppressionRequest)
_VALUES: Final = enum_values(SuppressionRequest)
_CSV_EXPECTED: Final = "CSV in UTF-8 with commas, and with a first line of column names"


class CsvRow(NamedTuple):
    """One row: its number of the line on which it ends, and its request or what is wrong."""

    line: int
    request: SuppressionRequest | InvalidNotification


def read_rows(body: bytes) -> Iterator[CsvRow]:
    """Yields the rows of a file, at most MAX_ROWS. Lines without any value are skipped.

    Raises InvalidNotification for a file that is no CSV, has wrong columns or too many rows; the
    last two before the first row is yielded, the others where they are found.
    """
    try:
        text = body.removeprefix(BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidNotification(WHOLE_BODY, _CSV_EXPECTED) from error
    if "\0" in text:
        raise InvalidNotification(WHOLE_BODY, _CSV_EXPECTED)
    lines = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        columns = _columns(next(lines, []))
        for number, values in enumerate(filter(any, lines)):
            if number == MAX_ROWS:
                expected = f"at most {MAX_ROWS:,} rows; split the file"
                raise InvalidNotification(WHOLE_BODY, expected)
            yield CsvRow(lines.line_num, _request(columns, values))
    except csv.Error as error:
        detail = f"line {lines.line_num}: {error}"
        raise InvalidNotification(WHOLE_BODY, _CSV_EXPECTED, detail=detail) from error


def _columns(names: Sequence[str]) -> Sequence[str]:
    columns = [name.strip().lower() for name in names]
    for name in columns:
        if name not in COLUMNS:
            meant = suggested(name, list(COLUMNS))
            expected = meant or f"columns with commas between them: {', '.join(COLUMNS)}"
            detail = f"line 1: unknown column {name[:60]!r}, expected {expected}"
            raise InvalidNotification(WHOLE_BODY, expected, detail=detail)
    if len(set(columns)) < len(columns) or not set(REQUIRED).issubset(columns):
        raise InvalidNotification(
            WHOLE_BODY, f"a first line with the columns {' and '.join(REQUIRED)}, each once"
        )
    return columns


def _request(
    columns: Sequence[str], values: Sequence[str]
) -> SuppressionRequest | InvalidNotification:
    if len(values) != len(columns):
        return InvalidNotification(
            WHOLE_BODY, f"{len(columns)} values, as in the first line; this line has {len(values)}"
        )
    given = {
        name: without_guard(value.strip())
        for name, value in zip(columns, values, strict=True)
        if value.strip() or name in REQUIRED
    }
    try:
        return msgspec.convert(given, SuppressionRequest)
    except msgspec.ValidationError as error:
        return invalid_field(str(error), paths=_PATHS, values=_VALUES)
