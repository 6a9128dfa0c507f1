"""Texts of one line: subjects, titles and notes."""

from __future__ import annotations

import re
from typing import Final

from notifier.domain.errors import InvalidNotification

CONTROL_CHARACTER: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""C0, C1 and Unicode's separators: each of them ends a line for some mail software."""
ONE_LINE_EXPECTED: Final = "one line, without control characters"


def checked_note(note: str) -> str:
    """Return a note. Raises InvalidNotification if it has control characters."""
    if CONTROL_CHARACTER.search(note):
        raise InvalidNotification("note", ONE_LINE_EXPECTED)
    return note
