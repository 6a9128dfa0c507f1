"""A wait is late if it is well above the running median."""

from __future__ import annotations

from notifier.scheduling.rates.lateness import LatenessDetector


def test_a_stall_is_late_for_everything_that_waited_through_it() -> None:
    detector = LatenessDetector()
    for _ in range(100):
        assert not detector.is_late(0.005)
    assert all(detector.is_late(0.5 - 0.02 * number) for number in range(20))
    assert not detector.is_late(0.005)


def test_waits_that_are_always_slow_are_late_only_at_first() -> None:
    detector = LatenessDetector()
    late = [detector.is_late(0.2) for _ in range(400)]
    assert late[0]
    assert not any(late[200:])
    assert detector.is_late(0.25)


def test_the_median_follows_when_waits_become_fast_again() -> None:
    detector = LatenessDetector()
    for _ in range(400):
        detector.is_late(0.2)
    assert not any(detector.is_late(0.005) for _ in range(250))
    assert detector.is_late(0.05)
