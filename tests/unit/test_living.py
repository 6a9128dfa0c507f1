"""Who is taken for dead, and when."""

from __future__ import annotations

from notifier.domain.notification import WorkerId
from notifier.ports.heartbeat import WorkerFigures
from notifier.scheduling.cluster.failure_detector import FailureDetector
from tests.builders import worker_id

ANN, BEN = worker_id(), worker_id()


def row(id_: WorkerId, beat: int, age_s: float = 0.5) -> WorkerFigures:
    return WorkerFigures(
        id=id_, kind="worker", host="h", pid=1, beat=beat, age_s=age_s, queues={}, providers={}
    )


def names(living: FailureDetector) -> list[WorkerId]:
    return [other.id for other in living.others()]


def test_one_whose_counter_stands_for_six_seconds_of_our_beats_is_dead() -> None:
    living = FailureDetector()
    for second in range(6):
        living.beaten([row(ANN, 7), row(BEN, second)], float(second))
    assert living.silent() == []
    living.beaten([row(ANN, 7), row(BEN, 6)], 6.0)
    assert living.silent() == [(ANN, 7)]
    assert names(living) == [BEN]


def test_one_that_beats_again_lives_again() -> None:
    living = FailureDetector()
    for second in range(8):
        living.beaten([row(ANN, 7)], float(second))
    living.beaten([row(ANN, 8)], 8.0)
    assert living.silent() == []
    assert names(living) == [ANN]


def test_a_heartbeat_of_ours_that_failed_starts_every_span_anew() -> None:
    living = FailureDetector()
    for second in range(4):
        living.beaten([row(ANN, 7)], float(second))
    living.missed()
    for second in range(5, 11):
        living.beaten([row(ANN, 7)], float(second))
        assert living.silent() == []
    living.beaten([row(ANN, 7)], 11.0)
    assert living.silent() == [(ANN, 7)]


def test_a_pause_of_our_own_declares_nobody_dead() -> None:
    living = FailureDetector()
    living.beaten([row(ANN, 7)], 0.0)
    living.beaten([row(ANN, 7)], 20.0)
    assert living.silent() == []


def test_a_row_that_was_old_when_first_seen_takes_no_part() -> None:
    living = FailureDetector()
    living.beaten([row(ANN, 7, age_s=900.0), row(BEN, 1)], 0.0)
    assert names(living) == [BEN]


def test_after_an_outage_of_postgres_the_living_stay_known() -> None:
    living = FailureDetector()
    living.beaten([row(ANN, 7)], 0.0)
    living.beaten([row(ANN, 8)], 1.0)
    living.missed()
    living.beaten([row(ANN, 8, age_s=30.0)], 31.0)
    assert names(living) == [ANN]
