"""The estimated delay until the commit of an item that joins a group commit."""

from __future__ import annotations

import pytest

from notifier.delivery.commit_delay import CommitDelayEstimator


def estimator(*durations_s: float) -> CommitDelayEstimator:
    estimator = CommitDelayEstimator(batch_size=500)
    for duration_s in durations_s:
        estimator.record_write(duration_s)
    return estimator


def test_the_estimate_is_zero_before_the_first_write() -> None:
    assert estimator().estimate_s(20_000) == 0


@pytest.mark.parametrize(("position", "expected_s"), [(1, 0.1), (500, 0.1), (501, 0.2), (5000, 1)])
def test_an_item_waits_for_every_write_up_to_its_own(position: int, expected_s: float) -> None:
    assert estimator(0.1).estimate_s(position) == pytest.approx(expected_s)


def test_one_stalled_write_changes_nothing_and_several_slow_ones_do() -> None:
    assert estimator(0.1, 0.1, 5.0, 0.1, 0.1).estimate_s(1) == 0.1
    assert estimator(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 1, 1, 1, 1).estimate_s(1) == 1
