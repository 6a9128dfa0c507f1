"""One circuit breaker per provider for the whole deployment.

Every worker counts its own calls, decides from what all workers report, and may send the probe. The
state is a row in Postgres that changes by compare-and-set; a process only requests changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from math import inf
from typing import Final, Protocol

import structlog

from notifier.domain.breaker import (
    DEFAULT_RULE,
    REPEAT_SPAN_S,
    THROTTLED_STREAK_LENGTH,
    WINDOW_S,
    BreakerRule,
    Opening,
    ProviderFigures,
    decide_opening,
    is_unanswered,
    refuses_all,
)
from notifier.domain.controls import Breaker, BreakerState
from notifier.domain.errors import StoreError
from notifier.domain.notification import Channel
from notifier.domain.outcome import Accepted, Misconfigured, Outcome, Refused
from notifier.lifecycle import Clock, wait
from notifier.ports.attempts import EndedCall
from notifier.ports.controls import BreakerStore
from notifier.ports.observer import BreakerObserver
from notifier.scheduling.gates.failure_window import FailureWindow
from notifier.scheduling.gates.opening_report import report_opening
from notifier.scheduling.gates.prober import Prober, base_wait_s, requested_rest_s
from notifier.scheduling.gates.queue_gates import QueueGates

CHECK_INTERVAL_S: Final = 0.25

log = structlog.get_logger(__name__)


class ProviderReports(Protocol):
    """What the workers of the deployment count of their providers' calls."""

    def provider_figures(self) -> Sequence[Mapping[str, ProviderFigures]]:
        """Each live process's figures by provider, this process's first."""
        ...


class UnansweredCalls(Protocol):
    """How long the calls of a channel have been without an answer."""

    def unanswered_s(self, channel: Channel) -> float:
        """Since when, in seconds, this worker's calls of the channel got no answer."""
        ...


