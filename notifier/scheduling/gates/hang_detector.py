"""What a provider that hangs may hold of a worker's consumers.

A queue most of whose calls are far older than usual gets no more consumers than it holds. A channel
of whose calls none was answered for over 10 s gets a quarter of them all, its standing consumers
counted, until the first answer: that the calls end by their time-out is none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

import structlog

from notifier.domain.allocation.demand import MAX_STUCK_REPLACED
from notifier.domain.notification import Channel, QueueKey
from notifier.ports.observer import HangObserver

HANGS_AFTER_S: Final = 10.0
SHARE: Final = 4
IDLE_AFTER_S: Final = 1.0
"""A channel that called nobody for so long is not silent, it has nothing to say."""

log = structlog.get_logger(__name__)


class MonitoredLane(Protocol):
    """The attempts that run for one queue. Implemented by scheduling.consumers.lane.Lane."""

    consumers: int
    answered_at: float

    @property
    def queue(self) -> QueueKey:
        """The queue it belongs to."""
        ...

    @property
    def stuck(self) -> int:
        """Attempts that run far longer than usual, without those from before a recovery."""
        ...

    @property
    def is_hanging(self) -> bool:
        """Whether over half of the attempts are stuck, and more of them than can be replaced."""
        ...

    @property
    def oldest_call_s(self) -> float:
        """How long the oldest running attempt has run, 0 if none runs."""
        ...

    def oldest_start_since(self, instant: float) -> float | None:
        """When the oldest attempt started of those running since `instant` and any recovery."""
        ...

    def mark_recovered(self, at: float) -> None:
        """The provider answers again after a hang: attempts from before `at` are no hang."""
        ...


@dataclass(slots=True)
class _Silence:
    """Since when a channel calls without an answer."""

    since: float = inf
    seen_at: float = -inf
    hangs: bool = False

    def look(self, began_at: float | None, answered_at: float, now: float) -> None:
        """`began_at` is that of the oldest call that runs, of those after the last answer."""
        idle_s = (now if began_at is None else began_at) - self.seen_at
        if answered_at > self.since or (idle_s > IDLE_AFTER_S and not self.hangs):
            self.since = inf
        if began_at is not None:
            self.since = min(self.since, began_at)
            self.seen_at = now
        self.hangs = now - self.since > HANGS_AFTER_S


class HangDetector:
    """Which channels hang, as of the last look. `consumers` are all that move in this worker.

    While Postgres does not hear of us, attempts wait for it and not for their provider.
    """

    def __init__(
        self, consumers: int, *, observer: HangObserver, is_alive: Callable[[], bool]
    ) -> None:
        self._observer = observer
        self._is_alive = is_alive
        self._most = max(1, consumers // SHARE)
        self._silences = defaultdict[Channel, _Silence](_Silence)
        self._queues: set[QueueKey] = set()

    def look(self, lanes: Collection[MonitoredLane], now: float) -> None:
        """See anew which channels hang."""
        if not self._is_alive():
            for lane in lanes:
                lane.mark_recovered(now)
            self._silences.clear()
        members = defaultdict[Channel, list[MonitoredLane]](list)
        for lane in lanes:
            members[lane.queue.channel].append(lane)
        for channel, each in members.items():
            self._look_at_channel(channel, each, now)
        for lane in lanes:
            self._look_at_queue(lane)

    def held_at_most(self, lane: MonitoredLane) -> int | None:
        """A bound of the queue, its standing consumers counted; never less than are made good."""
        return max(lane.consumers, 1 + MAX_STUCK_REPLACED) if lane.is_hanging else None

    def channel_at_most(self, channel: Channel) -> int | None:
        """A bound of all queues of the channel together, standing consumers counted."""
        return self._most if self._silences[channel].hangs else None

    def _look_at_channel(
        self, channel: Channel, lanes: Sequence[MonitoredLane], now: float
    ) -> None:
        silence = self._silences[channel]
        answered_at = max(lane.answered_at for lane in lanes)
        running = [lane.oldest_start_since(answered_at) for lane in lanes]
        began_at = min((began for began in running if began is not None), default=None)
        hung = silence.hangs
        silence.look(began_at, answered_at, now)
        self._observer.provider_hanging(channel, is_hanging=silence.hangs)
        if silence.hangs and not hung:
            oldest_s = round(now - silence.since, 1)
            log.warning(
                "provider_hang_detected",
                channel=channel,
                oldest_s=oldest_s,
                max_consumers=self._most,
            )
        elif hung and not silence.hangs:
            log.info("provider_recovered_from_hang", channel=channel)
            for lane in lanes:
                lane.mark_recovered(answered_at)

    def _look_at_queue(self, lane: MonitoredLane) -> None:
        """Tell once, and the end not before all is well: it may hang for some calls only."""
        queue, told = lane.queue, self._queues
        is_well = not lane.stuck and not self._silences[queue.channel].hangs
        if lane.is_hanging and queue not in told:
            told.add(queue)
            oldest_s = round(lane.oldest_call_s, 1)
            log.warning(
                "queue_hang_detected", queue=str(queue), oldest_s=oldest_s, calls=lane.stuck
            )
        elif is_well and queue in told:
            told.remove(queue)
            log.info("queue_recovered_from_hang", queue=str(queue))
