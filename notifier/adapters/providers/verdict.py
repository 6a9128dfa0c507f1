"""What a provider's response means: a verdict that tables and settings can name, as an Outcome."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final, Literal, assert_never

from notifier.domain.outcome import (
    MAX_CODE_LENGTH,
    MAX_DETAIL_LENGTH,
    MAX_REFERENCE_LENGTH,
    Accepted,
    Ambiguous,
    Deferred,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)

VerdictName = Literal[
    "accepted",
    "refused",
    "gone",
    "deferred",
    "throttled",
    "unavailable",
    "misconfigured",
    "credentials",
    "ambiguous",
]
"""`gone` means refused, because the address no longer exists. `credentials` means misconfigured,
because the provider rejects our authentication."""

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\s]+")


def outcome(
    verdict: VerdictName,
    code: str,
    detail: str = "",
    *,
    after: timedelta | None = None,
    reference: str = "",
    http_status: int | None = None,
) -> Outcome:
    """The verdict as a value. Texts are shortened and made safe to store."""
    code, detail = printable(code, MAX_CODE_LENGTH), printable(detail, MAX_DETAIL_LENGTH)
    match verdict:
        case "accepted":
            reference = printable(reference, MAX_REFERENCE_LENGTH)
            return Accepted(code=code, detail=detail, http_status=http_status, reference=reference)
        case "refused" | "gone":
            return Refused(code=code, detail=detail, http_status=http_status)
        case "throttled":
            return Throttled(code=code, detail=detail, http_status=http_status, after=after)
        case "deferred":
            return Deferred(code=code, detail=detail, http_status=http_status, after=after)
        case "unavailable":
            return Unavailable(code=code, detail=detail, http_status=http_status, after=after)
        case "misconfigured" | "credentials":
            is_credentials = verdict == "credentials"
            return Misconfigured(
                code=code, detail=detail, http_status=http_status, is_credentials=is_credentials
            )
        case "ambiguous":
            return Ambiguous(code=code, detail=detail, http_status=http_status)
        case _:
            assert_never(verdict)


def unsendable(code: str, detail: str) -> Refused:
    """The outcome of a notification that cannot be sent: the provider was not asked."""
    return Refused(code=code, detail=printable(detail, MAX_DETAIL_LENGTH), is_local=True)


def printable(text: str, limit: int) -> str:
    """One line of up to `limit` characters that Postgres can store.

    Runs of whitespace, control characters and lone surrogates become one space.
    """
    text = text[: 4 * limit]
    if not text.isprintable() or "  " in text:
        text = _UNPRINTABLE.sub(" ", text)
    return text.strip()[:limit]