class Breakers:
    """Opens breakers by the workers' reports and lets `prober` close them.

    `rules` are the providers' settings, by name.
    """

    def __init__(
        self,
        *,
        store: BreakerStore,
        gates: QueueGates,
        prober: Prober,
        reports: ProviderReports,
        calls: UnansweredCalls,
        rules: Mapping[str, BreakerRule],
        observer: BreakerObserver,
        clock: Clock,
    ) -> None:
        self._store = store
        self._gates = gates
        self._prober = prober
        self._reports = reports
        self._calls = calls
        self._rules = rules
        self._rests: dict[str, tuple[float, str]] = {}
        self._answering: set[str] = set()
        self._observer = observer
        self._clock = clock
        self._windows = {name: FailureWindow() for name in gates.provider_names}
        self._is_due = asyncio.Event()

    def on_outcome(self, call: EndedCall) -> None:
        """Count a call that ended."""
        window = self._windows.get(call.provider)
        if window is None:
            return
        is_accepted = isinstance(call.outcome, Accepted)
        if is_accepted or not self._is_known_misfit(call):
            window.add(call.outcome, self._clock(), call.recipient)
        if self._gates.probes.on_outcome(call):
            self._gates.review()
            self._is_due.set()
        elif not is_accepted:
            self._take_note(call, window)
        elif self._gates.opening(call.provider) == Opening.UNANSWERED or (
            self._gates.probes.is_since_first(call)
        ):
            self._answering.add(call.provider)
            self._is_due.set()

    def judge(self, provider: str, outcome: Outcome) -> Outcome:
        """Return Misconfigured for a refusal among so many that our settings must be wrong.

        While the breaker is open it is returned for each refusal of our own too, because probes
        may reach many of these. Any other outcome is returned as it is.
        """
        window = self._windows.get(provider)
        if window is None or not isinstance(outcome, Refused):
            return outcome
        opening = self._gates.opening(provider)
        if opening != Opening.REFUSALS and not (opening and outcome.is_local):
            rule = self._rule(provider)
            if window.refused <= rule.refusals_in_a_row or not refuses_all(
                self._of_provider(provider, self._reports.provider_figures()), rule
            ):
                return outcome
        return Misconfigured(
            code=outcome.code, detail=outcome.detail, http_status=outcome.http_status
        )

    def _is_known_misfit(self, call: EndedCall) -> bool:
        """Whether it blames our settings again, while they work for other notifications."""
        if not (call.is_repeat and isinstance(call.outcome, Misconfigured)):
            return False
        reports = self._of_provider(call.provider, self._reports.provider_figures())
        accepted = [each.accepted_s for each in reports if each.accepted_s is not None]
        return bool(accepted) and min(accepted) < REPEAT_SPAN_S

    def _take_note(self, call: EndedCall, window: FailureWindow) -> None:
        """Check at once what must not wait for the next check."""
        rest_s = requested_rest_s(call.outcome)
        if rest_s > 0:
            self._rests[call.provider] = rest_s, call.outcome.code
            self._is_due.set()
        elif (
            window.throttled == THROTTLED_STREAK_LENGTH
            or window.refused == self._rule(call.provider).refusals_in_a_row
        ):
            self._is_due.set()

    def _rule(self, provider: str) -> BreakerRule:
        return self._rules.get(provider, DEFAULT_RULE)

    def figures(self) -> Mapping[str, ProviderFigures]:
        """This worker's counts by provider, for the heartbeat."""
        now = self._clock()
        return {name: window.figures(now) for name, window in self._windows.items()}

    async def run(self, stop: asyncio.Event) -> None:
        """Check every 250 ms, and at once when a call requires it, until `stop`."""
        while not stop.is_set():
            self._is_due.clear()
            await self.run_once()
            await wait(self._is_due, CHECK_INTERVAL_S)

    async def run_once(self) -> None:
        """Check each provider once. Without Postgres nothing changes and nothing is raised."""
        rows = {breaker.provider: breaker for breaker in self._gates.snapshot().breakers}
        reports = self._reports.provider_figures()
        for name in self._windows:
            try:
                await self._check(name, rows.get(name), self._of_provider(name, reports))
            except StoreError as error:
                log.debug("breaker_check_failed", provider=name, reason=str(error))

    async def finish(self) -> None:
        """Settle the probes whose calls ended after the last check, when all calls have ended.

        Otherwise the provider would rest until the hold of this process ends.
        """
        for row in self._gates.snapshot().breakers:
            try:
                await self._prober.finish(row)
            except StoreError as error:
                log.debug("breaker_check_failed", provider=row.provider, reason=str(error))

    async def _check(
        self, name: str, row: Breaker | None, reports: Sequence[ProviderFigures]
    ) -> None:
        if row is None or not row.is_mine:
            self._prober.forget(name)
        if row is None or row.state is BreakerState.CLOSED:
            self._answering.discard(name)
            self._gates.probes.end_opening(name)
            self._forget_refusals(name, reports)
            await self._open_if_needed(name, row, reports)
            return
        self._windows[name].reset()
        self._rests.pop(name, None)
        if name in self._answering and await self._store.close_answered(name, row.reason):
            log.info("breaker_closed", provider=name)
            await self._gates.run_once()
            return
        await self._prober.run_once(row)

    def _forget_refusals(self, name: str, reports: Sequence[ProviderFigures]) -> None:
        accepted = [peer.accepted_s for peer in reports[1:] if peer.accepted_s is not None]
        if accepted:
            self._windows[name].accepted_elsewhere(self._clock() - min(accepted))

    async def _open_if_needed(
        self, name: str, row: Breaker | None, reports: Sequence[ProviderFigures]
    ) -> None:
        rest_s, code = self._rests.pop(name, (0.0, ""))
        if rest_s > 0:
            await self._open(name, Opening.THROTTLED, reports, code=code, wait_s=rest_s)
            return
        current = _current(reports, row)
        reason = decide_opening(current, self._rule(name))
        if reason is None and self._is_unanswered(name, row, reports):
            reason = Opening.UNANSWERED
        if reason is not None:
            code = next((report.code for report in current if report.code), "")
            await self._open(name, reason, current, code=code, wait_s=base_wait_s(reason))

    def _is_unanswered(
        self, name: str, row: Breaker | None, reports: Sequence[ProviderFigures]
    ) -> bool:
        closed_s = inf if row is None else row.age_s
        return any(
            is_unanswered(
                min(closed_s, self._calls.unanswered_s(Channel(channel))), limit_s, reports
            )
            for channel, limit_s in self._rule(name).stop_unanswered_s.items()
        )

    async def _open(
        self,
        name: str,
        reason: Opening,
        reports: Sequence[ProviderFigures],
        *,
        code: str,
        wait_s: float,
    ) -> None:
        if not await self._store.open_breaker(name, reason, code=code, wait_s=wait_s):
            return
        self._windows[name].reset()
        report_opening(
            self._observer,
            "breaker_opened",
            name,
            reason,
            reason,
            code=code,
            calls=sum(report.calls for report in reports),
            failures=sum(report.failures for report in reports),
        )
        await self._gates.run_once()

    def _of_provider(
        self, name: str, reports: Sequence[Mapping[str, ProviderFigures]]
    ) -> list[ProviderFigures]:
        """The reports about one provider, this worker's first."""
        return [figures[name] for figures in reports if name in figures]


def _current(reports: Sequence[ProviderFigures], row: Breaker | None) -> Sequence[ProviderFigures]:
    """The reports that describe the time since the breaker closed.

    Right after it closed only this worker's own counts do: another's may be older, or left by a
    worker that has ended.
    """
    return reports[:1] if row and row.age_s < WINDOW_S else reports
