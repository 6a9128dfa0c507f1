"""Probes the providers whose breaker is open, and closes or reopens it by the outcome.

Across the deployment one process at a time holds a provider's probe, by its row in Postgres.
"""

from __future__ import annotations

from typing import Final, Protocol

import structlog

from notifier.domain.breaker import Opening, is_about_credentials, is_failure
from notifier.domain.controls import Breaker
from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Outcome
from notifier.lifecycle import Clock
from notifier.ports.controls import BreakerStore
from notifier.ports.observer import BreakerObserver
from notifier.scheduling.gates.opening_report import report_opening
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates

HOLD_MARGIN_S: Final = 10.0
MAX_PROBE_WAIT_S: Final = 60.0

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
            await self._settle(provider, outcome)
        elif self._is_due(breaker):
            await self._hold(provider)
        elif breaker.is_mine and provider not in self._probes:
            # The hold was made, but Postgres's reply to it was lost.
            await self._begin(provider, self._choose_queue(provider))

    def _is_due(self, breaker: Breaker) -> bool:
        # A wait beyond the maximum was left by a clock that was put back.
        return breaker.probe_in_s <= 0 or breaker.probe_in_s > MAX_PROBE_WAIT_S + self._hold_s

    def _choose_queue(self, provider: str) -> QueueKey | None:
        """The most urgent queue of the provider that has work and is not paused."""
        queues = self._gates.unpaused_queues(provider)
        return next((queue for queue in queues if self._backlog.has_work(queue)), None)

    async def _hold(self, provider: str) -> None:
        """Take the probe if there is a message to send and no other process holds it."""
        queue = self._choose_queue(provider)
        if queue is not None and await self._store.hold_probe(provider, self._hold_s):
            await self._begin(provider, queue)

    async def _begin(self, provider: str, queue: QueueKey | None) -> None:
        if queue is None:
            return
        self._probes.begin(provider, queue, self._clock())
        log.info("breaker_probe_started", provider=provider, queue=str(queue))
        await self._gates.run_once()

    async def _settle(self, provider: str, outcome: Outcome) -> None:
        if is_failure(outcome) is False:
            await self._close(provider)
        else:
            await self._reopen(provider, outcome)
        self._probes.forget(provider)
        await self._gates.run_once()

    async def _close(self, provider: str) -> None:
        if await self._store.close_breaker(provider):
            log.info("breaker_closed", provider=provider)

    async def _reopen(self, provider: str, outcome: Outcome) -> None:
        reason = Opening.CREDENTIALS if is_about_credentials(outcome) else Opening.PROBE
        if await self._store.reopen_breaker(provider, reason):
            report_opening(
                self._observer,
                "breaker_reopened",
                provider,
                reason,
                outcome=outcome.name,
                code=outcome.code,
            )
