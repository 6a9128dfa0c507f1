"""The metrics of statistics, and of the campaign guard, which judges by them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from notifier.adapters.telemetry.series import SeriesFactory


class StatsMetrics:
    """Implements the methods of notifier.ports.observer.Observer that report statistics."""

    def __init__(self, factory: SeriesFactory) -> None:
        self._changes = Counter(
            "notifier_stats_changes",
            "Changes counted into the statistics: one for each statement, minute and provider.",
            registry=factory.registry,
        )
        self._behind = Gauge(
            "notifier_stats_behind_seconds",
            "Age of the oldest change that the statistics lack, in seconds.",
            registry=factory.registry,
        )

        self._tags_paused = Counter(
            "notifier_tags_paused",
            "Tags that the campaign guard has paused, because providers refused too much.",
            registry=factory.registry,
        )

    def tag_paused(self) -> None:
        self._tags_paused.inc()

    def stats_rolled_up(self, changes: int, behind_s: float) -> None:
        self._changes.inc(changes)
        self._behind.set(behind_s)
