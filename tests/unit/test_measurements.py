"""Moving averages on a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from uuid import UUID

import pytest

from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey
from notifier.domain.timing import AttemptTiming
from notifier.ports.broker import Depth, Message, Pointer
from notifier.ports.store import Waiting
from notifier.scheduling.cluster.loss_detector import LossDetector
from notifier.scheduling.cluster.peer_load import PeerLoad
from notifier.scheduling.consumers.measurements import PeakUse, QueueMeasurements
from notifier.scheduling.rates.consumer_rate import burst, consumer_limiter

QUEUE = QueueKey(Channel("email"), Priority.HIGH)
EMPTY = Depth(0, 1)


class FakeClock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def due(rows: int, *, is_ceiling: bool = False) -> Waiting:
    return Waiting(due=rows, is_ceiling=is_ceiling, oldest_wait=timedelta(0))


def answered(seconds: float) -> AttemptTiming:
    return AttemptTiming(seconds, answered=True)


def test_service_time_is_a_tenth_of_a_second_until_known() -> None:
    assert QueueMeasurements(FakeClock()).service_s == 0.1


def test_service_time_counts_answered_calls_only() -> None:
    measurements = QueueMeasurements(FakeClock())
    measurements.attempt_finished(answered(0.02))
    measurements.attempt_finished(AttemptTiming(20.0, answered=False))
    assert measurements.service_s == pytest.approx(0.02)


def test_the_time_of_the_provider_call_is_unknown_until_one_was_answered() -> None:
    measurements = QueueMeasurements(FakeClock())
    measurements.attempt_finished(AttemptTiming(20.0, answered=False))
    assert measurements.call_s is None
    measurements.attempt_finished(answered(0.02))
    assert measurements.call_s == measurements.service_s == pytest.approx(0.02)


def test_one_slow_call_counts_at_most_five_times_the_median() -> None:
    measurements = QueueMeasurements(FakeClock())
    for seconds in [0.02] * 50 + [30.0]:
        measurements.attempt_finished(answered(seconds))
    assert measurements.service_s == pytest.approx(0.02 + 0.1 * (0.1 - 0.02))


def test_service_time_follows_a_provider_that_became_slow() -> None:
    measurements = QueueMeasurements(FakeClock())
    for seconds in [0.02] * 200 + [2.0] * 200:
        measurements.attempt_finished(answered(seconds))
    assert measurements.service_s == pytest.approx(2.0, rel=0.01)


def run_ticks(
    clock: FakeClock,
    measurements: QueueMeasurements,
    ticks: list[tuple[Depth | None, Waiting | None, int, int]],
) -> None:
    for depth, waiting, held, done in ticks:
        clock.now += 0.25
        for _ in range(done):
            measurements.attempt_finished(answered(0.02))
        measurements.observe(depth, waiting, held)


def test_arrivals_equal_completions_while_the_backlog_is_constant() -> None:
    clock = FakeClock()
    measurements = QueueMeasurements(clock)
    run_ticks(clock, measurements, [(Depth(10, 1), due(90), 5, 25)] * 40)
    assert measurements.arrivals_per_s == pytest.approx(100)
    assert measurements.done_per_s == pytest.approx(100)
    assert measurements.done == 1_000


def test_arrivals_include_the_growth_of_the_backlog() -> None:
    clock = FakeClock()
    measurements = QueueMeasurements(clock)
    run_ticks(clock, measurements, [(Depth(10 * n, 1), due(15 * n), 5, 25) for n in range(80)])
    assert measurements.arrivals_per_s == pytest.approx(200, rel=0.01)


def test_arrivals_include_the_load_of_the_peers() -> None:
    """Three workers finish 100/s each of 300/s arrivals; two are known with a delay of a second."""
    clock = FakeClock()
    measurements = QueueMeasurements(clock)
    measured = []
    for tick in range(80):
        clock.now += 0.25
        for _ in range(25):
            measurements.attempt_finished(answered(0.02))
        held_by_peers = 10 + (tick // 4) % 3
        measurements.observe(Depth(20, 3), due(0), 5, PeerLoad(held_by_peers, 200.0))
        measured.append(measurements.arrivals_per_s)
    assert all(280 < arrivals_per_s < 320 for arrivals_per_s in measured[1:])


class ThreeWorkers:
    """Three workers at one queue; each knows the others from their last heartbeats."""

    def __init__(self, arrivals_per_s: float, service_s: float) -> None:
        self._random = Random(1)
        self._clock = FakeClock()
        self._arrivals_per_s, self._service_s = arrivals_per_s, service_s
        self._ends: list[list[float]] = [[], [], []]
        self._ready = 0.0
        self._last_beat = [PeerLoad()] * 3
        self._known = [PeerLoad()] * 3
        self.workers = [QueueMeasurements(self._clock) for _ in range(3)]

    def run(self, span_s: float) -> Iterator[float]:
        """Steps of 10 ms; yields the arrivals that each worker measures, once per tick."""
        for step in range(1, round(span_s * 100)):
            self._clock.now += 0.01
            self._ready += self._arrivals_per_s / 100
            for number, ends in enumerate(self._ends):
                self._work(number, ends)
                if (step + 33 * number) % 100 == 0:
                    self._beat(number, ends)
                if (step + 8 * number) % 25 == 0:
                    yield self._observe(number, ends)

    def _work(self, number: int, ends: list[float]) -> None:
        now = self._clock.now
        for _ in [end for end in ends if end <= now]:
            self.workers[number].attempt_finished(answered(self._service_s))
        ends[:] = [end for end in ends if end > now]
        while self._ready >= 1 and len(ends) < 32 and self._random.random() < 0.5:
            self._ready -= 1
            ends.append(now + self._service_s * self._random.uniform(0.5, 1.5))

    def _beat(self, number: int, ends: list[float]) -> None:
        """The others read a heartbeat up to a second later: here, exactly a second later."""
        self._known[number] = self._last_beat[number]
        self._last_beat[number] = PeerLoad(len(ends), self.workers[number].done_per_s)

    def _observe(self, number: int, ends: list[float]) -> float:
        others = [load for other, load in enumerate(self._known) if other != number]
        reported = PeerLoad(
            sum(load.held for load in others), sum(load.done_per_s for load in others)
        )
        self.workers[number].observe(Depth(int(self._ready), 3), due(0), len(ends), reported)
        return self.workers[number].arrivals_per_s


@pytest.mark.parametrize("service_s", [0.02, 0.2])
def test_delayed_heartbeats_do_not_make_a_constant_load_oscillate(service_s: float) -> None:
    seen = list(ThreeWorkers(300, service_s).run(60))
    settled = seen[len(seen) // 6 :]
    assert all(240 < arrivals_per_s < 360 for arrivals_per_s in settled)
    assert sum(settled) / len(settled) == pytest.approx(300, rel=0.03)


def test_a_draining_backlog_gives_no_negative_arrivals() -> None:
    clock = FakeClock()
    measurements = QueueMeasurements(clock)
    run_ticks(clock, measurements, [(Depth(1_000 - 30 * n, 1), due(0), 5, 25) for n in range(30)])
    assert measurements.arrivals_per_s == 0


def test_messages_that_move_from_postgres_to_the_broker_to_the_worker_are_no_arrivals() -> None:
    clock = FakeClock()
    measurements = QueueMeasurements(clock)
    run_ticks(
        clock,
        measurements,
        [(EMPTY, due(900), 0, 0), (Depth(500, 1), due(400), 0, 0), (Depth(0, 1), due(400), 500, 0)],
    )
    assert measurements.arrivals_per_s == 0


def test_at_the_ceiling_arrivals_equal_completions() -> None:
    clock = FakeClock()
    measurements = QueueMeasurements(clock)
    ceiling = due(1_000, is_ceiling=True)
    run_ticks(clock, measurements, [(Depth(n * 100, 1), ceiling, 5, 25) for n in range(40)])
    assert measurements.arrivals_per_s == pytest.approx(100)


def test_leaving_the_ceiling_does_not_lower_the_arrivals() -> None:
    clock = FakeClock()
    measurements = QueueMeasurements(clock)
    run_ticks(clock, measurements, [(EMPTY, due(1_000, is_ceiling=True), 0, 25)] * 40)
    run_ticks(clock, measurements, [(EMPTY, due(100), 0, 25)])
    assert measurements.arrivals_per_s == pytest.approx(100)


def test_an_unknown_poll_keeps_the_last_figures() -> None:
    clock = FakeClock()
    measurements = QueueMeasurements(clock)
    run_ticks(clock, measurements, [(Depth(7, 1), due(3), 0, 0), (None, None, 0, 0)])
    assert (measurements.ready, measurements.waiting.due) == (7, 3)
    assert measurements.arrivals_per_s == 0


def test_the_peak_use_lasts_three_seconds() -> None:
    clock = FakeClock()
    peak = PeakUse(clock)
    seen = []
    for in_use in [9, 2, *[1] * 20]:
        peak.add(in_use)
        seen.append(peak.value)
        clock.now += 0.25
    assert seen[:13] == [9] * 13
    assert seen[13] == 2
    assert seen[14:] == [1] * 8


def test_an_idle_tick_ends_the_peak_use() -> None:
    clock = FakeClock()
    peak = PeakUse(clock)
    peak.add(64)
    clock.now += 0.26
    peak.add(0)
    assert peak.value == 0


@pytest.mark.parametrize(
    ("rate_per_s", "excess"), [(0.1, 0.0), (5.0, 0.0), (10.0, 0.0), (20.0, 2.0), (100.0, 5.0)]
)
def test_the_burst_of_a_consumer_depends_on_its_rate(rate_per_s: float, excess: float) -> None:
    assert burst(rate_per_s) == excess
    limiter = consumer_limiter(rate_per_s)
    assert limiter.max_rate / limiter.time_period <= rate_per_s


def message(published_at: float, *, redelivered: bool = False) -> Message:
    pointer = Pointer(
        queue=QUEUE, id=NotificationId(UUID(int=1)), claim=0, published_at=published_at
    )
    return Message([pointer], redelivered, tag=None)


def test_the_watermark_is_ten_seconds_old_and_ignores_redeliveries() -> None:
    detector = LossDetector()
    detector.delivered(message(50.0), now=0.0)
    detector.delivered(message(40.0), now=1.0)
    detector.delivered(message(99.0, redelivered=True), now=1.0)
    detector.delivered(message(60.0), now=5.0)
    assert detector.watermark(10.0) is None
    assert detector.watermark(10.5) == 50.0
    assert detector.watermark(11.5) == 50.0
    assert detector.watermark(15.5) == 60.0


def test_the_watermark_is_never_early_and_advances_in_a_steady_stream() -> None:
    detector = LossDetector()
    for tenth in range(300):
        now = tenth / 10
        detector.delivered(message(1_000 + now), now)
        mark = detector.watermark(now)
        assert (mark is None) == (now < 10.5)
        assert mark is None or 1_000 + now - 11 < mark <= 1_000 + now - 10


def polls(
    detector: LossDetector, *moments: float, depth: Depth | None = EMPTY, held: int = 0
) -> None:
    for now in moments:
        detector.polled(depth, held=held, now=now)


def test_a_queue_is_drained_while_every_poll_finds_it_empty() -> None:
    detector = LossDetector()
    polls(detector, 0.0, 0.5, 1.0, 1.5)
    assert detector.drained_s(1.6) == 1.5


@pytest.mark.parametrize("held", [0, 1])
@pytest.mark.parametrize("depth", [EMPTY, None, Depth(1, 1), Depth(0, 0)])
def test_any_other_poll_restarts_the_drained_time(depth: Depth | None, held: int) -> None:
    detector = LossDetector()
    polls(detector, 0.0, 0.5)
    polls(detector, 1.0, depth=depth, held=held)
    polls(detector, 1.5)
    assert detector.drained_s(1.5) == (1.5 if depth == EMPTY and not held else 0.0)


def test_a_missing_poll_a_message_and_a_lost_connection_restart_the_drained_time() -> None:
    silent, taken, lost = LossDetector(), LossDetector(), LossDetector()
    for detector in (silent, taken, lost):
        polls(detector, 0.0, 0.5)
    polls(silent, 1.6)
    taken.delivered(message(1.0), now=0.6)
    lost.connection_lost()
    assert silent.drained_s(1.6) == taken.drained_s(0.6) == lost.drained_s(0.6) == 0.0
    polls(taken, 1.0, 1.5)
    assert taken.drained_s(1.5) == 0.5
    assert taken.drained_s(3.0) == 0.0
