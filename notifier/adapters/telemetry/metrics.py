"""All metrics of a process. Their prefix is `notifier_`; the settings bound their labels.

Every series exists from the start, so that no panel is empty before the first event. Figures of the
deployment are measured alike by every process: ready, due, oldest wait, target wait, waiting,
workers, workers behind, breaker, rate, processes that died, partitions kept, statistics behind.
Take their `max` over processes. All other figures are of one process: take their `sum`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    disable_created_metrics,
    generate_latest,
)

from notifier.adapters.telemetry.event_metrics import EventMetrics
from notifier.adapters.telemetry.fallback_metrics import FallbackMetrics
from notifier.adapters.telemetry.notification_metrics import NotificationMetrics
from notifier.adapters.telemetry.process_metrics import ProcessMetrics
from notifier.adapters.telemetry.provider_metrics import ProviderMetrics
from notifier.adapters.telemetry.queue_metrics import QueueMetrics
from notifier.adapters.telemetry.receipt_metrics import ReceiptMetrics
from notifier.adapters.telemetry.schedule_metrics import ScheduleMetrics
from notifier.adapters.telemetry.series import SeriesFactory
from notifier.adapters.telemetry.stats_metrics import StatsMetrics
from notifier.adapters.telemetry.webhook_metrics import WebhookMetrics
from notifier.domain.notification import Channel, Priority, QueueKey

# A `_created` series beside every counter would double the size of a scrape; no panel reads it.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics(
    NotificationMetrics,
    QueueMetrics,
    ProviderMetrics,
    ScheduleMetrics,
    EventMetrics,
    StatsMetrics,
    FallbackMetrics,
    ReceiptMetrics,
    WebhookMetrics,
    ProcessMetrics,
):
    """Implements notifier.ports.observer.Observer.

    `providers` names the providers of each channel. `target_wait_s` is the wait that each priority
    promises.
    """

    def __init__(
        self,
        queues: Sequence[QueueKey],
        providers: Mapping[Channel, Sequence[str]],
        *,
        version: str,
        target_wait_s: Mapping[Priority, float] = MappingProxyType({}),
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.registry = registry or CollectorRegistry()
        factory = SeriesFactory(self.registry, queues)
        names = sorted({name for names in providers.values() for name in names})
        channels = dict.fromkeys(queue.channel for queue in queues)
        NotificationMetrics.__init__(self, factory, queues, providers, target_wait_s)
        QueueMetrics.__init__(self, factory, queues)
        ProviderMetrics.__init__(self, factory, names, channels)
        ScheduleMetrics.__init__(self, factory)
        EventMetrics.__init__(self, factory)
        StatsMetrics.__init__(self, factory)
        FallbackMetrics.__init__(self, factory)
        ReceiptMetrics.__init__(self, factory, names)
        WebhookMetrics.__init__(self, factory)
        ProcessMetrics.__init__(self, factory, version)

    def render(self) -> tuple[bytes, str]:
        """Return the body of `/metrics` and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
