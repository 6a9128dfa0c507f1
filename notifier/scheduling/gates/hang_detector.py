"""Limits the consumers that a hanging provider can occupy.

A queue gets no further consumers while most of its calls run far longer than usual. A channel
without an answer to any call for over 10 s gets a quarter of this worker's consumers, reserved ones
included, until the first answer. A call that ends by its time-out is not an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from notifier.domain.allocation.demand import MAX_STUCK_REPLACED
from notifier.domain.controls import SendPermission
from notifier.domain.notification import Channel, QueueKey
from notifier.ports.controls import Permissions
from notifier.ports.heartbeat import AliveCheck
from notifier.ports.observer import HangObserver

HANGS_AFTER_S: Final = 10.0
HANGING_CHANNEL_DIVISOR: Final = 4
STOPPED: Final = frozenset({SendPermission.BREAKER_OPEN, SendPermission.PROBE})
IDLE_AFTER_S: Final = 1.0
"""Without a running call for this long a channel is idle: that nothing is answered is no hang."""

log = structlog.get_logger(__name__)


class MonitoredCalls(Protocol):
    """The attempts that run for one queue; implemented by consumers.running_calls.RunningCalls."""

    answered_at: float

    @property
    def stuck(self) -> int:
        """Attempts that run far longer than usual, without those from before a recovery."""
        ...

    @property
    def is_hanging(self) -> bool:
        """Whether over half of the attempts are stuck, and too many to be replaced."""
        ...

    @property
    def oldest_s(self) -> float:
        """How long the oldest attempt has run, 0 if none runs."""
        ...

    @property
    def service_s(self) -> float:
        """How long an answered attempt takes on average."""
        ...

    def oldest_start_since(self, instant: float) -> float | None:
        """When the oldest attempt started of those running since `instant` and any recovery."""
        ...

    def mark_recovered(self, at: float) -> None:
        """The provider answers again after a hang: attempts from before `at` are no hang."""
        ...


class MonitoredLane(Protocol):
    """One queue in this worker; implemented by scheduling.consumers.lane.Lane."""

    consumers: int

    @property
    def queue(self) -> QueueKey:
        """The queue it belongs to."""
        ...

    @property
    def calls(self) -> MonitoredCalls:
        """The attempts that run for it."""
        ...


@dataclass(slots=True)
class _ChannelCalls:
    """How long a channel has been calling without an answer. Times are monotonic seconds.

    `unanswered_since` is when the first of the calls began that had no answer since, None if there
    is none. `last_running_at` is the last check at which a call ran, None before the first.
    """

    unanswered_since: float | None = None
    last_running_at: float | None = None
    is_hanging: bool = False

    def check(self, oldest_started_at: float | None, answered_at: float, now: float) -> None:
        """Update from what holds now.

        `oldest_started_at` is when the oldest call began that runs and began after the last answer,
        which came at `answered_at`; None if no such call runs.
        """
        was_answered = self.unanswered_since is not None and answered_at > self.unanswered_since
        if was_answered or (not self.is_hanging and self._was_idle(oldest_started_at, now)):
            self.unanswered_since = None
        if oldest_started_at is not None:
            self.last_running_at = now
            if self.unanswered_since is None or oldest_started_at < self.unanswered_since:
                self.unanswered_since = oldest_started_at
        self.is_hanging = self.unanswered_for_s(now) > HANGS_AFTER_S

    def _was_idle(self, oldest_started_at: float | None, now: float) -> bool:
        if self.last_running_at is None:
            return True
        idle_until = now if oldest_started_at is None else oldest_started_at
        return idle_until - self.last_running_at > IDLE_AFTER_S

    def unanswered_for_s(self, now: float) -> float:
        """How long no call has been answered, 0 if none waits for an answer."""
        return 0.0 if self.unanswered_since is None else now - self.unanswered_since


class HangDetector:
    """Which channels and queues hang, as of the last check.

    `consumers` is the number of floating consumers of this worker. While its heartbeats fail,
    attempts wait for Postgres and not for their provider: then nothing counts as a hang. Nor does
    what a breaker has stopped.
    """

    def __init__(
        self,
        consumers: int,
        *,
        observer: HangObserver,
        liveness: AliveCheck,
        gates: Permissions,
    ) -> None:
        self._observer = observer
        self._liveness = liveness
        self._gates = gates
        self._hanging_channel_limit = max(1, consumers // HANGING_CHANNEL_DIVISOR)
        self._channels = defaultdict[Channel, _ChannelCalls](_ChannelCalls)
        self._reported_queues: set[QueueKey] = set()
        self._unanswered_s: dict[Channel, float] = {}

    def check(self, lanes: Collection[MonitoredLane], now: float) -> None:
        """Decide again which channels and queues hang; log and count what changed."""
        if not self._liveness.is_alive():
            for lane in lanes:
                lane.calls.mark_recovered(now)
            self._channels.clear()
        lanes_by_channel = defaultdict[Channel, list[MonitoredLane]](list)
        for lane in lanes:
            lanes_by_channel[lane.queue.channel].append(lane)
        for channel, channel_lanes in lanes_by_channel.items():
            self._check_channel(channel, channel_lanes, now)
        for lane in lanes:
            self._report_queue(lane)

    def queue_limit(self, lane: MonitoredLane) -> int | None:
        """The maximum of consumers of a hanging queue, reserved included; None without a hang.

        Not less than the stuck calls that are replaced, and one.
        """
        return max(lane.consumers, 1 + MAX_STUCK_REPLACED) if lane.calls.is_hanging else None

    def channel_limit(self, channel: Channel) -> int | None:
        """The maximum of consumers of all queues of a hanging channel; None without a hang."""
        return self._hanging_channel_limit if self._channels[channel].is_hanging else None

    def unanswered_s(self, channel: Channel) -> float:
        """For how long the calls of a channel have had no answer; 0 if none runs.

        The time of an average call does not count: a slow answer is no missing one.
        """
        return self._unanswered_s.get(channel, 0.0)

    def _check_channel(self, channel: Channel, lanes: Sequence[MonitoredLane], now: float) -> None:
        if all(self._gates.permission(lane.queue) in STOPPED for lane in lanes):
            self._channels.pop(channel, None)
            for lane in lanes:
                lane.calls.mark_recovered(now)
        calls = self._channels[channel]
        answered_at = max(lane.calls.answered_at for lane in lanes)
        started = [lane.calls.oldest_start_since(answered_at) for lane in lanes]
        was_hanging = calls.is_hanging
        oldest_started_at = min((at for at in started if at is not None), default=None)
        calls.check(oldest_started_at, answered_at, now)
        usual_s = max(lane.calls.service_s for lane in lanes)
        is_running = oldest_started_at is not None
        silence_s = calls.unanswered_for_s(now) if is_running else 0.0
        self._unanswered_s[channel] = max(0.0, silence_s - usual_s)
        self._observer.provider_hanging(channel, is_hanging=calls.is_hanging)
        if calls.is_hanging and not was_hanging:
            log.warning(
                "provider_hang_detected",
                channel=channel,
                oldest_s=round(calls.unanswered_for_s(now), 1),
                max_consumers=self._hanging_channel_limit,
            )
        elif was_hanging and not calls.is_hanging:
            log.info("provider_recovered_from_hang", channel=channel)
            for lane in lanes:
                lane.calls.mark_recovered(answered_at)

    def _report_queue(self, lane: MonitoredLane) -> None:
        """Log once that a queue hangs, and once that all its calls are well again.

        The end is logged only when no call is stuck: a provider may hang for some calls only.
        """
        queue = lane.queue
        is_well = not lane.calls.stuck and not self._channels[queue.channel].is_hanging
        if lane.calls.is_hanging and queue not in self._reported_queues:
            self._reported_queues.add(queue)
            oldest_s = round(lane.calls.oldest_s, 1)
            log.warning(
                "queue_hang_detected", queue=str(queue), oldest_s=oldest_s, calls=lane.calls.stuck
            )
        elif is_well and queue in self._reported_queues:
            self._reported_queues.remove(queue)
            log.info("queue_recovered_from_hang", queue=str(queue))
