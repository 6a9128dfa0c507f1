"""Which headers a caller may add to an email, and what their values may be."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from notifier.domain.mailbox import UNPRINTABLE

MAX_HEADERS: Final = 20
MAX_NAME_LENGTH: Final = 76
MAX_VALUE_LENGTH: Final = 900
"""Characters: an ASCII value fits into one line of 998 with its name (RFC 5322, 2.1.1)."""
_NAME: Final = re.compile(rf"[A-Za-z][A-Za-z0-9-]{{0,{MAX_NAME_LENGTH - 1}}}")
_OWN_PREFIX: Final = "x-notifier-"
_MESSAGE_ID: Final = r"<[!-;=?-~]{1,250}>"
_TOKEN: Final = r"[A-Za-z0-9.-]{1,60}"  # noqa: S105 of RFC 3834's grammar
_STRUCTURED: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "in-reply-to": (
        re.compile(rf"{_MESSAGE_ID}(?: {_MESSAGE_ID})*"),
        "message ids such as <a@example.com>, with one space between them",
    ),
    "references": (
        re.compile(rf"{_MESSAGE_ID}(?: {_MESSAGE_ID})*"),
        "message ids such as <a@example.com>, with one space between them",
    ),
    "auto-submitted": (
        re.compile(rf"(?:no|auto-generated|auto-replied|auto-notified)(?:; ?{_TOKEN}={_TOKEN})*"),
        "no, auto-generated, auto-replied or auto-notified (RFC 3834)",
    ),
    "list-id": (
        re.compile(r"(?:[A-Za-z0-9 ._-]{1,200} )?<[A-Za-z0-9._-]{1,253}>"),
        "News of the shop <news.example.com> (RFC 2919)",
    ),
}
_RESERVED: Final = re.compile(
    r"from|sender|to|cc|bcc|reply-to|subject|date|message-id|mime-version|content-.*|return-path|"
    r"received.*|resent-.*|dkim-signature|arc-.*|authentication-results"
)
"""Set by Notifier or by mail servers. No setting allows them."""


def name_expected(allowed: Collection[str]) -> str:
    """Say which names a caller may use."""
    names = ", ".join(["X-*", "In-Reply-To", "References", "Auto-Submitted", "List-Id", *allowed])
    return f"one of {names}; X-Notifier-* is Notifier's own"


def is_allowed_name(name: str, allowed: Collection[str]) -> bool:
    """Whether a caller may set this header. `allowed` are the names of the settings."""
    lower = name.lower()
    if not _NAME.fullmatch(name) or lower.startswith(_OWN_PREFIX):
        return False
    if lower.startswith("x-") and len(lower) > len("x-"):
        return True
    return lower in _STRUCTURED or lower in {of.lower() for of in allowed}


def is_allowable_name(name: str) -> bool:
    """Whether the settings may allow this header."""
    return bool(_NAME.fullmatch(name)) and not _RESERVED.fullmatch(name.lower())


def wrong_value(name: str, value: str) -> str | None:
    """Return what was expected of a wrong value; None if it is right."""
    if not 1 <= len(value) <= MAX_VALUE_LENGTH:
        return f"1 to {MAX_VALUE_LENGTH} characters"
    if UNPRINTABLE.search(value) or value != value.strip():
        return "one line, without control characters, and without blanks at its ends"
    syntax = _STRUCTURED.get(name.lower())
    if syntax is None or syntax[0].fullmatch(value):
        return None
    return syntax[1]


def is_structured(name: str) -> bool:
    """Whether its value has a syntax of its own, which encoded words would break."""
    return name.lower() in _STRUCTURED
