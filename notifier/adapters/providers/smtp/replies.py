"""What an SMTP reply means, by reply code and enhanced status code."""

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

RFC 5321 4.2.1: a first digit of 4 is a transient refusal, 5 a permanent one. RFC 4954 6: 530, 534,
535 and 538 concern our credentials. RFC 3463 and its registry: x.1.1 no such mailbox, x.1.6 mailbox
moved, x.1.10 null MX, x.2.1 mailbox disabled, x.7.z policy. Large receivers use 4.7.z for "too
fast", and greylisting replies with it. Servers under load reply 450 and 452 (mailbox busy, too
little storage) to messages that they accept later.
"""

OPENING: Final[tuple[tuple[str, VerdictName], ...]] = (
    (r"4\d\d 4\.7\.\d+", "throttled"),
    (r"4\d\d( .*)?", "unavailable"),
    (r"5\d\d( .*)?", "credentials"),
)
"""Replies to greeting, EHLO and STARTTLS precede the message: a permanent refusal concerns us."""

SIGNING_IN: Final[tuple[tuple[str, VerdictName], ...]] = (
    (r"(421|454)( .*)?", "unavailable"),
    (r"\d\d\d( .*)?", "credentials"),
)
"""Replies to AUTH. RFC 4954 4.7.0: 454 is a transient failure of the server."""


def reply_outcome(
    code: int,
    text: str,
    table: tuple[tuple[str, VerdictName], ...] = REPLIES,
    *,
    garbage: VerdictName = "unavailable",
) -> Outcome:
    """The outcome of a negative reply; `garbage` is the verdict of a reply that matches no row."""
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
