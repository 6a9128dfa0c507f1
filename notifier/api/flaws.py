"""What JSON can say and Postgres or a double cannot hold: found, and named by its path.

These run only when something is wrong or looks suspicious; the common request never gets here.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final

from notifier.domain.errors import InvalidNotification

MAX_DEPTH: Final = 32
_LARGEST: Final = 1.7976931348623157e308
_LONG_NUMBER: Final = re.compile(rb"[0-9]{309}")
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
    match value:
        case str():
            return _text_flaw(value, path)
        case int() | float() if not -_LARGEST <= value <= _LARGEST:
            return InvalidNotification(path, NUMBER)
        case dict() | list() if room == 0:
            return InvalidNotification(path, NESTING)
        case dict():
            return _object_flaw(value, path, room)
        case list():
            found = (find_flaw(one, _join(path, i), room - 1) for i, one in enumerate(value))
            return next((flaw for flaw in found if flaw), None)
        case _:
            return None


def parse_anything(document: bytes) -> object:
    """Read JSON with all the flaws that `find_flaw` finds. Raises ValueError or RecursionError."""
    return json.loads(document.decode("utf-8", "surrogatepass"), parse_int=_whole_number)


def deepest_path(document: bytes) -> str:
    """Name the field of a submit that nests without end, for parsers that gave up on it."""
    keys: list[str] = []
    key = ""
    for token in _TOKEN.findall(document):
        match token:
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
    return ".".join([key for key in keys if key][:2]) or "$"


def _object_flaw(value: dict[str, object], path: str, room: int) -> InvalidNotification | None:
    for key, one in value.items():
        flaw = _text_flaw(key, path) or find_flaw(one, _join(path, key), room - 1)
        if flaw:
            return flaw
    return None


def _text_flaw(text: str, path: str) -> InvalidNotification | None:
    if "\0" in text:
        return InvalidNotification(path or "$", "text without NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        return InvalidNotification(path or "$", "text without lone surrogates")
    return None


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= 310 else math.inf  # noqa: PLR2004 Python bounds int()


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
