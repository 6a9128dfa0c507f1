"""When another process counts as dead."""

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


def live_ids(detector: FailureDetector) -> list[WorkerId]:
    return [peer.id for peer in detector.live()]


def test_a_process_whose_counter_stops_for_six_seconds_is_dead() -> None:
    detector = FailureDetector()
    for second in range(6):
        detector.beat_succeeded([row(ANN, 7), row(BEN, second)], float(second))
    assert detector.dead() == []
    detector.beat_succeeded([row(ANN, 7), row(BEN, 6)], 6.0)
    assert detector.dead() == [(ANN, 7)]
    assert live_ids(detector) == [BEN]


def test_a_process_whose_counter_moves_again_is_live_again() -> None:
    detector = FailureDetector()
    for second in range(8):
        detector.beat_succeeded([row(ANN, 7)], float(second))
    detector.beat_succeeded([row(ANN, 8)], 8.0)
    assert detector.dead() == []
    assert live_ids(detector) == [ANN]


def test_a_failed_heartbeat_of_the_observer_restarts_all_spans() -> None:
    detector = FailureDetector()
    for second in range(4):
        detector.beat_succeeded([row(ANN, 7)], float(second))
    detector.beat_failed()
    for second in range(5, 11):
        detector.beat_succeeded([row(ANN, 7)], float(second))
        assert detector.dead() == []
    detector.beat_succeeded([row(ANN, 7)], 11.0)
    assert detector.dead() == [(ANN, 7)]


def test_a_pause_of_the_observer_declares_no_process_dead() -> None:
    detector = FailureDetector()
    detector.beat_succeeded([row(ANN, 7)], 0.0)
    detector.beat_succeeded([row(ANN, 7)], 20.0)
    assert detector.dead() == []


def test_a_row_that_was_old_when_read_first_is_not_live() -> None:
    detector = FailureDetector()
    detector.beat_succeeded([row(ANN, 7, age_s=900.0), row(BEN, 1)], 0.0)
    assert live_ids(detector) == [BEN]


def test_after_an_outage_of_postgres_the_live_processes_are_still_live() -> None:
    detector = FailureDetector()
    detector.beat_succeeded([row(ANN, 7)], 0.0)
    detector.beat_succeeded([row(ANN, 8)], 1.0)
    detector.beat_failed()
    detector.beat_succeeded([row(ANN, 8, age_s=30.0)], 31.0)
    assert live_ids(detector) == [ANN]


def test_a_process_leaves_when_it_dies_or_its_row_is_gone() -> None:
    detector = FailureDetector()
    for second in range(6):
        detector.beat_succeeded([row(ANN, 7), row(BEN, second)], float(second))
    assert (detector.departures, detector.has_left(ANN), detector.has_left(BEN)) == (
        0,
        False,
        False,
    )
    detector.beat_succeeded([row(ANN, 7), row(BEN, 6)], 6.0)
    assert (detector.departures, detector.has_left(ANN), detector.has_left(BEN)) == (1, True, False)
    detector.beat_succeeded([], 7.0)
    assert (detector.departures, detector.has_left(ANN), detector.has_left(BEN)) == (2, True, True)


def test_no_process_leaves_during_an_outage_of_postgres() -> None:
    detector = FailureDetector()
    for second in range(3):
        detector.beat_succeeded([row(ANN, second)], float(second))
    detector.beat_failed()
    detector.beat_succeeded([row(ANN, 2, age_s=30.0)], 33.0)
    assert (detector.departures, detector.has_left(ANN)) == (0, False)


def test_a_process_whose_counter_has_not_moved_at_two_heartbeats_does_not_beat() -> None:
    detector = FailureDetector()
    detector.beat_succeeded([row(ANN, 1), row(BEN, 1)], 0.0)
    assert detector.beating() == frozenset()
    detector.beat_succeeded([row(ANN, 2), row(BEN, 2)], 1.0)
    detector.beat_succeeded([row(ANN, 2), row(BEN, 3)], 2.0)
    assert detector.beating() == {ANN, BEN}
    detector.beat_succeeded([row(ANN, 2), row(BEN, 4)], 3.0)
    assert detector.beating() == {BEN}
    assert set(live_ids(detector)) == {ANN, BEN}
