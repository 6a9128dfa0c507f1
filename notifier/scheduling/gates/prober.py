"""Probes the providers whose breaker is open, and closes or reopens it by the outcome.

Across the deployment one process at a time holds a provider's probe, by its row in Postgres.
"""

from __future__ import annotations

from typing import Final, Protocol

import structlog

from notifier.domain.breaker import (
    MAX_REST_S,
    Opening,
    closes,
    is_about_credentials,
    is_failure,
)
from notifier.domain.controls import Breaker
from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Misconfigured, Outcome, Throttled
from notifier.lifecycle import Clock
from notifier.ports.controls import BreakerStore
from notifier.ports.observer import BreakerObserver
from notifier.scheduling.gates.opening_report import report_opening
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates

HOLD_MARGIN_S: Final = 10.0
MAX_PROBE_WAIT_S: Final = 60.0
PROBE_WAIT_S: Final = 5.0
THROTTLED_WAIT_S: Final = 1.0
MAX_THROTTLED_PROBES: Final = 10
"""So many probes of a provider that rests may be throttled one after the other, before it rests
again: it may throttle single recipients."""

log = structlog.get_logger(__name__)


class Backlog(Protocol):
    """What waits to be sent by this process."""

    def has_work(self, queue: QueueKey) -> bool:
        """Whether a message of the queue waits that this process could send."""
        ...


