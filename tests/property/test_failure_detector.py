"""No process counts as dead before six seconds of unbroken heartbeats, whatever happens to them."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.liveness import DEAD_AFTER_S, MAX_BEAT_GAP_S
from notifier.ports.heartbeat import WorkerFigures
from notifier.scheduling.cluster.failure_detector import FailureDetector
from tests.builders import worker_id

ANN = worker_id()


class Beat(NamedTuple):
    """A heartbeat of the observer: seconds since the one before, whether it failed or Ann moved."""

    after_s: float
    has_failed: bool
    has_moved: bool


BEATS = st.lists(
    st.builds(
        Beat,
        after_s=st.sampled_from([0.9, 1.0, 1.1, 2.4, 2.6, 20.0]),
        has_failed=st.integers(0, 9).map(lambda n: n == 0),
        has_moved=st.integers(0, 4).map(lambda n: n == 0),
    ),
    max_size=40,
)


@given(BEATS)
def test_the_counter_of_a_dead_process_stopped_for_six_seconds_of_unbroken_heartbeats(
    beats: list[Beat],
) -> None:
    detector, now, counter = FailureDetector(), 0.0, 1
    stopped_s = 0.0  # over unbroken heartbeats that all read the same counter
    is_broken = True
    for beat in beats:
        now += beat.after_s
        counter += beat.has_moved
        if beat.has_failed:
            detector.beat_failed()
            is_broken = True
            assert detector.dead() == []
            continue
        row = WorkerFigures(
            id=ANN, kind="worker", host="h", pid=1, beat=counter, age_s=1.0, queues={}, providers={}
        )
        detector.beat_succeeded([row], now)
        restarts = is_broken or beat.has_moved or beat.after_s > MAX_BEAT_GAP_S
        stopped_s = 0.0 if restarts else stopped_s + beat.after_s
        is_broken = False
        if stopped_s < DEAD_AFTER_S - 1e-6:
            assert detector.dead() == []
            assert [peer.id for peer in detector.live()] == [ANN]
        elif stopped_s > DEAD_AFTER_S + 1e-6:
            assert detector.dead() == [(ANN, counter)]
            assert detector.live() == []
