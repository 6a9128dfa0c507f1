"""Moving averages on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from uuid import UUID

import pytest

from notifier.domain.allocation import AttemptTiming
from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey
from notifier.ports.broker import Delivery, Depth, Pointer
from notifier.ports.store import Waiting
from notifier.scheduling.cluster.loss_detector import LossDetector
from notifier.scheduling.consumers.measurements import (
    PeakOfUse,
    PeerLoad,
    QueueMeasures,
    ServiceTime,
)
from notifier.scheduling.rates.consumer_rate import burst, consumer_limiter, prefetch_for

QUEUE = QueueKey(Channel("email"), Priority.HIGH)
EMPTY = Depth(0, 1)


class Watch:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def due(rows: int, *, is_ceiling: bool = False) -> Waiting:
    return Waiting(due=rows, is_ceiling=is_ceiling, oldest_wait=timedelta(0))


def answered(seconds: float) -> AttemptTiming:
    return AttemptTiming(seconds, answered=True)


def test_service_time_is_a_tenth_of_a_second_until_known() -> None:
    assert ServiceTime().seconds == 0.1


def test_service_time_counts_answered_calls_only() -> None:
    service = ServiceTime()
    service.add(answered(0.02))
    service.add(AttemptTiming(20.0, answered=False))
    assert service.seconds == pytest.approx(0.02)


def test_one_slow_call_counts_as_five_ordinary_ones_at_most() -> None:
    service = ServiceTime()
    for _ in range(50):
        service.add(answered(0.02))
    service.add(answered(30.0))
    assert service.seconds == pytest.approx(0.02 + 0.1 * (0.1 - 0.02))


def test_service_time_follows_a_provider_that_became_slow() -> None:
    service = ServiceTime()
    for seconds in [0.02] * 200 + [2.0] * 200:
        service.add(answered(seconds))
    assert service.seconds == pytest.approx(2.0, rel=0.01)


def run_ticks(
    watch: Watch,
    measures: QueueMeasures,
    ticks: list[tuple[Depth | None, Waiting | None, int, int]],
) -> None:
    for depth, waiting, held, done in ticks:
        watch.now += 0.25
        for _ in range(done):
            measures.finished(answered(0.02))
        measures.observe(depth, waiting, held)


def test_arrivals_are_completions_while_what_waits_stays_the_same() -> None:
    watch = Watch()
    measures = QueueMeasures(watch)
    run_ticks(watch, measures, [(Depth(10, 1), due(90), 5, 25)] * 40)
    assert measures.arrivals_per_s == pytest.approx(100)
    assert measures.done_per_s == pytest.approx(100)
    assert measures.done == 1_000


def test_arrivals_count_what_piles_up() -> None:
    watch = Watch()
    measures = QueueMeasures(watch)
    run_ticks(watch, measures, [(Depth(10 * n, 1), due(15 * n), 5, 25) for n in range(80)])
    assert measures.arrivals_per_s == pytest.approx(200, rel=0.01)


def test_what_the_others_do_is_counted_in_as_their_heartbeats_step() -> None:
    """Three workers do 100/s each of 300/s that come; two of them are known a second late."""
    watch = Watch()
    measures = QueueMeasures(watch)
    seen = []
    for tick in range(80):
        watch.now += 0.25
        for _ in range(25):
            measures.finished(answered(0.02))
        held_elsewhere = 10 + (tick // 4) % 3
        measures.observe(Depth(20, 3), due(0), 5, PeerLoad(held_elsewhere, 200.0))
        seen.append(measures.arrivals_per_s)
    assert all(280 < arrivals_per_s < 320 for arrivals_per_s in seen[1:])


class Trio:
    """Three workers at one queue; each knows of the others what their last heartbeats said."""

    def __init__(self, arrivals_per_s: float, service_s: float) -> None:
        self._random = Random(1)
        self._watch = Watch()
        self._arrivals_per_s, self._service_s = arrivals_per_s, service_s
        self._ends: list[list[float]] = [[], [], []]
        self._ready = 0.0
        self._beaten = [PeerLoad()] * 3
        self._known = [PeerLoad()] * 3
        self.workers = [QueueMeasures(self._watch) for _ in range(3)]

    def run(self, span_s: float) -> Iterator[float]:
        """Step by step of 10 ms; says what each worker takes for the arrivals, every tick."""
        for step in range(1, round(span_s * 100)):
            self._watch.now += 0.01
            self._ready += self._arrivals_per_s / 100
            for number, ends in enumerate(self._ends):
                self._work(number, ends)
                if (step + 33 * number) % 100 == 0:
                    self._beat(number, ends)
                if (step + 8 * number) % 25 == 0:
                    yield self._look(number, ends)

    def _work(self, number: int, ends: list[float]) -> None:
        now = self._watch.now
        for _ in [end for end in ends if end <= now]:
            self.workers[number].finished(answered(self._service_s))
        ends[:] = [end for end in ends if end > now]
        while self._ready >= 1 and len(ends) < 32 and self._random.random() < 0.5:
            self._ready -= 1
            ends.append(now + self._service_s * self._random.uniform(0.5, 1.5))

    def _beat(self, number: int, ends: list[float]) -> None:
        """What is said now is read by the others a second later at most: here, a second later."""
        self._known[number] = self._beaten[number]
        self._beaten[number] = PeerLoad(len(ends), self.workers[number].done_per_s)

    def _look(self, number: int, ends: list[float]) -> float:
        others = [each for other, each in enumerate(self._known) if other != number]
        said = PeerLoad(sum(each.held for each in others), sum(each.done_per_s for each in others))
        self.workers[number].observe(Depth(int(self._ready), 3), due(0), len(ends), said)
        return self.workers[number].arrivals_per_s


@pytest.mark.parametrize("service_s", [0.02, 0.2])
def test_heartbeats_that_are_old_and_step_make_no_wave_of_a_constant_load(service_s: float) -> None:
    seen = list(Trio(300, service_s).run(60))
    settled = seen[len(seen) // 6 :]
    assert all(240 < arrivals_per_s < 360 for arrivals_per_s in settled)
    assert sum(settled) / len(settled) == pytest.approx(300, rel=0.03)


def test_a_backlog_that_drains_is_no_arrival_and_never_a_negative_one() -> None:
    watch = Watch()
    measures = QueueMeasures(watch)
    run_ticks(watch, measures, [(Depth(1_000 - 30 * n, 1), due(0), 5, 25) for n in range(30)])
    assert measures.arrivals_per_s == 0


def test_what_moves_from_postgres_to_the_broker_to_here_is_no_arrival() -> None:
    watch = Watch()
    measures = QueueMeasures(watch)
    run_ticks(
        watch,
        measures,
        [(EMPTY, due(900), 0, 0), (Depth(500, 1), due(400), 0, 0), (Depth(0, 1), due(400), 500, 0)],
    )
    assert measures.arrivals_per_s == 0


def test_at_the_ceiling_completions_alone_tell_the_arrivals() -> None:
    watch = Watch()
    measures = QueueMeasures(watch)
    ceiling = due(1_000, is_ceiling=True)
    run_ticks(watch, measures, [(Depth(n * 100, 1), ceiling, 5, 25) for n in range(40)])
    assert measures.arrivals_per_s == pytest.approx(100)


def test_leaving_the_ceiling_is_no_departure() -> None:
    watch = Watch()
    measures = QueueMeasures(watch)
    run_ticks(watch, measures, [(EMPTY, due(1_000, is_ceiling=True), 0, 25)] * 40)
    run_ticks(watch, measures, [(EMPTY, due(100), 0, 25)])
    assert measures.arrivals_per_s == pytest.approx(100)


def test_an_unknown_poll_leaves_the_last_figures_standing() -> None:
    watch = Watch()
    measures = QueueMeasures(watch)
    run_ticks(watch, measures, [(Depth(7, 1), due(3), 0, 0), (None, None, 0, 0)])
    assert (measures.ready, measures.waiting.due) == (7, 3)
    assert measures.arrivals_per_s == 0


def test_the_peak_of_use_lasts_three_seconds_of_work() -> None:
    watch = Watch()
    peak = PeakOfUse(watch)
    seen = []
    for in_use in [9, 2, *[1] * 20]:
        peak.add(in_use)
        seen.append(peak.value)
        watch.now += 0.25
    assert seen[:13] == [9] * 13
    assert seen[13] == 2
    assert seen[14:] == [1] * 8


def test_an_idle_tick_ends_the_peak_of_use() -> None:
    watch = Watch()
    peak = PeakOfUse(watch)
    peak.add(64)
    watch.now += 0.26
    peak.add(0)
    assert peak.value == 0


@pytest.mark.parametrize(
    ("consumers", "rate_per_s", "prefetch"),
    [
        (0, None, 0),
        (1, None, 1),
        (3, None, 4),
        (64, None, 64),
        (65, None, 128),
        (64, 4.0, 20),
        (64, 1 / 60, 1),
        (2, 100.0, 2),
    ],
)
def test_prefetch_is_the_next_power_of_two_within_five_seconds_of_the_rate(
    consumers: int, rate_per_s: float | None, prefetch: int
) -> None:
    assert prefetch_for(consumers, rate_per_s) == prefetch


@pytest.mark.parametrize(
    ("rate_per_s", "above"), [(0.1, 0.0), (5.0, 0.0), (10.0, 0.0), (20.0, 2.0), (100.0, 5.0)]
)
def test_the_burst_of_a_consumer_is_stated(rate_per_s: float, above: float) -> None:
    assert burst(rate_per_s) == above
    limiter = consumer_limiter(rate_per_s)
    assert limiter.max_rate / limiter.time_period <= rate_per_s


def delivery(published_at: float, *, redelivered: bool = False) -> Delivery:
    pointer = Pointer(
        queue=QUEUE, id=NotificationId(UUID(int=1)), claim=0, published_at=published_at
    )
    return Delivery(pointer, redelivered, tag=None)


def test_the_mark_is_ten_seconds_old_and_no_redelivery_sets_it() -> None:
    trace = LossDetector()
    trace.taken(delivery(50.0), now=0.0)
    trace.taken(delivery(40.0), now=1.0)
    trace.taken(delivery(99.0, redelivered=True), now=1.0)
    trace.taken(delivery(60.0), now=5.0)
    assert trace.mark(10.0) is None
    assert trace.mark(10.5) == 50.0
    assert trace.mark(11.5) == 50.0
    assert trace.mark(15.5) == 60.0


def test_the_mark_is_never_early_and_goes_on_in_a_steady_stream() -> None:
    trace = LossDetector()
    for tenth in range(300):
        now = tenth / 10
        trace.taken(delivery(1_000 + now), now)
        mark = trace.mark(now)
        assert (mark is None) == (now < 10.5)
        assert mark is None or 1_000 + now - 11 < mark <= 1_000 + now - 10


def polls(trace: LossDetector, *moments: float, depth: Depth | None = EMPTY, held: int = 0) -> None:
    for now in moments:
        trace.polled(depth, held=held, now=now)


def test_a_queue_is_drained_for_as_long_as_every_poll_said_so() -> None:
    trace = LossDetector()
    polls(trace, 0.0, 0.5, 1.0, 1.5)
    assert trace.drained_s(1.6) == 1.5


@pytest.mark.parametrize("held", [0, 1])
@pytest.mark.parametrize("depth", [EMPTY, None, Depth(1, 1), Depth(0, 0)])
def test_anything_else_breaks_it(depth: Depth | None, held: int) -> None:
    trace = LossDetector()
    polls(trace, 0.0, 0.5)
    polls(trace, 1.0, depth=depth, held=held)
    polls(trace, 1.5)
    assert trace.drained_s(1.5) == (1.5 if depth == EMPTY and not held else 0.0)


def test_silence_a_message_and_a_lost_connection_break_it() -> None:
    silent, taken, lost = LossDetector(), LossDetector(), LossDetector()
    for trace in (silent, taken, lost):
        polls(trace, 0.0, 0.5)
    polls(silent, 1.6)
    taken.taken(delivery(1.0), now=0.6)
    lost.lost()
    assert silent.drained_s(1.6) == taken.drained_s(0.6) == lost.drained_s(0.6) == 0.0
    polls(taken, 1.0, 1.5)
    assert taken.drained_s(1.5) == 0.5
    assert taken.drained_s(3.0) == 0.0
