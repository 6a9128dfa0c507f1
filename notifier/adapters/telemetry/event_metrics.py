"""The metrics of events: how far behind their reader is, and the streams."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from notifier.adapters.telemetry.series import SeriesFactory


class EventMetrics:
    """Implements the methods of notifier.ports.observer.Observer that report events."""

    def __init__(self, factory: SeriesFactory) -> None:
        self._events_read = Counter(
            "notifier_events_read",
            "Events that this process has read for its streams.",
            registry=factory.registry,
        )
        self._event_lag = Gauge(
            "notifier_event_lag_seconds",
            "Seconds from the writing of an event until this process read it for its streams, the "
            "longest of the last read.",
            registry=factory.registry,
        )
        self._event_streams = Gauge(
            "notifier_event_streams",
            "Streams of events that this process serves.",
            registry=factory.registry,
        )
        self._event_streams_cut = Counter(
            "notifier_event_streams_cut",
            "Streams of events that were ended because their readers were too slow.",
            registry=factory.registry,
        )

    def events_read(self, count: int, lag_s: float) -> None:
        self._events_read.inc(count)
        self._event_lag.set(lag_s)

    def event_streams_open(self, count: int) -> None:
        self._event_streams.set(count)

    def event_stream_cut(self) -> None:
        self._event_streams_cut.inc()
