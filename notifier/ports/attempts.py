"""Attempts: what the scheduling side asks of the delivery side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from notifier.domain.notification import Claimed, QueueKey
from notifier.domain.outcome import Outcome
from notifier.domain.timing import AttemptTiming
from notifier.ports.broker import Pointer
from notifier.ports.store import ClaimRequest


class HeldPointer(Protocol):
    """A pointer of a message that this worker holds."""

    @property
    def pointer(self) -> Pointer:
        """The pointer."""
        ...

    def begin(self, at: float) -> None:
        """Say that the attempt of its row begins at this instant of the lane's clock."""
        ...

    def settle(self) -> None:
        """Say that nothing is left to do; a message is acked when all its pointers are settled.

        Called once: when the result or the return is recorded, or the row was not claimed.
        """
        ...


class ClaimedRow(msgspec.Struct, frozen=True, eq=False):
    """A row that this worker has claimed, until its result or its return is recorded.

    `request` claimed it, `requested_at` that instant of lifecycle.uptime_s.
    """

    claimed: Claimed
    request: ClaimRequest
    requested_at: float
    held: HeldPointer


class EndedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a provider that ended.

    `started_at` is an instant of the monotonic clock. `is_repeat` says that an attempt of the same
    notification before it ended without spending a try.
    """

    queue: QueueKey
    provider: str
    outcome: Outcome
    started_at: float
    recipient: str = ""
    is_repeat: bool = False


class OutcomeListener(Protocol):
    """Is notified of the outcome of each provider call."""

    def on_outcome(self, call: EndedCall) -> None:
        """Take note of a call that ended."""
        ...


class OutcomeJudge(Protocol):
    """Knows what other calls of the same provider resulted in."""

    def judge(self, provider: str, outcome: Outcome) -> Outcome:
        """What the outcome means, given the outcomes of other calls; usually itself."""
        ...


class AttemptRunner(Protocol):
    """Claims rows and runs their attempts. Implemented by delivery.attempt.Attempts."""

    async def wait_until_ready(self) -> None:
        """Return when claims may be made; see domain/liveness.py."""
        ...

    async def claim(
        self, pointers: Sequence[HeldPointer], *, is_urgent: bool
    ) -> Sequence[ClaimedRow]:
        """Claim the rows of these pointers in one statement; returns those that were claimed.

        All other pointers are settled: copies of what this worker holds already, and rows that
        have moved on. If the reply of the statement is lost, all rows are given back first.
        `is_urgent` selects the connection, so that urgent rows never wait for a large batch.
        """
        ...

    async def attempt(self, row: ClaimedRow) -> AttemptTiming:
        """Call the provider and hand the result over to be recorded, without waiting for that.

        A row whose claim is too old is given back instead. Whatever else it raises than
        CancelledError ends the worker. Cancelled during the provider call, it hands over an
        Ambiguous outcome before it ends.
        """
        ...

    async def give_back(
        self, rows: Sequence[ClaimedRow], pointers: Sequence[HeldPointer] = ()
    ) -> None:
        """Give back claimed rows that were not begun, and unclaimed ones, without spending a try.

        They are settled. Returns when Postgres has confirmed it; raises an InfrastructureError if
        it has not.
        """
        ...

    def abandon(self, rows: Sequence[ClaimedRow]) -> None:
        """Leave claimed rows that were not begun to the release of orphans."""
        ...
