"""The metrics of processes: their number, their servers, their event loop."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Info, ProcessCollector

from notifier.adapters.telemetry.series import SeriesFactory

DEPENDENCIES: Final = ("postgres", "rabbitmq")
ROUND_TRIP_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class ProcessMetrics:
    """Implements the methods of notifier.ports.observer.Observer that report processes."""

    def __init__(self, factory: SeriesFactory, version: str) -> None:
        registry = factory.registry
        self._is_up = factory.gauge(
            "dependency_up",
            "1 while the server answers this process.",
            ("dependency",),
            DEPENDENCIES,
        )
        self._round_trips = factory.histogram(
            "round_trip_seconds",
            "Duration of a small request to the server, measured once a second.",
            ("dependency",),
            DEPENDENCIES,
            ROUND_TRIP_BUCKETS,
        )
        self._lag = Histogram(
            "notifier_loop_lag_seconds",
            "Seconds by which the event loop ran a timer late, measured four times a second.",
            registry=registry,
            buckets=LAG_BUCKETS,
        )
        self._workers = Gauge(
            "notifier_workers",
            "Workers that are alive, as this process sees it.",
            registry=registry,
        )
        self._behind = Gauge(
            "notifier_workers_behind",
            "Workers of an earlier version that lack a feature of this process.",
            registry=registry,
        )
        self._leases = Gauge(
            "notifier_leases",
            "Queues whose rows this process publishes, because it holds their leases.",
            registry=registry,
        )
        self._died = Counter(
            "notifier_processes_died",
            "Other processes that died without deregistering.",
            registry=registry,
        )
        build = Info("notifier_build", "The version of this process.", registry=registry)
        build.info({"version": version})
        ProcessCollector(registry=registry)

    def workers_counted(self, count: int) -> None:
        self._workers.set(count)

    def workers_behind(self, count: int) -> None:
        self._behind.set(count)

    def leases_held(self, count: int) -> None:
        self._leases.set(count)

    def processes_died(self, count: int) -> None:
        self._died.inc(count)

    def dependency_answered(self, dependency: str, seconds: float) -> None:
        self._is_up[dependency].set(1)
        self._round_trips[dependency].observe(seconds)

    def dependency_unavailable(self, dependency: str) -> None:
        self._is_up[dependency].set(0)

    def loop_lagged(self, seconds: float) -> None:
        self._lag.observe(seconds)
