"""One breaker a provider for the whole deployment: every worker counts, judges and may probe.

The state is a row in Postgres and changes by compare-and-set; this process only asks for changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from notifier.domain.breaker import (
    WINDOW_S,
    Opening,
    ProviderFigures,
    decide_opening,
    is_about_credentials,
    is_failure,
)
from notifier.domain.controls import Breaker, BreakerState
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Outcome
from notifier.lifecycle import Clock, wait
from notifier.ports.controls import ControlStore
from notifier.ports.observer import BreakerObserver
from notifier.scheduling.gates.failure_window import FailureWindow
from notifier.scheduling.gates.probes import Probes
from notifier.scheduling.gates.queue_gates import QueueGates

CHECK_INTERVAL_S: Final = 0.25
HOLD_MARGIN_S: Final = 10.0
MAX_PROBE_WAIT_S: Final = 60.0
CREDENTIALS_ADVICE: Final = (
    "it refuses our credentials or TLS: the attempts say how; files of secrets are read again"
)

log = structlog.get_logger(__name__)


class Breakers:
    """`everyone` says what all living workers counted, this one first.

    A probe is held for a little more than `longest_call_s`.
    """

    def __init__(
        self,
        *,
        store: ControlStore,
        gates: QueueGates,
        observer: BreakerObserver,
        everyone: Callable[[], Sequence[Mapping[str, ProviderFigures]]],
        queues: Sequence[QueueKey],
        has_work: Callable[[QueueKey], bool],
        clock: Clock,
        longest_call_s: float,
    ) -> None:
        self._store = store
        self._gates = gates
        self._observer = observer
        self._everyone = everyone
        self._clock = clock
        self._hold_s = longest_call_s + HOLD_MARGIN_S
        names = {name for each in gates.providers.values() for name in each}
        self._tallies = {name: FailureWindow() for name in sorted(names)}
        self._probes = Probes(gates, queues=queues, has_work=has_work)
        self._answered = asyncio.Event()
        gates.probing = self._probes.queue_of

    def on_outcome(
        self, queue: QueueKey, provider: str, outcome: Outcome, started_at: float
    ) -> None:
        """Count a call that ended; it may have been the probe."""
        tally = self._tallies.get(provider)
        if tally is None:
            return
        tally.add(outcome, self._clock())
        if self._probes.on_outcome(queue, provider, outcome, started_at):
            self._gates.review()
            self._answered.set()

    def figures(self) -> Mapping[str, ProviderFigures]:
        """For the heartbeat."""
        now = self._clock()
        return {name: tally.figures(now) for name, tally in self._tallies.items()}

    async def run(self, stop: asyncio.Event) -> None:
        """Judge every 250 ms, and as soon as a probe was answered, until `stop`."""
        while not stop.is_set():
            self._answered.clear()
            await self.run_once()
            await wait(self._answered, CHECK_INTERVAL_S)

    async def run_once(self) -> None:
        """One pass over all providers. Without Postgres nothing changes."""
        rows = {breaker.provider: breaker for breaker in self._gates.snapshot().breakers}
        everyones = self._everyone()
        for name in self._tallies:
            said = [figures[name] for figures in everyones if name in figures]
            try:
                await self._look(name, rows.get(name), said)
            except StoreUnavailable as error:
                log.debug("breaker_check_failed", provider=name, reason=str(error))

    async def _look(self, name: str, row: Breaker | None, said: Sequence[ProviderFigures]) -> None:
        if row is None or not row.is_mine:
            self._probes.forget(name)
        if row is None or row.state is BreakerState.CLOSED:
            await self._judge(name, _fresh(said, row))
            return
        self._tallies[name].reset()
        await self._probe(name, row)

    # ---- opening --------------------------------------------------------------------------------

    async def _judge(self, name: str, said: Sequence[ProviderFigures]) -> None:
        reason = decide_opening(said)
        if reason is None or not await self._store.open_breaker(name, reason):
            return
        self._tallies[name].reset()
        self._observer.breaker_opened(name, reason)
        calls, failures = sum(one.calls for one in said), sum(one.failures for one in said)
        _tell(
            "breaker_opened", reason, provider=name, reason=reason, calls=calls, failures=failures
        )
        await self._gates.run_once()

    # ---- probing --------------------------------------------------------------------------------

    async def _probe(self, name: str, row: Breaker) -> None:
        answer = self._probes.answer(name)
        if answer is not None:
            await self._settle(name, answer)
        elif row.probe_in_s <= 0 or row.probe_in_s > MAX_PROBE_WAIT_S + self._hold_s:
            await self._hold(name)
        elif row.is_mine and name not in self._probes:  # Postgres's answer to the hold was lost
            await self._begin(name, self._probes.choose(name))

    async def _hold(self, name: str) -> None:
        """Take the probe, if there is anything to send it with and nobody else took it."""
        queue = self._probes.choose(name)
        if queue is not None and await self._store.hold_probe(name, self._hold_s):
            await self._begin(name, queue)

    async def _begin(self, name: str, queue: QueueKey | None) -> None:
        if queue is None:
            return
        self._probes.begin(name, queue, self._clock())
        log.info("breaker_probe_started", provider=name, queue=str(queue))
        await self._gates.run_once()

    async def _settle(self, name: str, answer: Outcome) -> None:
        """Close or reopen; if Postgres does not answer, the next pass tries again."""
        if is_failure(answer) is False:
            await self._close(name)
        else:
            await self._reopen(name, answer)
        self._probes.forget(name)
        await self._gates.run_once()

    async def _close(self, name: str) -> None:
        if await self._store.close_breaker(name):
            log.info("breaker_closed", provider=name)

    async def _reopen(self, name: str, answer: Outcome) -> None:
        reason = Opening.CREDENTIALS if is_about_credentials(answer) else Opening.PROBE
        if not await self._store.reopen_breaker(name, reason):
            return
        self._observer.breaker_opened(name, reason)
        _tell("breaker_reopened", reason, provider=name, outcome=answer.name, code=answer.code)


def _fresh(said: Sequence[ProviderFigures], row: Breaker | None) -> Sequence[ProviderFigures]:
    """Just closed, only our own count: another's may be from before, of a worker that has ended."""
    return said[:1] if row and row.age_s < WINDOW_S else said


def _tell(event: str, why: Opening, /, **facts: object) -> None:
    """Refused credentials are the one case in which a person must act."""
    if why is Opening.CREDENTIALS:
        log.error(event, **facts, advice=CREDENTIALS_ADVICE)
    else:
        log.warning(event, **facts)
