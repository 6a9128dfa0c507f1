"""Decides what follows from an outcome. Pure; all times are spans, the database has the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Final, Protocol, assert_never

import msgspec

from notifier.domain.notification import Status
from notifier.domain.outcome import (
    TIMEOUT,
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


class RetryDelays(Protocol):
    """How often something is tried, and how long it waits in between."""

    @property
    def tries(self) -> int:
        """The number of tries."""
        ...

    def delay(self, spent: int, draw: float) -> timedelta:
        """Return the delay after the `spent`-th try; `draw` is uniform in [0, 1)."""
        ...


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


@dataclass(frozen=True, slots=True)
class ListedDelays:
    """Delays that are listed one by one, jittered by a fifth."""

    delays_s: tuple[float, ...]

    @property
    def tries(self) -> int:
        """One more than there are delays."""
        return len(self.delays_s) + 1

    @property
    def longest(self) -> timedelta:
        """All delays together, at their longest."""
        return timedelta(seconds=sum(self.delays_s) * (1 + LISTED_JITTER))

    def delay(self, spent: int, draw: float) -> timedelta:
        """Return the delay after the `spent`-th try; `draw` as in RetryPolicy."""
        delay_s = self.delays_s[min(spent, len(self.delays_s)) - 1]
        return timedelta(seconds=delay_s * (1 + LISTED_JITTER * (2 * draw - 1)))


LISTED_JITTER: Final = 0.2
MAX_EXPONENT: Final = 64
MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class UnspentBackoff:
    """The delays after attempts that spend no try: `base` doubled each time, up to `cap`.

    Jittered by up to half: no delay is shorter than the one before until `cap` is reached.
    """

    base: timedelta
    cap: timedelta

    def delay(self, before: int, draw: float) -> timedelta:
        """Return the delay after `before` such attempts and one more; `draw` as in RetryPolicy."""
        grown = self.base * (1 << min(before, MAX_DOUBLINGS))
        return min(self.cap, grown) * (1 + draw / 2)


DEFERRED_BACKOFF: Final = UnspentBackoff(timedelta(minutes=1), timedelta(minutes=20))
"""One recipient must wait. Greylisting ends after minutes, a full mailbox after hours: with the
jitter the delays grow from 1 to 30 minutes."""
THROTTLED_BACKOFF: Final = UnspentBackoff(timedelta(seconds=1), timedelta(seconds=2.5))
"""The provider is asked too often and names no span. If it accepts nothing, it rests as a whole.
While it accepts some, the others must come back soon: with a limit of 14 calls per second and 600
rows, waits of up to a minute would double the time in which all are accepted."""
MISCONFIGURED_BACKOFF: Final = UnspentBackoff(timedelta(seconds=5), timedelta(minutes=2))
"""The breaker opens unless only some messages are affected. Those wait longer each time, but not
for long after the settings were corrected."""
LOCAL_BACKOFF: Final = UnspentBackoff(timedelta(seconds=1), timedelta(seconds=10))
"""The provider was not called: there was no free connection."""
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

    `reason` is refused, exhausted, ambiguous or render; poison too if its workers died.
    """

    status: ClassVar[Status] = Status.FAILED
    after: ClassVar[timedelta | None] = None
    reason: str
    spends: bool = True


Decision = Settle | Retry | Fail


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """The attempts of a notification before the one that is decided.

    `tries` counts those that spent a try, `deferrals` and `ambiguous` those with these outcomes,
    `unspent` the others that spent no try.
    """

    tries: int = 0
    deferrals: int = 0
    unspent: int = 0
    ambiguous: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AmbiguityRule:
    """A channel's rule for notifications that may have been sent.

    Under RESEND one is sent again up to `tries` times, and no more often than the policy allows.
    After a time-out it waits for `after_timeout` at least: by then a provider that has fallen
    silent is known to be silent, and gets no calls but probes.
    """

    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND
    tries: int = 1
    after_timeout: timedelta = timedelta(0)


def decide(
    outcome: Outcome,
    *,
    spent: Spent,
    max_tries: int | None,
    policy: RetryDelays,
    ambiguity: AmbiguityRule,
    draw: float,
) -> Decision:
    """Decide what follows from an outcome.

    `max_tries` replaces the policy's number if it is set. `draw` is uniform in [0, 1).
    """
    match outcome:
        case Accepted():
            return Settle()
        case Refused():
            return Fail("refused")
        case Deferred() | Throttled() | Misconfigured() | Unavailable(is_local=True):
            return Retry(_unspent_delay(outcome, spent, draw), spends=False)
        case Unavailable(after=after):
            return _retry_or_fail(spent.tries + 1, max_tries, policy, draw, after or timedelta(0))
        case Ambiguous(code=code):
            if ambiguity.on_ambiguous is OnAmbiguous.HOLD or spent.ambiguous >= ambiguity.tries:
                return Fail("ambiguous")
            min_delay = ambiguity.after_timeout if code == TIMEOUT else timedelta(0)
            return _retry_or_fail(spent.tries + 1, max_tries, policy, draw, min_delay)
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
    spent: int, max_tries: int | None, policy: RetryDelays, draw: float, min_delay: timedelta
) -> Decision:
    if spent >= (max_tries or policy.tries):
        return Fail("exhausted")
    return Retry(max(policy.delay(spent, draw), min_delay), spends=True)


def _unspent_delay(
    outcome: Deferred | Throttled | Misconfigured | Unavailable, spent: Spent, draw: float
) -> timedelta:
    """Return the delay after an outcome that spends no try."""
    match outcome:
        case Deferred(after=after):
            return max(DEFERRED_BACKOFF.delay(spent.deferrals, draw), after or timedelta(0))
        case Throttled(after=after):
            return after or THROTTLED_BACKOFF.delay(spent.unspent, draw)
        case Misconfigured():
            return MISCONFIGURED_BACKOFF.delay(spent.unspent, draw)
        case Unavailable():
            return LOCAL_BACKOFF.delay(spent.unspent, draw)
        case _:
            assert_never(outcome)
