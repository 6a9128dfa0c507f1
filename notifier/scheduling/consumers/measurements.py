"""What one worker measures of one queue: moving averages that resist outliers.

Times are seconds of an injected monotonic clock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from datetime import timedelta
from math import exp
from typing import Final

from notifier.domain.timing import AttemptTiming
from notifier.lifecycle import Clock
from notifier.ports.broker import Depth
from notifier.ports.store import Waiting
from notifier.scheduling.cluster.peer_load import NO_PEER_LOAD, PeerLoad

NOTHING_WAITS: Final = Waiting(due=0, is_ceiling=False, oldest_wait=timedelta(0))
UNKNOWN_SERVICE_S: Final = 0.1
SMOOTHING_S: Final = 2.0
PEAK_WINDOW_S: Final = 3.0
IDLE_AFTER_S: Final = 0.25
QUIET_PER_S: Final = 1.0
_MAX_SAMPLES: Final = 63
_MAX_MEDIANS: Final = 5
_SERVICE_GAIN: Final = 0.1
_MIN_SERVICE_S: Final = 1e-6
_MIN_SPAN_S: Final = 0.01


class MeanDuration:
    """A moving average of seconds, each counted with up to 5 times the median of the last 63."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._mean: float | None = None

    @property
    def seconds(self) -> float | None:
        """The average, always above 0; None until measured."""
        return None if self._mean is None else max(self._mean, _MIN_SERVICE_S)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        recent, ordered = self._recent, self._sorted
        recent.append(seconds)
        insort(ordered, seconds)
        if len(recent) > _MAX_SAMPLES:
            del ordered[bisect_left(ordered, recent.popleft())]
        sample = min(seconds, _MAX_MEDIANS * ordered[len(ordered) // 2])
        if self._mean is None:
            self._mean = sample
        self._mean += _SERVICE_GAIN * (sample - self._mean)


class MovingAverage:
    """An exponentially weighted mean over time; samples may come at any interval."""

    def __init__(self) -> None:
        self.value = 0.0
        self._has_samples = False

    def add(self, sample: float, span_s: float) -> None:
        """Count a value that held for the last `span_s` seconds."""
        gain = 1 - exp(-span_s / SMOOTHING_S) if self._has_samples else 1.0
        self.value += gain * (sample - self.value)
        self._has_samples = True


class PeakUse:
    """The most consumers in use at once in the last 3 s; 0 if none was in use in the last tick.

    Without the second rule, consumers would stay for 3 s at a queue that has just been drained.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._peaks: deque[tuple[float, int]] = deque()
        self._used_at = -IDLE_AFTER_S

    def add(self, in_use: int) -> None:
        """Count the number of consumers in use now."""
        now = self._clock()
        if in_use:
            self._used_at = now
        # Older and lower samples can never become the peak again.
        while self._peaks and self._peaks[-1][1] <= in_use:
            self._peaks.pop()
        self._peaks.append((now, in_use))

    @property
    def value(self) -> int:
        """The peak as of now."""
        now = self._clock()
        while self._peaks and self._peaks[0][0] < now - PEAK_WINDOW_S:
            self._peaks.popleft()
        if not self._peaks or self._used_at < now - IDLE_AFTER_S:
            return 0
        return self._peaks[0][1]


class QueueMeasurements:
    """Depth, arrivals, completions and service time of one queue, as this worker measures them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrivals = MovingAverage()
        self._completions = MovingAverage()
        self._calls = MeanDuration()
        self._claim_waits = MeanDuration()
        self._observed_at = clock()
        self._observed_done = 0
        self._total: int | None = None
        self.peak_use = PeakUse(clock)
        self.done = 0
        self.ready = 0
        self.waiting = NOTHING_WAITS

    @property
    def service_s(self) -> float:
        """The average seconds that an attempt occupies its consumer.

        The provider call, 0.1 until measured, and where the queue has a rate the wait for a claim.
        """
        return (self.call_s or UNKNOWN_SERVICE_S) + (self._claim_waits.seconds or 0.0)

    @property
    def call_s(self) -> float | None:
        """The average seconds of an answered provider call, always above 0; None until measured.

        Other calls do not count, so that a provider that hangs does not look like one that needs
        more consumers.
        """
        return self._calls.seconds

    @property
    def arrivals_per_s(self) -> float:
        """Arrivals per second in the whole deployment: growth of the backlog plus completions."""
        return max(0.0, self._arrivals.value)

    @property
    def done_per_s(self) -> float:
        """Attempts finished per second in this worker."""
        return self._completions.value

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waited at the last poll, and hardly anything arrives or is finished."""
        return (
            self.ready == 0
            and self.waiting.due == 0
            and not self.waiting.oldest_wait
            and self._arrivals.value < QUIET_PER_S
            and self._completions.value < QUIET_PER_S
        )

    def claim_waited(self, seconds: float) -> None:
        """Count the wait of a consumer that has a slot for a claimed row."""
        self._claim_waits.add(seconds)

    def attempt_finished(self, timing: AttemptTiming) -> None:
        """Count an attempt that ended."""
        self.done += 1
        if timing.answered:
            self._calls.add(timing.seconds)

    def observe(
        self,
        depth: Depth | None,
        waiting: Waiting | None,
        held: int,
        peer_load: PeerLoad = NO_PEER_LOAD,
    ) -> None:
        """Record one poll; None means unknown and keeps the last known figure.

        `held` is what this worker holds; the arrivals include what the peers hold and finish. While
        the due rows are only known as "at least n", the arrivals are taken from the completions
        alone, and so are the steps into and out of an unknown total.
        """
        now = self._clock()
        span_s = now - self._observed_at
        if span_s < _MIN_SPAN_S:
            return
        completions = (self.done - self._observed_done) / span_s
        self._observed_at, self._observed_done = now, self.done
        self._completions.add(completions, span_s)
        before = self._total
        self._total = self._update_total(depth, waiting, held + peer_load.held)
        growth = 0 if before is None or self._total is None else self._total - before
        self._arrivals.add(growth / span_s + completions + peer_load.done_per_s, span_s)

    def _update_total(self, depth: Depth | None, waiting: Waiting | None, held: int) -> int | None:
        """The messages of this queue in the whole deployment, None if unknown."""
        if depth is not None:
            self.ready = depth.ready
        if waiting is not None:
            self.waiting = waiting
        if depth is None or waiting is None or self.waiting.is_ceiling:
            return None
        return self.ready + self.waiting.due + held
