"""Which providers this process probes, from which queue, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from notifier.domain.breaker import is_unasked
from notifier.domain.controls import SendPermission
from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Outcome
from notifier.scheduling.gates.queue_gates import QueueGates


@dataclass(slots=True)
class _Probe:
    queue: QueueKey
    since: float
    answer: Outcome | None = None


class Probes:
    """At most one a provider. Times are monotonic seconds."""

    def __init__(
        self,
        gates: QueueGates,
        *,
        queues: Sequence[QueueKey],
        has_work: Callable[[QueueKey], bool],
    ) -> None:
        self._gates = gates
        self._queues = sorted(queues, key=lambda queue: (queue.priority.rank, queue.channel))
        self._has_work = has_work
        self._probes: dict[str, _Probe] = {}

    def __contains__(self, provider: str) -> bool:
        return provider in self._probes

    def choose(self, provider: str) -> QueueKey | None:
        """The most urgent of its queues that has work and is not paused."""
        return next((queue for queue in self._queues if self._may_probe(queue, provider)), None)

    def _may_probe(self, queue: QueueKey, provider: str) -> bool:
        is_its = provider in self._gates.providers.get(queue.channel, ())
        return (
            is_its
            and self._has_work(queue)
            and self._gates.permission(queue) is not SendPermission.PAUSED
        )

    def begin(self, provider: str, queue: QueueKey, now: float) -> None:
        """From now on a call of this queue is the probe."""
        self._probes[provider] = _Probe(queue, now)

    def on_outcome(
        self, queue: QueueKey, provider: str, outcome: Outcome, started_at: float
    ) -> bool:
        """Whether this was the answer; not what began before or never reached the provider."""
        probe = self._probes.get(provider)
        if probe is None or probe.queue != queue or started_at < probe.since:
            return False
        if is_unasked(outcome):
            return False
        probe.answer = outcome
        return True

    def queue_of(self, provider: str) -> QueueKey | None:
        """Where the probe is to be sent from; None once it was answered."""
        probe = self._probes.get(provider)
        return probe.queue if probe and probe.answer is None else None

    def answer(self, provider: str) -> Outcome | None:
        """What the provider said, if it did."""
        probe = self._probes.get(provider)
        return probe.answer if probe else None

    def forget(self, provider: str) -> None:
        """It is over."""
        self._probes.pop(provider, None)
