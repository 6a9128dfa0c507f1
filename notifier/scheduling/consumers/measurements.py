"""What one worker measures of one queue: moving averages that an odd sample does not upset.

Time comes from an injected monotonic clock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from math import exp
from typing import Final, NamedTuple

from notifier.domain.allocation import AttemptTiming
from notifier.ports.broker import Depth
from notifier.ports.store import Waiting

Clock = Callable[[], float]

NOTHING_WAITS: Final = Waiting(due=0, is_ceiling=False, oldest_wait=timedelta(0))
UNKNOWN_SERVICE_S: Final = 0.1
SMOOTHING_S: Final = 2.0
PEAK_WINDOW_S: Final = 3.0
IDLE_AFTER_S: Final = 0.25
_SAMPLES: Final = 63
_CLIP: Final = 5
_SERVICE_GAIN: Final = 0.1
_SHORTEST_S: Final = 0.01


class PeerLoad(NamedTuple):
    """What the other workers do with one queue, as their heartbeats said lately."""

    held: int = 0
    done_per_s: float = 0.0


NO_PEER_LOAD: Final = PeerLoad()


class ServiceTime:
    """The consumer seconds of one attempt: 0.1 s until known.

    Only answered calls count, each at no more than 5 times the median of the last 63, so that a
    provider that hangs does not look like one that needs more consumers.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._mean: float | None = None

    @property
    def seconds(self) -> float:
        """The average, never 0."""
        return UNKNOWN_SERVICE_S if self._mean is None else max(self._mean, 1e-6)

    def add(self, timing: AttemptTiming) -> None:
        """Count one attempt."""
        if not timing.answered:
            return
        self._remember(timing.seconds)
        sample = min(timing.seconds, _CLIP * self._sorted[len(self._sorted) // 2])
        if self._mean is None:
            self._mean = sample
        self._mean += _SERVICE_GAIN * (sample - self._mean)

    def _remember(self, seconds: float) -> None:
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        if len(self._recent) > _SAMPLES:
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]


class Average:
    """An exponentially weighted mean over time; samples may come at any interval."""

    def __init__(self) -> None:
        self.value = 0.0
        self._is_known = False

    def add(self, sample: float, span_s: float) -> None:
        """Count a value that held for so long."""
        gain = 1 - exp(-span_s / SMOOTHING_S) if self._is_known else 1.0
        self.value += gain * (sample - self.value)
        self._is_known = True


class PeakOfUse:
    """The most consumers in use at once in the last 3 s; none if none was in the last tick.

    Without the second half everybody would stand 3 s at a queue that has just been drained.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._peaks: deque[tuple[float, int]] = deque()
        self._used_at = -IDLE_AFTER_S

    def add(self, in_use: int) -> None:
        """Count an observation; only those that may yet become the peak are kept."""
        now = self._clock()
        if in_use:
            self._used_at = now
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


class QueueMeasures:
    """Everything the allocator wants to know of one queue, as far as this worker saw it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrivals = Average()
        self._completions = Average()
        self._service = ServiceTime()
        self._counted_at = clock()
        self._counted_done = 0
        self._total: int | None = None
        self.peak = PeakOfUse(clock)
        self.done = 0
        self.ready = 0
        self.waiting = NOTHING_WAITS

    @property
    def service_s(self) -> float:
        """Consumer seconds of one attempt."""
        return self._service.seconds

    @property
    def arrivals_per_s(self) -> float:
        """How fast messages come, all workers' together: what piles up plus what was done."""
        return max(0.0, self._arrivals.value)

    @property
    def done_per_s(self) -> float:
        """How fast attempts end here."""
        return self._completions.value

    def finished(self, timing: AttemptTiming) -> None:
        """Count an attempt that ended."""
        self.done += 1
        self._service.add(timing)

    def observe(
        self,
        depth: Depth | None,
        waiting: Waiting | None,
        held: int,
        peer_load: PeerLoad = NO_PEER_LOAD,
    ) -> None:
        """Count a poll; None is unknown and leaves the last known figure standing.

        The arrivals are the deployment's: what the others hold and do is counted in.

        While the due rows are only known to be "at least so many", completions alone tell the
        arrivals; the same for the step into and out of what is unknown.
        """
        now = self._clock()
        span_s = now - self._counted_at
        if span_s < _SHORTEST_S:
            return
        completions = (self.done - self._counted_done) / span_s
        self._counted_at, self._counted_done = now, self.done
        self._completions.add(completions, span_s)
        before, self._total = self._total, self._take_in(depth, waiting, held + peer_load.held)
        growth = 0 if before is None or self._total is None else self._total - before
        self._arrivals.add(growth / span_s + completions + peer_load.done_per_s, span_s)

    def _take_in(self, depth: Depth | None, waiting: Waiting | None, held: int) -> int | None:
        if depth is not None:
            self.ready = depth.ready
        if waiting is not None:
            self.waiting = waiting
        if depth is None or waiting is None or self.waiting.is_ceiling:
            return None
        return self.ready + self.waiting.due + held
