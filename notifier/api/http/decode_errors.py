"""Translates msgspec's validation messages into the wrong field and the expected value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from notifier.api.http.suggestions import suggested
from notifier.api.requests import WHOLE_BODY
from notifier.domain.errors import InvalidNotification

INSTANT_EXPECTED: Final = "an instant as RFC 3339 with an offset, such as 2030-01-31T08:00:00Z"
_MESSAGE: Final = re.compile(r"(?s)(?P<fault>.*?)(?: - at `\$(?P<path>.*)`)?")
_MISSING: Final = re.compile(r"(?s)Object missing required field `(.*)`")
_UNKNOWN: Final = re.compile(r"(?s)Object contains unknown field `(.*)`")
_EXPECTED: Final = re.compile(r"(?s)Expected `(?P<type>[^`]*)`(?P<limit>.*?)(?:, got `.*`)?")
NO_VALUES: Final[Mapping[str, Sequence[str]]] = {}
_KEPT_LENGTH: Final = 1000
_TYPE_NAMES: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "object": "an object",
    "array": "an array",
    "datetime": INSTANT_EXPECTED,
}


def invalid_field(
    message: str,
    *,
    prefix: str = "",
    paths: Sequence[str] = (),
    values: Mapping[str, Sequence[str]] = NO_VALUES,
) -> InvalidNotification:
    """Makes the error of a field from the text of a `msgspec.ValidationError`.

    `prefix` is the path of the decoded part within the request. `paths` are those of all fields of
    the request, `values` those of its enumerations.
    """
    match = _MESSAGE.fullmatch(_shortened(message))
    fault, inner = (match["fault"], match["path"] or "") if match else (message, "")
    path = _dotted(prefix, inner)
    if missing := _MISSING.fullmatch(fault):
        return missing_field(_dotted(path, missing[1]))
    if unknown := _UNKNOWN.fullmatch(fault):
        return unknown_field(unknown[1], prefix=path, paths=paths)
    if fault.startswith("Invalid enum value"):
        place = ".".join(step for step in path.split(".") if not step.isdigit())
        return InvalidNotification(path, f"one of {', '.join(values.get(place, ()))}")
    return InvalidNotification(path or WHOLE_BODY, _expectation(fault))


def missing_field(path: str) -> InvalidNotification:
    """Makes the error of a required field that is absent."""
    return InvalidNotification(path, "a value: this field is required")


def unknown_field(
    name: str, *, prefix: str, paths: Sequence[str], is_searched: bool = True
) -> InvalidNotification:
    """Makes the error of a field that the object at `prefix` does not have.

    `is_searched` is as in `suggested`.
    """
    path = f"{prefix}.{name}" if prefix else name
    inside = [each for each in paths if prefix and each.startswith(f"{prefix}.")]
    meant = suggested(name, inside, is_searched=False) or suggested(
        name, paths, is_searched=is_searched
    )
    if meant and meant != prefix:
        return InvalidNotification(path, meant, detail=f"unknown field, did you mean {meant}?")
    known = [of.rpartition(".")[2] for of in paths if of.rpartition(".")[0] == prefix]
    expected = f"only {', '.join(known)} here" if known else "no fields here"
    return InvalidNotification(path, expected, detail=f"unknown field, expected {expected}")


def _shortened(message: str) -> str:
    # msgspec quotes field names of any length in the middle of its message.
    if len(message) <= 2 * _KEPT_LENGTH:
        return message
    return message[:_KEPT_LENGTH] + message[-_KEPT_LENGTH:]


def _expectation(fault: str) -> str:
    if "RFC3339" in fault or "timezone" in fault:
        return INSTANT_EXPECTED
    if "out of range" in fault:
        return "a number that a double can hold"
    if match := _EXPECTED.fullmatch(fault):
        type_name = match["type"].removesuffix(" | null")
        return _TYPE_NAMES.get(type_name, type_name) + match["limit"]
    return "a value of another type"


def _dotted(path: str, inner: str) -> str:
    steps = inner.replace("[", ".").replace("]", "").strip(".")
    return f"{path}.{steps}" if path and steps else path or steps
