"""msgspec's messages, as a field and what was expected there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from notifier.api.requests import Content, Submit
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import Priority

INSTANT: Final = "an instant as RFC 3339 with an offset, such as 2030-01-31T08:00:00Z"
_MESSAGE: Final = re.compile(r"(?s)(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?")
_MISSING: Final = re.compile(r"(?s)Object missing required field `(.*)`")
_UNKNOWN: Final = re.compile(r"(?s)Object contains unknown field `(.*)`")
_EXPECTED: Final = re.compile(r"(?s)Expected `(?P<kind>[^`]*)`(?P<bound>.*?)(?:, got `.*`)?")
_FIELDS: Final = {"": Submit.__struct_fields__, "content": Content.__struct_fields__}
_ENDS: Final = 1000
_WORDS: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "object": "an object",
    "array": "an array",
    "datetime": INSTANT,
}


def explain(message: str, *, prefix: str = "", known: Sequence[str] = ()) -> InvalidNotification:
    """Turn the text of a `msgspec.ValidationError` into the error of a field.

    `prefix` is where the decoded part stands in the request; `known` are the fields of a document
    that is no submit.
    """
    match = _MESSAGE.fullmatch(_shortened(message))
    what, inner = (match["what"], match["path"] or "") if match else (message, "")
    path = _dotted(prefix, inner)
    if missing := _MISSING.fullmatch(what):
        return InvalidNotification(_dotted(path, missing[1]), "a value: this field is required")
    if unknown := _UNKNOWN.fullmatch(what):
        fields = known or _FIELDS.get(path, ())
        return InvalidNotification(_dotted(path, unknown[1]), f"only {', '.join(fields)} here")
    return InvalidNotification(path or "$", _expectation(what))


def _shortened(message: str) -> str:
    """The message quotes names of any length; what it says is at its start and its end."""
    if len(message) <= 2 * _ENDS:
        return message
    return message[:_ENDS] + message[-_ENDS:]


def _expectation(what: str) -> str:
    if what.startswith("Invalid enum value"):
        return f"one of {', '.join(Priority)}"
    if "RFC3339" in what or "timezone" in what:
        return INSTANT
    if "out of range" in what:
        return "a number that a double can hold"
    if match := _EXPECTED.fullmatch(what):
        kind = match["kind"].removesuffix(" | null")
        return _WORDS.get(kind, kind) + match["bound"]
    return "a value of another kind"


def _dotted(path: str, inner: str) -> str:
    steps = inner.replace("[", ".").replace("]", "").strip(".")
    return f"{path}.{steps}" if path and steps else path or steps