class Prober:
    """Sends probes from this process's queues.

    `probes` is the object that `gates` reads. A probe is held a little longer than the longest
    call.
    """

    def __init__(
        self,
        *,
        store: BreakerStore,
        gates: QueueGates,
        probes: Probes,
        backlog: Backlog,
        observer: BreakerObserver,
        clock: Clock,
        longest_call_s: float,
    ) -> None:
        self._store = store
        self._gates = gates
        self._probes = probes
        self._backlog = backlog
        self._observer = observer
        self._clock = clock
        self._hold_s = longest_call_s + HOLD_MARGIN_S
        self._throttled: dict[str, int] = {}

    def forget(self, provider: str) -> None:
        """Drop the probe: this process does not hold it (any longer)."""
        self._probes.forget(provider)

    async def run_once(self, breaker: Breaker) -> None:
        """Advance the probe of an open or half-open breaker by one step.

        Raises StoreUnavailable; the next pass then repeats the step.
        """
        provider = breaker.provider
        outcome = self._probes.outcome(provider)
        if outcome is not None:
            await self._settle(breaker, outcome)
        elif self._is_due(breaker):
            await self._hold(breaker)
        elif breaker.is_mine and provider not in self._probes:
            # The hold was made, but Postgres's reply to it was lost.
            await self._begin(provider, self._choose_queue(breaker))

    def _is_due(self, breaker: Breaker) -> bool:
        # A wait beyond the maximum was left by a clock that was put back.
        longest_s = longest_wait_s(breaker.reason) + self._hold_s
        return breaker.probe_in_s <= 0 or breaker.probe_in_s > longest_s

    def _choose_queue(self, breaker: Breaker) -> QueueKey | None:
        """A queue of the provider that has work and is not paused; None if there is none.

        The most urgent one, and after each probe that failed the next one: the first may hold only
        rows that fail for a reason of their own.
        """
        queues = self._gates.unpaused_queues(breaker.provider)
        with_work = [queue for queue in queues if self._backlog.has_work(queue)]
        probes = max(0, breaker.openings - 1) + self._throttled.get(breaker.provider, 0)
        return with_work[probes % len(with_work)] if with_work else None

    async def _hold(self, breaker: Breaker) -> None:
        """Take the probe if there is a message to send and no other process holds it."""
        queue = self._choose_queue(breaker)
        if queue is not None and await self._store.hold_probe(breaker.provider, self._hold_s):
            await self._begin(breaker.provider, queue)

    async def _begin(self, provider: str, queue: QueueKey | None) -> None:
        if queue is None:
            return
        self._probes.forget(provider)
        self._gates.review()  # a probe of the same queue before it has ended, also if it hangs
        self._probes.begin(provider, queue, self._clock())
        log.info("breaker_probe_started", provider=provider, queue=str(queue))
        await self._gates.run_once()

    async def _settle(self, breaker: Breaker, outcome: Outcome) -> None:
        if self._is_one_of_few_throttled(breaker, outcome):
            self._throttled[breaker.provider] = self._throttled.get(breaker.provider, 0) + 1
            queue = self._choose_queue(breaker)
            if queue is not None:
                await self._begin(breaker.provider, queue)
                return
        await self._end(breaker, outcome)

    async def finish(self, breaker: Breaker) -> None:
        """Settle the probe if its call has ended with evidence, and begin no other.

        Raises StoreUnavailable.
        """
        outcome = self._probes.outcome(breaker.provider)
        if outcome is not None and is_failure(outcome) is not None:
            await self._end(breaker, outcome)

    async def _end(self, breaker: Breaker, outcome: Outcome) -> None:
        self._throttled.pop(breaker.provider, None)
        if closes(breaker.reason, outcome):
            await self._close(breaker.provider)
        else:
            await self._reopen(breaker, outcome)
        self._probes.forget(breaker.provider)
        await self._gates.run_once()

    def _is_one_of_few_throttled(self, breaker: Breaker, outcome: Outcome) -> bool:
        """Whether a resting provider has throttled fewer probes in a row than it may."""
        return (
            breaker.reason == Opening.THROTTLED
            and isinstance(outcome, Throttled)
            and requested_rest_s(outcome) == 0
            and self._throttled.get(breaker.provider, 0) + 1 < MAX_THROTTLED_PROBES
        )

    async def _close(self, provider: str) -> None:
        if await self._store.close_breaker(provider):
            log.info("breaker_closed", provider=provider)

    async def _reopen(self, breaker: Breaker, outcome: Outcome) -> None:
        """Open it again. Its reason stays, unless the probe shows that our settings are wrong.

        After many refusals it stays then, too: else the next refused probe would close it.
        """
        blame, reason = _blame(outcome), known_reason(breaker.reason)
        if blame is not None and reason is not Opening.REFUSALS:
            reason = blame
        is_reopened = await self._store.reopen_breaker(
            breaker.provider,
            reason=reason,
            code=outcome.code,
            base_s=base_wait_s(reason),
            min_wait_s=min(requested_rest_s(outcome), longest_wait_s(reason)),
        )
        if is_reopened:
            report_opening(
                self._observer,
                "breaker_reopened",
                breaker.provider,
                reason,
                blame or Opening.PROBE,
                outcome=outcome.name,
                code=outcome.code,
            )


def base_wait_s(reason: Opening) -> float:
    """The wait for the first probe, which doubles with each probe that fails, up to 60 s."""
    return THROTTLED_WAIT_S if reason is Opening.THROTTLED else PROBE_WAIT_S


def longest_wait_s(reason: str) -> float:
    """The longest wait for a probe; beyond it no process believes `probe_at`."""
    return MAX_REST_S if reason == Opening.THROTTLED else MAX_PROBE_WAIT_S


def requested_rest_s(outcome: Outcome) -> float:
    """For how long the provider asks to be left alone, at most 15 minutes; 0 if it does not."""
    if not isinstance(outcome, Throttled) or outcome.after is None:
        return 0.0
    return min(outcome.after.total_seconds(), MAX_REST_S)


def known_reason(reason: str) -> Opening:
    """The reason of an opening; PROBE for one that only another version knows."""
    return Opening(reason) if reason in set(Opening) else Opening.PROBE


def _blame(outcome: Outcome) -> Opening | None:
    if not isinstance(outcome, Misconfigured):
        return None
    return Opening.CREDENTIALS if is_about_credentials(outcome) else Opening.CONFIGURATION
