"""Durations as people write them: `90s`, `15m`, `1h30m`, or a number of seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final

from cyclopts import Parameter, Token

_UNITS_S: Final = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_NUMBER: Final = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)"
_SECONDS: Final = re.compile(_NUMBER)
_PARTS: Final = re.compile("".join(f"(?:{_NUMBER}{unit})?" for unit in _UNITS_S))


def read_span(text: str) -> float:
    """Read a duration in seconds, above 0. Raises ValueError."""
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    elif parts := _PARTS.fullmatch(text):
        pairs = zip(parts.groups(), _UNITS_S.values(), strict=True)
        seconds = sum(float(number) * unit_s for number, unit_s in pairs if number)
    else:
        seconds = 0.0
    if seconds <= 0:
        raise ValueError(f"got {text!r}, expected a span such as 90s, 15m or 1h30m.")
    return seconds


def span_words(seconds: float) -> str:
    """Format a duration as `1h30m`: to the second, below 10 s to the millisecond."""
    if seconds < 10:  # noqa: PLR2004 see the docstring
        return f"{round(seconds, 3):g}s"
    words, rest = "", round(seconds)
    for unit, unit_s in _UNITS_S.items():
        count, rest = divmod(rest, unit_s)
        words += f"{count}{unit}" if count else ""
    return words


def _convert(_: object, tokens: Sequence[Token]) -> float:
    return read_span(tokens[0].value)


Span = Annotated[float, Parameter(converter=_convert, metavar="DURATION", show_default=span_words)]
"""An option whose text is a duration and whose value is seconds."""
