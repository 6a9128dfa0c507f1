"""The probes that this process sends: at most one per provider with an open breaker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from notifier.domain.breaker import is_unasked
from notifier.domain.notification import QueueKey
from notifier.domain.outcome import Outcome
from notifier.ports.attempts import EndedCall

MAX_UNASKED: Final = 100
"""A probe has failed after this many calls of its queue that ended before the provider was asked. A
broken template ends many calls in this way."""


@dataclass(slots=True)
class _Probe:
    queue: QueueKey
    began_at: float
    unasked: int = 0
    outcome: Outcome | None = None


class Probes:
    """The running probes and their outcomes, shared by gates and prober.

    The gates let the queues in `queues()` send; the prober begins probes and settles the breaker by
    their outcome. Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._probes: dict[str, _Probe] = {}
        self._first_began_at: dict[str, dict[QueueKey, float]] = {}

    def __contains__(self, provider: str) -> bool:
        return provider in self._probes

    def queues(self) -> Mapping[str, QueueKey]:
        """Per provider, the queue that must send its probe; without the probes that have ended."""
        return {
            provider: probe.queue
            for provider, probe in self._probes.items()
            if probe.outcome is None
        }

    def begin(self, provider: str, queue: QueueKey, now: float) -> None:
        """From now on the next call of this queue is the probe."""
        self._probes[provider] = _Probe(queue, now)
        self._first_began_at.setdefault(provider, {}).setdefault(queue, now)

    def on_outcome(self, call: EndedCall) -> bool:
        """Record the outcome of a call if the call was the probe; returns whether it was.

        A call that began before the probe is not the probe. Nor is a call that did not reach the
        provider: then the next call is the probe. Only the last of MAX_UNASKED such calls is.
        """
        probe = self._probes.get(call.provider)
        if probe is None or probe.queue != call.queue or call.started_at < probe.began_at:
            return False
        if is_unasked(call.outcome):
            probe.unasked += 1
            if probe.unasked < MAX_UNASKED:
                return False
        probe.outcome = call.outcome
        return True

    def is_since_first(self, call: EndedCall) -> bool:
        """Whether a call began after its queue's first probe by this process in this opening.

        A call may take longer than the hold of its probe, which is then taken by the next one.
        """
        began_at = self._first_began_at.get(call.provider)
        if began_at is None:  # nearly always: no probe was sent
            return False
        first = began_at.get(call.queue)
        return first is not None and call.started_at >= first

    def end_opening(self, provider: str) -> None:
        """The breaker is closed: the next probe is the first one."""
        self._first_began_at.pop(provider, None)

    def outcome(self, provider: str) -> Outcome | None:
        """How the probe ended, None while it runs or if there is none."""
        probe = self._probes.get(provider)
        return probe.outcome if probe else None

    def forget(self, provider: str) -> None:
        """End the probe, if there is one."""
        self._probes.pop(provider, None)
