"""When a provider's circuit breaker opens: decided from what all workers counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
MISCONFIGURED_STREAK_LENGTH: Final = 3
MISCONFIGURED_STREAK_SPAN_S: Final = 1.0
THROTTLED_STREAK_LENGTH: Final = 5
THROTTLED_SPAN_S: Final = 1.0
MAX_REST_S: Final = 900.0
"""The longest span for which a provider rests because it asked for it."""
MAX_REFUSALS: Final = 200
"""The upper bound of `refusals_in_a_row`."""
REPEAT_SPAN_S: Final = 600.0
"""While something was accepted within this span, a notification that was misconfigured before and
is again is no new evidence."""
NO_ANSWER_CODES: Final = frozenset({"timeout", "stopped", "error"})
"""Codes of Ambiguous that are no evidence about the provider: hanging calls are limited elsewhere
(scheduling/gates/hang_detector.py), and an error is a bug of this program."""


class Opening(StrEnum):
    """Why a breaker opens. PROBE: it stays open because a probe failed.

    CREDENTIALS, CONFIGURATION and REFUSALS (many recipients in a row) need a person. THROTTLED: the
    provider rests because it is asked too often. UNANSWERED: its calls get no answer.
    """

    ERRORS = "errors"
    CONSECUTIVE = "consecutive"
    CREDENTIALS = "credentials"
    CONFIGURATION = "configuration"
    REFUSALS = "refusals"
    THROTTLED = "throttled"
    UNANSWERED = "unanswered"
    PROBE = "probe"


NEEDS_A_PERSON: Final = frozenset({Opening.CREDENTIALS, Opening.CONFIGURATION, Opening.REFUSALS})


class BreakerRule(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's settings of its breaker; 0 turns a rule off.

    `refusals_in_a_row`: so many different recipients, refused with nothing accepted between them,
    open it. `stop_unanswered_s`: so do calls that get no answer for this long, by channel.
    `never_opens`: nothing does, since the provider fails when it is asked to.
    """

    never_opens: bool = False
    refusals_in_a_row: int = 20
    stop_unanswered_s: Mapping[str, float] = {}


class ProviderFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker counted of one provider's calls, as its heartbeat reports it.

    `calls` and `failures` ended in the last 10 s; `misconfigured` of the failures blame our
    settings. `streak` is the number of failures since the last
    answer, `streak_s` the seconds from the first one until now. `answered_s` is
    how many seconds ago the last answer came, None if there was none. `credentials`: the last
    failure was a refusal of our credentials; `configuration`: it blamed other settings of ours.
    `code` is the code of the last failure. `accepted_s` is how many seconds ago the last call was
    accepted. Since then, `throttled` recipients were throttled, and those with the hashes
    `refused` were refused, the first of them `refused_s` ago; `refused` is None in the figures of
    an older version. `connections` is how many connections of this worker the provider's server
    takes, None if as many as the settings allow, as far as known.

    Written by one version and read by another: see ports/heartbeat.py.
    """

    calls: int = 0
    failures: int = 0
    streak: int = 0
    streak_s: float = 0.0
    answered_s: float | None = None
    credentials: bool = False
    configuration: bool = False
    misconfigured: int = 0
    code: str = ""
    accepted_s: float | None = None
    throttled: int = 0
    refused: Sequence[int] | None = None
    refused_s: float = 0.0
    connections: int | None = None


DEFAULT_RULE: Final = BreakerRule()
NEVER: Final = BreakerRule(never_opens=True, refusals_in_a_row=0)


def is_failure(outcome: Outcome) -> bool | None:
    """Whether the outcome is a failure of the provider; None if it is no evidence either way."""
    match outcome:
        case Accepted() | Deferred() | Throttled():
            return False
        case Misconfigured():
            return True
        case Refused(is_local=is_local):
            return None if is_local else False
        case Unavailable(is_local=is_local):
            return None if is_local else True
        case Ambiguous(code=code):
            return None if code in NO_ANSWER_CODES else True
        case _:
            assert_never(outcome)


def is_unasked(outcome: Outcome) -> bool:
    """Whether the call ended before the provider was asked to send the notification."""
    return isinstance(outcome, Refused | Unavailable) and outcome.is_local


def is_about_credentials(outcome: Outcome) -> bool:
    """Whether the provider refused our credentials rather than the notification."""
    return isinstance(outcome, Misconfigured) and outcome.is_credentials


def closes(reason: str, outcome: Outcome) -> bool:
    """Whether a probe with this outcome closes a breaker that opened for `reason`.

    An answer does. But a provider that rests must not throttle, and after many refusals only an
    acceptance shows that it takes anything.
    """
    match reason:
        case Opening.REFUSALS:
            return isinstance(outcome, Accepted)
        case Opening.THROTTLED:
            return is_failure(outcome) is False and not isinstance(outcome, Throttled)
        case _:
            return is_failure(outcome) is False


def decide_opening(
    reports: Sequence[ProviderFigures], rule: BreakerRule = DEFAULT_RULE
) -> Opening | None:
    """Why the provider's breaker must open, None if it stays closed.

    `reports` holds one entry per live worker. The breaker opens when half of at least 20 calls in
    10 s failed, or after 5 failures in a row over at least 3 s; after 3 over 1 s if they blame our
    settings and nothing was accepted in the last 10 s. One failure never opens it. What blames our
    settings while other calls are accepted is no failure of the provider. It also opens when
    nothing is accepted any more and 5 recipients were throttled, or so many refused as the rule
    says.
    """
    if rule.never_opens:
        return None
    accepted_s = min((_accepted_s(report) for report in reports), default=inf)
    opening = _opening_by_failures(reports, accepted_s)
    if opening is not None:
        return opening
    if refuses_all(reports, rule):
        return Opening.REFUSALS
    throttled = sum(report.throttled for report in reports)
    if throttled >= THROTTLED_STREAK_LENGTH and accepted_s > THROTTLED_SPAN_S:
        return Opening.THROTTLED
    return None


def refuses_all(reports: Sequence[ProviderFigures], rule: BreakerRule) -> bool:
    """Whether the provider has refused as many recipients in a row as the rule allows.

    Counted since the last call of any worker that was accepted.
    """
    accepted_s = min((_accepted_s(report) for report in reports), default=inf)
    refused = {
        recipient
        for report in reports
        if report.refused_s < accepted_s
        for recipient in report.refused or ()
    }
    return 0 < rule.refusals_in_a_row <= len(refused)


def is_unanswered(unanswered_s: float, limit_s: float, reports: Sequence[ProviderFigures]) -> bool:
    """Whether the provider has not answered this worker for `limit_s`, nor any other worker."""
    if limit_s <= 0 or unanswered_s < limit_s:
        return False
    answers = (report.answered_s for report in reports if report.answered_s is not None)
    return min(answers, default=inf) > limit_s


def _opening_by_failures(reports: Sequence[ProviderFigures], accepted_s: float) -> Opening | None:
    streaks = _since_last_answer(reports)
    length = sum(report.streak for report in streaks)
    span_s = max((report.streak_s for report in streaks), default=0.0)
    blame = _blame(streaks, length)
    if (
        blame is not None
        and length >= MISCONFIGURED_STREAK_LENGTH
        and span_s >= MISCONFIGURED_STREAK_SPAN_S
        and accepted_s > WINDOW_S
    ):
        return blame
    if _is_failing_often(reports, accepted_s):
        return blame or Opening.ERRORS
    if length >= STREAK_LENGTH and span_s >= STREAK_SPAN_S:
        return blame or Opening.CONSECUTIVE
    return None


def _blame(streaks: Sequence[ProviderFigures], length: int) -> Opening | None:
    """The reason if more than half of the failures in a row blame our settings."""
    credentials = sum(report.streak for report in streaks if report.credentials)
    configuration = sum(report.streak for report in streaks if report.configuration)
    if 2 * (credentials + configuration) <= length:
        return None
    return Opening.CREDENTIALS if credentials >= configuration else Opening.CONFIGURATION


def _is_failing_often(reports: Sequence[ProviderFigures], accepted_s: float) -> bool:
    calls = sum(report.calls for report in reports)
    failures = sum(report.failures for report in reports)
    if accepted_s <= WINDOW_S:
        misconfigured = sum(report.misconfigured for report in reports)
        calls, failures = calls - misconfigured, failures - misconfigured
    return calls >= MIN_CALLS and failures >= FAILURE_SHARE * calls


def _accepted_s(report: ProviderFigures) -> float:
    """When a worker's last call was accepted; of an older version, when one was answered."""
    at = report.answered_s if report.refused is None else report.accepted_s
    return inf if at is None else at


def _since_last_answer(reports: Sequence[ProviderFigures]) -> list[ProviderFigures]:
    """The workers whose streak began after the last answer that any worker received."""
    answers = [report.answered_s for report in reports if report.answered_s is not None]
    last_answer_s = min(answers, default=inf)
    return [report for report in reports if report.streak and report.streak_s <= last_answer_s]
