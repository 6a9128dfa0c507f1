"""What an SMTP reply means: the one table, and how an enhanced status code is read."""

from __future__ import annotations

import re
from typing import Final

from notifier.adapters.providers.verdict import VerdictName, outcome
from notifier.domain.outcome import Outcome

_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s|$)")

REPLIES: Final[tuple[tuple[str, VerdictName], ...]] = (
    (r"53[0458]( .*)?", "credentials"),
    (r"5\d\d 5\.(1\.1|1\.6|1\.10|2\.1)", "gone"),
    (r"4\d\d 4\.7\.\d+", "throttled"),
    (r"45[02]( .*)?", "throttled"),
    (r"4\d\d( .*)?", "unavailable"),
    (r"5\d\d( .*)?", "refused"),
)
"""The reply as `code` or `code enhanced`, first match wins.

RFC 5321 4.2.1: a first digit of 4 is a passing refusal, 5 a lasting one. RFC 4954 6: 530, 534, 535
and 538 are about our credentials. RFC 3463 and its registry: x.1.1 no such mailbox, x.1.6 mailbox
moved, x.1.10 null MX, x.2.1 mailbox disabled, x.7.z policy, which as 4.7.z is how large receivers
say "too fast" and how greylisting answers. 450 and 452 (mailbox busy, too little storage) are what
servers under load answer before they would take the same message.
"""

OPENING: Final[tuple[tuple[str, VerdictName], ...]] = (
    (r"4\d\d 4\.7\.\d+", "throttled"),
    (r"4\d\d( .*)?", "unavailable"),
    (r"5\d\d( .*)?", "credentials"),
)
"""Greeting, EHLO and STARTTLS know nothing of the message: a lasting refusal is about us."""

SIGNING_IN: Final[tuple[tuple[str, VerdictName], ...]] = (
    (r"(421|454)( .*)?", "unavailable"),
    (r"\d\d\d( .*)?", "credentials"),
)
"""AUTH. RFC 4954 4.7.0: 454 is a passing failure of the server's own."""


def reply_outcome(
    code: int,
    text: str,
    table: tuple[tuple[str, VerdictName], ...] = REPLIES,
    *,
    garbage: VerdictName = "unavailable",
) -> Outcome:
    """What a reply that is no consent means. `garbage` is what one means that is in no table."""
    reply = full_code(code, text)
    found = (verdict for pattern, verdict in table if re.fullmatch(pattern, reply))
    verdict = next(found, garbage)
    return outcome(verdict, reply if code > 0 else "protocol", text)


def full_code(code: int, text: str) -> str:
    """`550 5.1.1`, or `550` when the text carries no enhanced code of the same class."""
    enhanced = _ENHANCED.match(text)
    if enhanced is None or enhanced[1][0] != str(code)[0]:
        return str(code)
    return f"{code} {enhanced[1]}"
