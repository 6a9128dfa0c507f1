"""Into how many segments a text message is divided: what providers charge for.

The alphabets are those of 3GPP TS 23.038, 6.2.1 (GSM 7 bit default alphabet and its extension
table) and UCS-2; the sizes of segments are those of 3GPP TS 23.040, 9.2.3.24.1 (six bytes of each
are a header that says which part it is).
"""

from __future__ import annotations

import re
from typing import Final

BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""The default alphabet without its escape: one septet each."""
EXTENSION: Final = "\f^{}\\[~]|€"
"""Two septets each: an escape and the character, which stand in one segment."""
MAX_SEPTETS: Final = 160
MAX_SEPTETS_OF_PART: Final = 153
MAX_UNITS: Final = 70
MAX_UNITS_OF_PART: Final = 67
_GSM7: Final = re.compile(f"[{re.escape(BASIC + EXTENSION)}]*")
_EXTENDED: Final = re.compile(f"[{re.escape(EXTENSION)}]")
_ESCAPE: Final = "\x1b"
_HIGH: Final = "h"


def count_segments(text: str) -> int:
    """Return the number of segments, at least 1.

    Neither an escape and its character nor the halves of a surrogate pair are divided.
    """
    if _GSM7.fullmatch(text):
        septets = _EXTENDED.sub(lambda match: _ESCAPE + match[0], text)
        return _count(septets, _ESCAPE, MAX_SEPTETS, MAX_SEPTETS_OF_PART)
    units = "".join(_units(text))
    return _count(units, _HIGH, MAX_UNITS, MAX_UNITS_OF_PART)


def encoding_of(text: str) -> str:
    """Return the alphabet that a text needs: `gsm7`, or `ucs2` if a character is not in that."""
    return "gsm7" if _GSM7.fullmatch(text) else "ucs2"


def _units(text: str) -> list[str]:
    """One character for each UTF-16 code unit: what matters is where pairs begin."""
    return [_HIGH + "l" if character > "\uffff" else "." for character in text]


def _count(text: str, first_half: str, longest: int, longest_part: int) -> int:
    if len(text) <= longest:
        return 1
    count = start = 0
    while start < len(text):
        end = start + longest_part
        start = end - 1 if end < len(text) and text[end - 1] == first_half else end
        count += 1
    return count
