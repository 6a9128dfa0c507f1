"""What an answer of the world means, as one word that tables can hold, and its Outcome."""

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
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)

VerdictName = Literal[
    "accepted", "refused", "gone", "throttled", "unavailable", "credentials", "ambiguous"
]
"""`gone` is refused because the address no longer exists; `credentials` spends no try."""

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\s]+")


def outcome(
    verdict: VerdictName,
    code: str,
    detail: str = "",
    *,
    after: timedelta | None = None,
    reference: str = "",
) -> Outcome:
    """The verdict as a value; texts from the world are bounded and made safe to store."""
    code, detail = printable(code, MAX_CODE_LENGTH), printable(detail, MAX_DETAIL_LENGTH)
    match verdict:
        case "accepted":
            known = printable(reference, MAX_REFERENCE_LENGTH)
            return Accepted(code=code, detail=detail, reference=known)
        case "refused" | "gone":
            return Refused(code=code, detail=detail, gone=verdict == "gone")
        case "throttled":
            return Throttled(code=code, detail=detail, after=after)
        case "unavailable" | "credentials":
            spends = verdict == "unavailable"
            return Unavailable(code=code, detail=detail, spends=spends, after=after)
        case "ambiguous":
            return Ambiguous(code=code, detail=detail)
        case _:
            assert_never(verdict)


def printable(text: str, most: int) -> str:
    """One bounded line that Postgres can hold: no controls, no lone surrogates."""
    return _UNPRINTABLE.sub(" ", text[: 4 * most]).strip()[:most]
