"""The metrics of receipts: what arrives, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence

from notifier.adapters.telemetry.series import SeriesFactory
from notifier.domain.receipts import ReceiptEvent, ReceiptResult


class ReceiptMetrics:
    """Implements the methods of notifier.ports.observer.Observer that report receipts."""

    def __init__(self, factory: SeriesFactory, providers: Sequence[str]) -> None:
        self._received = factory.counter(
            "receipts_received",
            "Verified receipts of providers that were stored, copies included, by event.",
            ("provider", "event"),
            [(name, event) for name in providers for event in ReceiptEvent],
        )
        self._refused = factory.counter(
            "receipt_requests_refused",
            "Requests with receipts that were refused for their signature or their body.",
            ("provider",),
            providers,
        )
        self._ended = factory.counter(
            "receipts_ended",
            "Receipts that are done: matched, late (the notification was sent again since) or "
            "unmatched (no notification was found in time).",
            ("provider", "result"),
            [(name, result) for name in providers for result in ReceiptResult],
        )

    def receipts_received(self, provider: str, event: ReceiptEvent, count: int) -> None:
        self._received[provider, event].inc(count)

    def receipts_refused(self, provider: str) -> None:
        self._refused[provider].inc()

    def receipt_ended(self, provider: str, result: ReceiptResult) -> None:
        self._ended[provider, result].inc()
