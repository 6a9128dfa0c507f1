"""The metrics of providers: breakers, hangs and rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from notifier.adapters.telemetry.series import SeriesFactory
from notifier.domain.breaker import Opening
from notifier.domain.controls import BreakerState
from notifier.domain.notification import Channel


class ProviderMetrics:
    """Implements the methods of notifier.ports.observer.Observer that report providers."""

    def __init__(
        self, factory: SeriesFactory, names: Sequence[str], channels: Iterable[Channel]
    ) -> None:
        self._breakers = factory.gauge(
            "breaker",
            "1 for the present state of the provider's circuit breaker.",
            ("provider", "state"),
            [(name, state) for name in names for state in BreakerState],
        )
        self._reasons = factory.gauge(
            "breaker_reason",
            "1 for the reason of the provider's circuit breaker, while that is not closed.",
            ("provider", "reason"),
            [(name, str(reason)) for name in names for reason in Opening],
        )
        self._openings = factory.counter(
            "breaker_openings",
            "Circuit breakers that this process opened, by reason.",
            ("provider", "reason"),
            [(name, str(reason)) for name in names for reason in Opening],
        )
        self._hanging = factory.gauge(
            "provider_hanging",
            "1 while the channel's provider leaves calls of this worker unanswered.",
            ("channel",),
            channels,
        )
        self._rate = factory.gauge(
            "provider_rate_per_second",
            "Calls per second that the provider may get now, after rate cuts. 0 for no limit.",
            ("provider",),
            names,
        )
        self._connections = factory.gauge(
            "provider_connections_limit",
            "Connections that the provider's server takes from this process, as far as known.",
            ("provider",),
            names,
        )
        for name in names:
            self.breaker_changed(name, BreakerState.CLOSED, "")

    def breaker_changed(self, provider: str, state: str, reason: str) -> None:
        for possible_reason in Opening:
            is_present = state != BreakerState.CLOSED and reason == possible_reason
            self._reasons[provider, possible_reason].set(is_present)
        for possible in BreakerState:
            self._breakers[provider, possible].set(possible == state)

    def breaker_opened(self, provider: str, reason: str) -> None:
        self._openings[provider, reason].inc()

    def provider_hanging(self, channel: Channel, *, is_hanging: bool) -> None:
        self._hanging[channel].set(is_hanging)

    def provider_rate_changed(self, provider: str, rate_per_s: float) -> None:
        self._rate[provider].set(rate_per_s)

    def provider_connections_changed(self, provider: str, connections: int) -> None:
        self._connections[provider].set(connections)
