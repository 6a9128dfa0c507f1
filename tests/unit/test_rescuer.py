"""Which published messages count as lost."""

from __future__ import annotations

from notifier.ports.heartbeat import QueueFigures
from notifier.recovery.rescuer import overdue_before

NOW = 1000.0


def figures(
    *,
    held: int = 0,
    held_since: float | None = None,
    watermark: float | None = None,
    drained_s: float = 0.0,
) -> QueueFigures:
    return QueueFigures(
        consumers=1,
        held=held,
        held_since=held_since,
        watermark=watermark,
        drained_s=drained_s,
    )


def test_a_slow_backlog_is_not_lost() -> None:
    assert overdue_before(figures(held=3, held_since=10.0), [], now=NOW) is None


def test_messages_that_newer_ones_overtook_are_lost() -> None:
    assert overdue_before(figures(watermark=900.0), [], now=NOW) == 890.0


def test_messages_that_a_live_worker_holds_are_not_lost() -> None:
    own = figures(watermark=900.0, held=1, held_since=950.0)
    other = figures(held=2, held_since=700.0)
    assert overdue_before(own, [other], now=NOW) == 700.0


def test_messages_older_than_the_time_a_queue_is_empty_are_lost() -> None:
    assert overdue_before(figures(drained_s=11.0), [], now=NOW) == 990.0


def test_nothing_is_lost_while_a_queue_is_empty_for_a_moment() -> None:
    assert overdue_before(figures(drained_s=9.0), [], now=NOW) is None


def test_nothing_is_lost_while_another_worker_holds_messages_of_an_empty_queue() -> None:
    other = figures(held=1, held_since=100.0)
    assert overdue_before(figures(drained_s=60.0), [other], now=NOW) is None
