"""Late is what takes longer than usual."""

from __future__ import annotations

from notifier.delivery.lateness import LatenessDetector


def test_a_stall_is_late_for_all_who_waited_through_it() -> None:
    wait = LatenessDetector()
    for _ in range(100):
        assert not wait.is_late(0.005)
    assert all(wait.is_late(0.5 - 0.02 * number) for number in range(20))
    assert not wait.is_late(0.005)


def test_what_is_always_slow_is_late_only_at_first() -> None:
    wait = LatenessDetector()
    late = [wait.is_late(0.2) for _ in range(400)]
    assert late[0]
    assert not any(late[200:])
    assert wait.is_late(0.25)


def test_fast_is_usual_again_soon() -> None:
    wait = LatenessDetector()
    for _ in range(400):
        wait.is_late(0.2)
    assert not any(wait.is_late(0.005) for _ in range(250))
    assert wait.is_late(0.05)
