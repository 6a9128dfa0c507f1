"""Whatever happens to the heartbeats, nobody is taken for dead without six good seconds."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from notifier.ports.heartbeat import WorkerFigures
from notifier.scheduling.cluster.failure_detector import (
    DEAD_AFTER_S,
    MAX_BEAT_GAP_S,
    FailureDetector,
)
from tests.builders import worker_id

ANN = worker_id()


class Beat(NamedTuple):
    """One heartbeat of ours: how long after the one before, if it failed, if Ann had moved."""

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
def test_who_is_dead_stood_still_through_six_seconds_of_unbroken_beats(beats: list[Beat]) -> None:
    living, now, counter = FailureDetector(), 0.0, 1
    stood_still_s = 0.0  # over an unbroken run of beats that all saw the same counter
    is_broken = True
    for beat in beats:
        now += beat.after_s
        counter += beat.has_moved
        if beat.has_failed:
            living.missed()
            is_broken = True
            assert living.silent() == []
            continue
        row = WorkerFigures(
            id=ANN, kind="worker", host="h", pid=1, beat=counter, age_s=1.0, queues={}, providers={}
        )
        living.beaten([row], now)
        starts_anew = is_broken or beat.has_moved or beat.after_s > MAX_BEAT_GAP_S
        stood_still_s = 0.0 if starts_anew else stood_still_s + beat.after_s
        is_broken = False
        if stood_still_s < DEAD_AFTER_S - 1e-6:
            assert living.silent() == []
            assert [other.id for other in living.others()] == [ANN]
        elif stood_still_s > DEAD_AFTER_S + 1e-6:
            assert living.silent() == [(ANN, counter)]
            assert living.others() == []
