from __future__ import annotations

import csv
from io import StringIO

import msgspec
import pytest

from notifier.api.http.csv_text import csv_text, without_guard


class Inner(msgspec.Struct):
    reason: str | None
    at: str


class Row(msgspec.Struct):
    id: int
    name: str | None
    from_: str | None = msgspec.field(name="from")
    tags: list[str]
    data: object
    result: Inner | None


def read(text: str) -> list[list[str]]:
    return list(csv.reader(StringIO(text, newline=""), strict=True))


def test_columns_are_the_fields_and_those_of_an_inner_document_after_a_dot() -> None:
    rows: list[dict[str, object]] = [
        {"id": 1, "name": 'a "b",\nc', "from": "x", "tags": ["a"], "data": {"k": [1]}},
        {"id": 2, "name": None, "tags": [], "data": None, "result": {"reason": "r", "at": "now"}},
    ]
    assert read(csv_text(rows, Row)) == [
        ["id", "name", "from", "tags", "data", "result.reason", "result.at"],
        ["1", 'a "b",\nc', "x", '["a"]', '{"k":[1]}', "", ""],
        ["2", "", "", "[]", "", "r", "now"],
    ]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3|cmd", "'-2+3|cmd"),
        ("+a@example.com", "'+a@example.com"),
        ("\t=1", "'\t=1"),
        ("'=1", "''=1"),
        ("+15005550006", "+15005550006"),
        ("-1.5", "-1.5"),
        ("'a", "'a"),
        ("a=1", "a=1"),
    ],
)
def test_what_a_spreadsheet_would_take_for_a_formula_is_guarded(text: str, cell: str) -> None:
    _, (_, written, *_) = read(csv_text([{"id": 1, "name": text}], Row))
    assert written == cell
    assert without_guard(cell) == text


def test_numbers_are_not_guarded() -> None:
    assert read(csv_text([{"id": -1}], Row))[1][0] == "-1"
