"""The wait that is foreseen for what joins a group commit."""

from __future__ import annotations

import pytest

from notifier.delivery.commit_delay import CommitDelayEstimator


def foreseen(*took_s: float) -> CommitDelayEstimator:
    wait = CommitDelayEstimator(most=500)
    for each in took_s:
        wait.wrote(each)
    return wait


def test_nothing_is_foreseen_before_the_first_write() -> None:
    assert foreseen().of(20_000) == 0


@pytest.mark.parametrize(("position", "expected_s"), [(1, 0.1), (500, 0.1), (501, 0.2), (5000, 1)])
def test_it_waits_for_every_write_up_to_its_own(position: int, expected_s: float) -> None:
    assert foreseen(0.1).of(position) == pytest.approx(expected_s)


def test_a_write_that_stalled_foretells_nothing_and_slow_ones_do() -> None:
    assert foreseen(0.1, 0.1, 5.0, 0.1, 0.1).of(1) == 0.1
    assert foreseen(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 1, 1, 1, 1).of(1) == 1
