"""The metrics of schedules: their runs, and the instants that were missed."""

from __future__ import annotations

from prometheus_client import Counter

from notifier.adapters.telemetry.series import SeriesFactory
from notifier.domain.schedules import RunOutcome


class ScheduleMetrics:
    """Implements the methods of notifier.ports.observer.Observer that report schedules."""

    def __init__(self, factory: SeriesFactory) -> None:
        self._runs = factory.counter(
            "schedule_runs", "Runs of schedules that ended, by outcome.", ("outcome",), RunOutcome
        )
        self._skipped = Counter(
            "notifier_schedule_instants_skipped",
            "Instants of schedules that were missed and are not submitted any more.",
            registry=factory.registry,
        )

    def schedule_run_ended(self, outcome: RunOutcome) -> None:
        self._runs[outcome].inc()

    def schedule_instants_skipped(self, count: int) -> None:
        self._skipped.inc(count)
