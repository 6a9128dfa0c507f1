"""The metrics of queues: what waits in them, and the consumers assigned to them."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Counter, Gauge

from notifier.adapters.telemetry.series import SUM, SeriesFactory
from notifier.domain.allocation.entitlement import Limit
from notifier.domain.notification import QueueKey


class QueueMetrics:
    """Implements the methods of notifier.ports.observer.Observer that report queues."""

    def __init__(self, factory: SeriesFactory, queues: Sequence[QueueKey]) -> None:
        self._limited_by_now: dict[QueueKey, str] = {}
        self._define_load(factory, queues)
        self._define_consumers(factory, queues)

    def _define_load(self, factory: SeriesFactory, queues: Sequence[QueueKey]) -> None:
        by_queue = ("queue",)
        self._ready = factory.gauge(
            "ready",
            "Notifications ready in RabbitMQ. An estimate where messages carry several.",
            by_queue,
            queues,
            SUM,
        )
        self._due = factory.gauge(
            "due",
            "Rows in Postgres that are due and not yet published. Counting stops at 1,000; "
            "GET /v1/queues counts to 10,000.",
            by_queue,
            queues,
            SUM,
        )
        self._oldest_due = factory.gauge(
            "oldest_due_seconds",
            "For how long the oldest notification that waits in this queue has been due, in "
            "seconds. A retry counts from its own due time, unlike oldest_wait_s of "
            "GET /v1/queues.",
            by_queue,
            queues,
        )
        self._queues_refused = Gauge(
            "notifier_queues_refused",
            "Queues that RabbitMQ refuses to declare, so that nothing of them is sent.",
            registry=factory.registry,
        )
        self._foreign = Counter(
            "notifier_foreign_pointers",
            "Pointers of another deployment that uses the same vhost; they were put back.",
            registry=factory.registry,
        )
        self._unconfigured = Gauge(
            "notifier_unconfigured",
            "Notifications that wait or are being sent on channels that the settings do not have. "
            "Counting stops at 1,000 per queue.",
            registry=factory.registry,
        )
        self._unmatched_pauses = Gauge(
            "notifier_unmatched_pauses",
            "Pauses of queues, channels and providers that the settings do not have.",
            registry=factory.registry,
        )
        self._waiting = Gauge(
            "notifier_waiting",
            "About how many notifications wait in Postgres. Measured by API processes.",
            registry=factory.registry,
        )
        self._waiting_limit = Gauge(
            "notifier_waiting_limit",
            "The number of waiting notifications above which the API refuses submits.",
            registry=factory.registry,
        )
        self._lost = Gauge(
            "notifier_lost",
            "Lost notifications among the newest 10,000 of the last 24 hours: they neither wait "
            "nor have ended.",
            registry=factory.registry,
        )
        self._partitions_kept = Gauge(
            "notifier_partitions_kept",
            "Days past their retention that were not dropped, because some of their "
            "notifications have no final status.",
            registry=factory.registry,
        )

    def _define_consumers(self, factory: SeriesFactory, queues: Sequence[QueueKey]) -> None:
        by_queue = ("queue",)
        self._consumers = factory.gauge(
            "consumers", "Consumers of this worker assigned to the queue.", by_queue, queues, SUM
        )
        self._busy = factory.gauge(
            "consumers_busy",
            "Consumers of this worker that run an attempt.",
            by_queue,
            queues,
            SUM,
        )
        self._moves = factory.counter(
            "consumer_moves", "Consumers that the scheduler moved to this queue.", by_queue, queues
        )
        self._limited_by = factory.gauge(
            "limited_by",
            "1 for the reason why the queue has no more consumers.",
            ("queue", "reason"),
            [(queue, limit.value) for queue in queues for limit in Limit],
        )

    def queue_measured(
        self, queue: QueueKey, *, ready: int, due: int, oldest_wait_s: float
    ) -> None:
        self._ready[queue].set(ready)
        self._due[queue].set(due)
        self._oldest_due[queue].set(oldest_wait_s)

    def queues_refused(self, count: int) -> None:
        self._queues_refused.set(count)

    def foreign_pointers_received(self, count: int) -> None:
        self._foreign.inc(count)

    def unconfigured_counted(self, *, notifications: int, pauses: int) -> None:
        self._unconfigured.set(notifications)
        self._unmatched_pauses.set(pauses)

    def consumers_measured(
        self, queue: QueueKey, *, consumers: int, busy: int, limited_by: str
    ) -> None:
        self._consumers[queue].set(consumers)
        self._busy[queue].set(busy)
        before = self._limited_by_now.get(queue)
        if before == limited_by:
            return
        if before is not None:
            self._limited_by[queue, before].set(0)
        self._limited_by_now[queue] = limited_by
        self._limited_by[queue, limited_by].set(1)

    def consumers_moved(self, queue: QueueKey, count: int) -> None:
        self._moves[queue].inc(count)

    def waiting_counted(self, count: int, *, limit: int) -> None:
        self._waiting.set(count)
        self._waiting_limit.set(limit)

    def lost_counted(self, count: int) -> None:
        self._lost.set(count)

    def partitions_kept(self, count: int) -> None:
        self._partitions_kept.set(count)
