"""When a message counts as lost."""

from __future__ import annotations

from notifier.ports.heartbeat import QueueFigures
from notifier.recovery.rescuer import overdue_before

NOW = 1000.0


def figures(
    *,
    held: int = 0,
    held_since: float | None = None,
    mark: float | None = None,
    drained_s: float = 0.0,
) -> QueueFigures:
    return QueueFigures(
        consumers=1,
        busy=0,
        held=held,
        done=0,
        done_per_s=0.0,
        service_s=0.1,
        limited_by="need",
        held_since=held_since,
        mark=mark,
        drained_s=drained_s,
    )


def test_a_slow_backlog_is_never_lost() -> None:
    assert overdue_before(figures(held=3, held_since=10.0), [], now=NOW) is None


def test_what_newer_messages_overtook_is_lost() -> None:
    assert overdue_before(figures(mark=900.0), [], now=NOW) == 890.0


def test_what_any_living_worker_holds_is_not_lost() -> None:
    mine = figures(mark=900.0, held=1, held_since=950.0)
    other = figures(held=2, held_since=700.0)
    assert overdue_before(mine, [other], now=NOW) == 700.0


def test_an_empty_queue_has_lost_all_that_is_older_than_its_emptiness() -> None:
    assert overdue_before(figures(drained_s=11.0), [], now=NOW) == 990.0


def test_a_queue_empty_for_a_moment_has_lost_nothing() -> None:
    assert overdue_before(figures(drained_s=9.0), [], now=NOW) is None


def test_an_empty_queue_has_lost_nothing_while_another_worker_holds_some() -> None:
    other = figures(held=1, held_since=100.0)
    assert overdue_before(figures(drained_s=60.0), [other], now=NOW) is None
