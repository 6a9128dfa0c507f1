"""What follows from an outcome: a pure decision. Spans only; instants are the database's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, assert_never

import msgspec

from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)


class OnAmbiguous(StrEnum):
    """What a channel does with a message that may have been sent."""

    RESEND = "resend"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How tries are spaced: `base * factor^(n-1)`, at most `cap`; `tries` in all."""

    base: timedelta
    factor: float
    cap: timedelta
    tries: int

    def delay(self, spent: int, draw: float) -> timedelta:
        """The wait after the `spent`-th try. `draw` is uniform in [0, 1).

        Equal jitter, x/2 + U(0, x/2) ("Exponential Backoff And Jitter", AWS Architecture Blog,
        2015): with a factor of 2 or more every gap is at least as long as the one before.
        """
        grown = self.base.total_seconds() * self.factor ** min(spent - 1, MAX_EXPONENT)
        x = min(self.cap.total_seconds(), grown)
        return timedelta(seconds=x / 2 + draw * x / 2)


MAX_EXPONENT: Final = 64
THROTTLED_WAIT: Final = timedelta(seconds=1)
"""The wait after "too fast" when the provider named none."""
UNSPENT_WAIT: Final = timedelta(seconds=5)
"""The wait after an answer that is not the notification's fault (bad credentials)."""


class Settle(msgspec.Struct, frozen=True):
    """It was sent."""


class Retry(msgspec.Struct, frozen=True):
    """Due again after a span; `spends` says whether this try counts."""

    after: timedelta
    spends: bool


class Fail(msgspec.Struct, frozen=True):
    """It will not be sent: `refused`, `exhausted` or `ambiguous`. `spends` as in Retry."""

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
    """What follows from `outcome` after `tries` spent ones; `draw` is uniform in [0, 1)."""
    match outcome:
        case Accepted():
            return Settle()
        case Refused():
            return Fail("refused")
        case Throttled(after=after):
            return Retry(
                after if after is not None else _jittered(THROTTLED_WAIT, draw), spends=False
            )
        case Unavailable(spends=False):
            return Retry(_jittered(UNSPENT_WAIT, draw), spends=False)
        case Unavailable(after=after):
            return _again(tries + 1, max_tries, policy, draw, after or timedelta(0))
        case Ambiguous():
            if on_ambiguous is OnAmbiguous.HOLD:
                return Fail("ambiguous")
            return _again(tries + 1, max_tries, policy, draw, timedelta(0))
        case _:
            assert_never(outcome)


def _again(
    spent: int, max_tries: int | None, policy: RetryPolicy, draw: float, least: timedelta
) -> Decision:
    if spent >= (max_tries or policy.tries):
        return Fail("exhausted")
    return Retry(max(policy.delay(spent, draw), least), spends=True)


def _jittered(span: timedelta, draw: float) -> timedelta:
    return span * (1 + draw / 2)
