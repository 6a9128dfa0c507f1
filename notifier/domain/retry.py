"""Decides what follows from an outcome. Pure; all times are spans, the database has the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Final, assert_never

import msgspec

from notifier.domain.notification import Status
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


class OnAmbiguous(StrEnum):
    """What a channel does with a notification that may have been sent.

    RESEND retries it by the policy. HOLD fails it as `ambiguous`: it is final and does not wait.
    """

    RESEND = "resend"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The delays between tries, `base * factor^(n-1)` up to `cap`, and the number of tries."""

    base: timedelta
    factor: float
    cap: timedelta
    tries: int

    def delay(self, spent: int, draw: float) -> timedelta:
        """Return the delay after the `spent`-th try; `draw` is uniform in [0, 1).

        Equal jitter, x/2 + U(0, x/2) ("Exponential Backoff And Jitter", AWS Architecture Blog,
        2015): with a factor of 2 or more no delay is shorter than the one before.
        """
        grown_s = self.base.total_seconds() * self.factor ** min(spent - 1, MAX_EXPONENT)
        delay_s = min(self.cap.total_seconds(), grown_s)
        return timedelta(seconds=delay_s / 2 + draw * delay_s / 2)


MAX_EXPONENT: Final = 64
THROTTLED_DELAY: Final = timedelta(seconds=1)
"""The delay after Throttled if the provider asked for none."""
DEFERRED_DELAY: Final = timedelta(minutes=1)
"""The least delay after Deferred."""
UNSPENT_DELAY: Final = timedelta(seconds=5)
"""The delay after an outcome that the notification did not cause (Misconfigured)."""
MAX_DEATHS: Final = 3
"""At this death of a worker during one notification the notification fails."""


class Settle(msgspec.Struct, frozen=True):
    """The notification was sent."""

    status: ClassVar[Status] = Status.SENT
    spends: ClassVar[bool] = True
    after: ClassVar[timedelta | None] = None
    reason: ClassVar[str] = ""


class Retry(msgspec.Struct, frozen=True):
    """The notification is due again after a delay; `spends` says whether this try counts."""

    status: ClassVar[Status] = Status.RETRYING
    reason: ClassVar[str] = ""
    after: timedelta
    spends: bool


class Fail(msgspec.Struct, frozen=True):
    """The notification failed. `spends` as in Retry.

    `reason` is refused, exhausted or ambiguous; poison too if its workers died.
    """

    status: ClassVar[Status] = Status.FAILED
    after: ClassVar[timedelta | None] = None
    reason: str
    spends: bool = True


Decision = Settle | Retry | Fail


def decide(
    outcome: Outcome,
    *,
    tries: int,
    max_tries: int | None,
    policy: RetryPolicy,
    on_ambiguous: OnAmbiguous,
    draw: float,
) -> Decision:
    """Decide what follows from an outcome.

    `tries` counts the tries spent before it. `max_tries` replaces the policy's number if it is set.
    `draw` is uniform in [0, 1).
    """
    match outcome:
        case Accepted():
            return Settle()
        case Refused():
            return Fail("refused")
        case Throttled(after=after):
            return Retry(
                after if after is not None else _jittered(THROTTLED_DELAY, draw), spends=False
            )
        case Deferred(after=after):
            return Retry(max(_jittered(DEFERRED_DELAY, draw), after or timedelta(0)), spends=False)
        case Misconfigured() | Unavailable(is_local=True):
            return Retry(_jittered(UNSPENT_DELAY, draw), spends=False)
        case Unavailable(after=after):
            return _retry_or_fail(tries + 1, max_tries, policy, draw, after or timedelta(0))
        case Ambiguous():
            if on_ambiguous is OnAmbiguous.HOLD:
                return Fail("ambiguous")
            return _retry_or_fail(tries + 1, max_tries, policy, draw, timedelta(0))
        case _:
            assert_never(outcome)


def decide_after_death(deaths: int, on_ambiguous: OnAmbiguous) -> Retry | Fail:
    """Decide what follows for a notification whose worker died while it was sending it.

    `deaths` includes this death. Whether it was sent is unknown, and so is whether its call had
    begun: a worker claims rows ahead of its calls. So a death spends no try. A retry is due at
    once: the time until the worker counted as dead was delay enough.
    """
    if deaths >= MAX_DEATHS:
        return Fail("poison", spends=False)
    if on_ambiguous is OnAmbiguous.HOLD:
        return Fail("ambiguous", spends=False)
    return Retry(timedelta(0), spends=False)


def _retry_or_fail(
    spent: int, max_tries: int | None, policy: RetryPolicy, draw: float, min_delay: timedelta
) -> Decision:
    if spent >= (max_tries or policy.tries):
        return Fail("exhausted")
    return Retry(max(policy.delay(spent, draw), min_delay), spends=True)


def _jittered(delay: timedelta, draw: float) -> timedelta:
    return delay * (1 + draw / 2)
