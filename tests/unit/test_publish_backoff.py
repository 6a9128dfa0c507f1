"""The backoff of a queue whose publishes are not confirmed."""

from __future__ import annotations

from notifier.delivery.publish_backoff import PublishBackoff


def test_the_backoff_doubles_and_then_tries_one_pointer() -> None:
    backoff = PublishBackoff()
    assert backoff.limit(0.0, 500) == 500
    assert [backoff.record_failure(100.0 * n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.record_failure(730.0) == 30
    assert (backoff.limit(759.0, 500), backoff.limit(760.0, 500)) == (0, 1)
    backoff.reset()
    assert backoff.limit(0.0, 500) == 500
