"""Finds values that JSON can express but Postgres or a double cannot hold, and their path.

The search runs only after the decoder failed or `is_suspicious` was true. An ordinary request
never reaches it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Final

from notifier.api.requests import WHOLE_BODY
from notifier.domain.errors import InvalidNotification

MAX_DEPTH: Final = 32
NESTING_EXPECTED: Final = f"nesting of at most {MAX_DEPTH} levels"
NUMBER_EXPECTED: Final = "a number that a double can hold"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAX_DOUBLE: Final = 1.7976931348623157e308
_DOUBLE_DIGITS: Final = 309
"""An integer that a double cannot hold has at least this many digits."""
_LONG_NUMBER: Final = re.compile(rb"(?<![0-9])[0-9]{309}")
_JSON_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]')


def is_suspicious(document: bytes) -> bool:
    """Whether a valid JSON document might hold a NUL, a number too large, or too many levels."""
    return (
        b"\\u0000" in document
        or document.count(b"[") + document.count(b"{") > MAX_DEPTH
        or (len(document) >= _DOUBLE_DIGITS and _LONG_NUMBER.search(document) is not None)
    )


def find_unstorable(
    value: object, path: str, max_depth: int = MAX_DEPTH
) -> InvalidNotification | None:
    """Returns the error of the first value in a decoded document that cannot be stored, or None.

    `path` is the path of the document itself; the value may nest `max_depth` levels.
    """
    unstorable = _search(value, max_depth)
    if unstorable is None:
        return None
    steps = [path] if path else []
    field = ".".join([*steps, *reversed(unstorable.steps)])
    return InvalidNotification(field or WHOLE_BODY, unstorable.expected)


def parse_leniently(document: bytes) -> object:
    """Parses JSON with every unstorable value that `find_unstorable` finds.

    Raises ValueError for a document that is not JSON, and RecursionError.
    """
    return json.loads(document.decode("utf-8", "surrogatepass"), parse_int=_whole_number)


def path_of_deep_nesting(document: bytes) -> str:
    """Returns the path, of two steps at most, at which a submit exceeds the allowed nesting.

    For documents that nest too deeply for the parsers.
    """
    keys: list[str] = []
    key = ""
    for json_token in _JSON_TOKEN.finditer(document):
        match token := json_token[0]:
            case b"{" | b"[":
                keys.append(key)
                key = ""
                if len(keys) > MAX_DEPTH:
                    break
            case b"}" | b"]":
                keys.pop() if keys else None
            case b",":
                key = ""
            case _:
                key = token[1:-1].decode("utf-8", "replace")
    return ".".join([key for key in keys if key][:2]) or WHOLE_BODY


@dataclass(frozen=True, slots=True)
class _Unstorable:
    """A value that cannot be stored: what was expected, and the steps to it, innermost first."""

    expected: str
    steps: list[str]

    def under(self, step: object) -> _Unstorable:
        """Adds the step of the enclosing list or object."""
        self.steps.append(str(step))
        return self


def _search(value: object, max_depth: int) -> _Unstorable | None:
    if not value and max_depth:
        return None
    if isinstance(value, str):
        return _unstorable_text(value)
    if isinstance(value, int | float):
        is_double = -_MAX_DOUBLE <= value <= _MAX_DOUBLE
        return None if is_double else _Unstorable(NUMBER_EXPECTED, [])
    if isinstance(value, list | dict) and max_depth == 0:
        return _Unstorable(NESTING_EXPECTED, [])
    if isinstance(value, list):
        return _search_list(value, max_depth)
    return _search_object(value, max_depth) if isinstance(value, dict) else None


def _search_list(values: list[object], max_depth: int) -> _Unstorable | None:
    for index, value in enumerate(values):
        if unstorable := _search(value, max_depth - 1):
            return unstorable.under(index)
    return None


def _search_object(members: dict[str, object], max_depth: int) -> _Unstorable | None:
    for key, value in members.items():
        if unstorable := _unstorable_text(key):
            return unstorable
        if unstorable := _search(value, max_depth - 1):
            return unstorable.under(key)
    return None


def _unstorable_text(text: str) -> _Unstorable | None:
    if "\0" in text:
        return _Unstorable("text without NUL", [])
    if text.isascii() or not _SURROGATE.search(text):
        return None
    return _Unstorable("text without lone surrogates", [])


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= 310 else math.inf  # noqa: PLR2004 Python bounds int()
