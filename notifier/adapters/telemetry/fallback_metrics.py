"""The metric of fallbacks: what became of them."""

from __future__ import annotations

from notifier.adapters.telemetry.series import SeriesFactory
from notifier.domain.fallbacks import FallbackOutcome


class FallbackMetrics:
    """Implements the method of notifier.ports.observer.Observer that reports fallbacks."""

    def __init__(self, factory: SeriesFactory) -> None:
        self._fallbacks = factory.counter(
            "fallbacks",
            "Fallbacks that ended or were postponed, by outcome.",
            ("outcome",),
            FallbackOutcome,
        )

    def fallback_ended(self, outcome: FallbackOutcome) -> None:
        self._fallbacks[outcome].inc()
