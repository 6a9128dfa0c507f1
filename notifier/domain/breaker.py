"""When a provider's breaker opens: pure, from what all workers counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final, assert_never

from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)

WINDOW_S: Final = 10.0
MIN_CALLS: Final = 20
SHARE: Final = 0.5
IN_A_ROW: Final = 5
IN_A_ROW_S: Final = 3.0
CREDENTIALS_IN_A_ROW: Final = 3
CREDENTIALS_S: Final = 1.0
NO_ANSWER_CODES: Final = frozenset({"timeout", "stopped", "error"})
"""Codes of Ambiguous that tell nothing of the provider: a hang is the hang limits' matter, an error
is a bug of ours."""


class Opening(StrEnum):
    """Why a breaker opens; PROBE: it stays open, since a probe failed."""

    ERRORS = "errors"
    IN_A_ROW = "in_a_row"
    CREDENTIALS = "credentials"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFigures:
    """What one worker says of one provider, in its heartbeat.

    `calls` and `failures` are those that ended in the last 10 s. `streak` counts the failures
    since the last answer that was none, over `streak_s` seconds from the first of them to now;
    that answer came `answered_s` seconds ago, None if there never was one. `credentials` says
    that the last failure was a refusal of our credentials.
    """

    calls: int
    failures: int
    streak: int
    streak_s: float
    answered_s: float | None
    credentials: bool = False


def is_failure(outcome: Outcome) -> bool | None:
    """Whether it speaks against the provider's health; None if it says nothing of it."""
    match outcome:
        case Accepted() | Refused() | Throttled():
            return False
        case Unavailable():
            return None if outcome.is_local else True
        case Ambiguous(code=code):
            return None if code in NO_ANSWER_CODES else True
        case _:
            assert_never(outcome)


def is_unasked(outcome: Outcome) -> bool:
    """Whether the call ended before the provider was asked."""
    return isinstance(outcome, Unavailable) and outcome.is_local


def is_about_credentials(outcome: Outcome) -> bool:
    """Whether the provider refused us, and not the notification."""
    return isinstance(outcome, Unavailable) and not outcome.spends and not outcome.is_local


def decide_opening(everyones: Sequence[ProviderFigures]) -> Opening | None:
    """Why the breaker of a provider opens, by what every living worker says of it.

    It opens at half of at least 20 calls in 10 s, or at 5 failures in a row over at least 3 s;
    with refused credentials at 3 over a second; never on one. Refused credentials are the reason
    whenever most of the failures in a row are such.
    """
    streaks = _since_last_answer(everyones)
    count = sum(one.streak for one in streaks)
    span_s = max((one.streak_s for one in streaks), default=0.0)
    is_refused = 2 * sum(one.streak for one in streaks if one.credentials) > count
    if is_refused and count >= CREDENTIALS_IN_A_ROW and span_s >= CREDENTIALS_S:
        return Opening.CREDENTIALS
    if _is_half(everyones):
        return Opening.CREDENTIALS if is_refused else Opening.ERRORS
    if count >= IN_A_ROW and span_s >= IN_A_ROW_S:
        return Opening.IN_A_ROW
    return None


def _is_half(everyones: Sequence[ProviderFigures]) -> bool:
    calls = sum(one.calls for one in everyones)
    return calls >= MIN_CALLS and sum(one.failures for one in everyones) >= SHARE * calls


def _since_last_answer(everyones: Sequence[ProviderFigures]) -> list[ProviderFigures]:
    """Those whose failures in a row all came after the last answer that any worker had."""
    answers = [one.answered_s for one in everyones if one.answered_s is not None]
    last_answer_s = min(answers, default=inf)
    return [one for one in everyones if one.streak and one.streak_s <= last_answer_s]
