"""The metrics of webhooks. Their calls are counted as those of the channel `webhook`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from notifier.adapters.telemetry.series import SeriesFactory
from notifier.domain.webhooks import DisabledReason


class WebhookMetrics:
    """Implements the methods of notifier.ports.observer.Observer that report webhooks."""

    def __init__(self, factory: SeriesFactory) -> None:
        self._webhooks_disabled = factory.counter(
            "webhooks_disabled",
            "Webhooks that were disabled because of their calls, by reason.",
            ("reason",),
            (DisabledReason.FAILING, DisabledReason.GONE),
        )
        self._webhook_calls = Counter(
            "notifier_webhook_calls_stored",
            "Calls of webhooks that events were turned into.",
            registry=factory.registry,
        )
        self._webhook_expired = Counter(
            "notifier_webhook_calls_expired",
            "Calls that expired because too many waited for their webhook.",
            registry=factory.registry,
        )
        self._webhook_lag = Gauge(
            "notifier_webhook_lag_seconds",
            "How long events wait until they are turned into calls, 0 while there is none.",
            registry=factory.registry,
        )

    def webhook_calls_stored(self, count: int) -> None:
        self._webhook_calls.inc(count)

    def webhook_lag(self, seconds: float) -> None:
        self._webhook_lag.set(seconds)

    def webhook_calls_expired(self, count: int) -> None:
        self._webhook_expired.inc(count)

    def webhook_disabled(self, reason: str) -> None:
        self._webhooks_disabled[DisabledReason(reason)].inc()
