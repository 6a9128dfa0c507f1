r"""Several values in one text, with commas between them: `\,` is a comma of a value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_SEPARATORS: Final = re.compile(r"(\\[\\,]|,)")
_ESCAPED: Final = {r"\,": ",", r"\\": "\\"}


def separated(text: str) -> Sequence[str]:
    r"""Return the values between commas. `\,` is a comma of a value, and `\\` a backslash."""
    values = [""]
    for piece in _SEPARATORS.split(text):
        if piece == ",":
            values.append("")
        else:
            values[-1] += _ESCAPED.get(piece, piece)
    return values


def escaped(value: str) -> str:
    """Return a value as it is written between commas."""
    return value.replace("\\", r"\\").replace(",", r"\,")
