"""What JSON can say and Postgres or a double cannot hold: found, and named by its path.

These run only when something is wrong or looks suspicious; the common request never gets here.
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
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LARGEST: Final = 1.7976931348623157e308
_LONG_NUMBER: Final = re.compile(rb"(?<![0-9])[0-9]{309}")
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]')

NESTING: Final = f"nesting of at most {MAX_DEPTH} levels"
NUMBER: Final = "a number that a double can hold"


def is_suspicious(document: bytes) -> bool:
    """Whether a valid JSON document might hold a NUL, a number too large, or too many levels."""
    return (
        b"\\u0000" in document
        or document.count(b"[") + document.count(b"{") > MAX_DEPTH
        or (len(document) >= 309 and _LONG_NUMBER.search(document) is not None)  # noqa: PLR2004
    )


def find_flaw(value: object, path: str, room: int = MAX_DEPTH) -> InvalidNotification | None:
    """Return the first thing in a decoded document that cannot be stored, else None.

    `room` is how many levels the value may still have.
    """
    flaw = _search(value, room)
    if flaw is None:
        return None
    steps = [path] if path else []
    return InvalidNotification(
        ".".join([*steps, *reversed(flaw.steps)]) or WHOLE_BODY, flaw.expected
    )


def parse_anything(document: bytes) -> object:
    """Read JSON with all the flaws that `find_flaw` finds. Raises ValueError or RecursionError."""
    return json.loads(document.decode("utf-8", "surrogatepass"), parse_int=_whole_number)


def deepest_path(document: bytes) -> str:
    """Name the field of a submit that nests without end, for parsers that gave up on it."""
    keys: list[str] = []
    key = ""
    for found in _TOKEN.finditer(document):
        match token := found[0]:
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
class _Flaw:
    """What was found; each level that it was found under adds its step, the innermost first."""

    expected: str
    steps: list[str]

    def under(self, step: object) -> _Flaw:
        self.steps.append(str(step))
        return self


def _search(value: object, room: int) -> _Flaw | None:
    if not value and room:
        return None
    if isinstance(value, str):
        return _text_flaw(value)
    if isinstance(value, int | float):
        return None if -_LARGEST <= value <= _LARGEST else _Flaw(NUMBER, [])
    if isinstance(value, list | dict) and room == 0:
        return _Flaw(NESTING, [])
    if isinstance(value, list):
        return _list_flaw(value, room)
    return _object_flaw(value, room) if isinstance(value, dict) else None


def _list_flaw(value: list[object], room: int) -> _Flaw | None:
    for i, one in enumerate(value):
        if flaw := _search(one, room - 1):
            return flaw.under(i)
    return None


def _object_flaw(value: dict[str, object], room: int) -> _Flaw | None:
    for key, one in value.items():
        if flaw := _text_flaw(key):
            return flaw
        if flaw := _search(one, room - 1):
            return flaw.under(key)
    return None


def _text_flaw(text: str) -> _Flaw | None:
    if "\0" in text:
        return _Flaw("text without NUL", [])
    if text.isascii() or not _SURROGATE.search(text):
        return None
    return _Flaw("text without lone surrogates", [])


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= 310 else math.inf  # noqa: PLR2004 Python bounds int()
