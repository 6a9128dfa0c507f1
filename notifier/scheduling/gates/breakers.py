"""One circuit breaker per provider for the whole deployment.

Every worker counts its own calls, decides from what all workers report, and may send the probe. The
state is a row in Postgres that changes by compare-and-set; a process only requests changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog

from notifier.domain.breaker import WINDOW_S, ProviderFigures, decide_opening
from notifier.domain.controls import Breaker, BreakerState
from notifier.domain.errors import StoreError
from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Outcome
from notifier.lifecycle import Clock, wait
from notifier.ports.controls import BreakerStore
from notifier.ports.observer import BreakerObserver
from notifier.scheduling.gates.failure_window import FailureWindow
from notifier.scheduling.gates.opening_report import report_opening
from notifier.scheduling.gates.prober import Prober
from notifier.scheduling.gates.queue_gates import QueueGates

CHECK_INTERVAL_S: Final = 0.25

log = structlog.get_logger(__name__)


class ProviderReports(Protocol):
    """What the workers of the deployment count of their providers' calls."""

    def provider_figures(self) -> Sequence[Mapping[str, ProviderFigures]]:
        """Each live process's figures by provider, this process's first."""
        ...


class Breakers:
    """Opens breakers by the workers' reports and lets `prober` close them."""

    def __init__(
        self,
        *,
        store: BreakerStore,
        gates: QueueGates,
        prober: Prober,
        reports: ProviderReports,
        observer: BreakerObserver,
        clock: Clock,
    ) -> None:
        self._store = store
        self._gates = gates
        self._prober = prober
        self._reports = reports
        self._observer = observer
        self._clock = clock
        self._windows = {name: FailureWindow() for name in gates.provider_names}
        self._probe_ended = asyncio.Event()

    def on_outcome(
        self, queue: QueueKey, provider: str, outcome: Outcome, started_at: float
    ) -> None:
        """Count a call that ended. `started_at` is by the monotonic clock."""
        window = self._windows.get(provider)
        if window is None:
            return
        window.add(outcome, self._clock())
        if self._gates.probes.on_outcome(queue, provider, outcome, started_at):
            self._gates.review()
            self._probe_ended.set()

    def figures(self) -> Mapping[str, ProviderFigures]:
        """This worker's counts by provider, for the heartbeat."""
        now = self._clock()
        return {name: window.figures(now) for name, window in self._windows.items()}

    async def run(self, stop: asyncio.Event) -> None:
        """Check every 250 ms, and at once when a probe has ended, until `stop`."""
        while not stop.is_set():
            self._probe_ended.clear()
            await self.run_once()
            await wait(self._probe_ended, CHECK_INTERVAL_S)

    async def run_once(self) -> None:
        """Check each provider once. Without Postgres nothing changes and nothing is raised."""
        rows = {breaker.provider: breaker for breaker in self._gates.snapshot().breakers}
        reports = self._reports.provider_figures()
        for name in self._windows:
            of_provider = [figures[name] for figures in reports if name in figures]
            try:
                await self._check(name, rows.get(name), of_provider)
            except StoreError as error:
                log.debug("breaker_check_failed", provider=name, reason=str(error))

    async def _check(
        self, name: str, row: Breaker | None, reports: Sequence[ProviderFigures]
    ) -> None:
        if row is None or not row.is_mine:
            self._prober.forget(name)
        if row is None or row.state is BreakerState.CLOSED:
            await self._open_if_failing(name, _current(reports, row))
            return
        self._windows[name].reset()
        await self._prober.run_once(row)

    async def _open_if_failing(self, name: str, reports: Sequence[ProviderFigures]) -> None:
        reason = decide_opening(reports)
        if reason is None or not await self._store.open_breaker(name, reason):
            return
        self._windows[name].reset()
        report_opening(
            self._observer,
            "breaker_opened",
            name,
            reason,
            calls=sum(report.calls for report in reports),
            failures=sum(report.failures for report in reports),
        )
        await self._gates.run_once()


def _current(reports: Sequence[ProviderFigures], row: Breaker | None) -> Sequence[ProviderFigures]:
    """The reports that describe the time since the breaker closed.

    Right after it closed only this worker's own counts do: another's may be older, or left by a
    worker that has ended.
    """
    return reports[:1] if row and row.age_s < WINDOW_S else reports
