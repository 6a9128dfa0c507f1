"""When a provider's circuit breaker opens: decided from what all workers counted."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import inf
from typing import Final, assert_never

import msgspec

from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Deferred,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)

WINDOW_S: Final = 10.0
MIN_CALLS: Final = 20
FAILURE_SHARE: Final = 0.5
STREAK_LENGTH: Final = 5
STREAK_SPAN_S: Final = 3.0
CREDENTIALS_STREAK_LENGTH: Final = 3
CREDENTIALS_STREAK_SPAN_S: Final = 1.0
NO_ANSWER_CODES: Final = frozenset({"timeout", "stopped", "error"})
"""Codes of Ambiguous that are no evidence about the provider: hanging calls are limited elsewhere
(scheduling/gates/hang_detector.py), and an error is a bug of this program."""


class Opening(StrEnum):
    """Why a breaker opens. PROBE: it stays open because a probe failed."""

    ERRORS = "errors"
    IN_A_ROW = "in_a_row"
    CREDENTIALS = "credentials"
    PROBE = "probe"


class ProviderFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker counted of one provider's calls, as its heartbeat reports it.

    `calls` and `failures` ended in the last 10 s. `streak` is the number of failures since the last
    answer, `streak_s` the seconds from the first one until now. `answered_s` is
    how many seconds ago the last answer came, None if there was none. `credentials`: the last
    failure was a refusal of our credentials.

    Written by one version and read by another: see ports/heartbeat.py.
    """

    calls: int = 0
    failures: int = 0
    streak: int = 0
    streak_s: float = 0.0
    answered_s: float | None = None
    credentials: bool = False


def is_failure(outcome: Outcome) -> bool | None:
    """Whether the outcome is a failure of the provider; None if it is no evidence either way."""
    match outcome:
        case Accepted() | Refused() | Deferred() | Throttled():
            return False
        case Misconfigured():
            return True
        case Unavailable():
            return None if outcome.is_local else True
        case Ambiguous(code=code):
            return None if code in NO_ANSWER_CODES else True
        case _:
            assert_never(outcome)


def is_unasked(outcome: Outcome) -> bool:
    """Whether the call ended before anything was sent to the provider."""
    return isinstance(outcome, Unavailable) and outcome.is_local


def is_about_credentials(outcome: Outcome) -> bool:
    """Whether the provider refused our credentials rather than the notification."""
    return isinstance(outcome, Misconfigured) and outcome.is_credentials


def decide_opening(reports: Sequence[ProviderFigures]) -> Opening | None:
    """Why the provider's breaker must open, None if it stays closed.

    `reports` holds one entry per live worker. The breaker opens when half of at least 20 calls in
    10 s failed, or after 5 failures in a row over at least 3 s; after 3 over 1 s if the credentials
    are refused. One failure never opens it. CREDENTIALS is the reason when more than half of the
    failures in a row are refused credentials.
    """
    streaks = _since_last_answer(reports)
    length = sum(report.streak for report in streaks)
    span_s = max((report.streak_s for report in streaks), default=0.0)
    is_refused = 2 * sum(report.streak for report in streaks if report.credentials) > length
    if is_refused and length >= CREDENTIALS_STREAK_LENGTH and span_s >= CREDENTIALS_STREAK_SPAN_S:
        return Opening.CREDENTIALS
    if _is_failing_often(reports):
        return Opening.CREDENTIALS if is_refused else Opening.ERRORS
    if length >= STREAK_LENGTH and span_s >= STREAK_SPAN_S:
        return Opening.IN_A_ROW
    return None


def _is_failing_often(reports: Sequence[ProviderFigures]) -> bool:
    calls = sum(report.calls for report in reports)
    failures = sum(report.failures for report in reports)
    return calls >= MIN_CALLS and failures >= FAILURE_SHARE * calls


def _since_last_answer(reports: Sequence[ProviderFigures]) -> list[ProviderFigures]:
    """The workers whose streak began after the last answer that any worker received."""
    answers = [report.answered_s for report in reports if report.answered_s is not None]
    last_answer_s = min(answers, default=inf)
    return [report for report in reports if report.streak and report.streak_s <= last_answer_s]
