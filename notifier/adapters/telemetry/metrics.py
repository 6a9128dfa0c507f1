"""Every metric of Notifier. Prefix `notifier_`, labels bounded by the settings.

All series exist from the start, so that no panel is empty before the first event. What is measured
in the broker or in Postgres (ready, due, oldest wait, waiting, workers, breaker, rate, lost
processes, kept days) is the deployment's, and every process that measures it says the same: take
the `max` over processes. All else is this process's own: take the `sum`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Final, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from notifier.adapters.telemetry.series import Children, Distribution, Distributions, FirstSeen
from notifier.domain.allocation import Limit
from notifier.domain.breaker import Opening
from notifier.domain.controls import BreakerState
from notifier.domain.notification import FINAL, Channel, Priority, QueueKey, Status
from notifier.domain.outcome import Accepted, Ambiguous, Refused, Throttled, Unavailable

OUTCOMES: Final = tuple(
    outcome.name for outcome in (Accepted, Refused, Throttled, Unavailable, Ambiguous)
)
RETRY_REASONS: Final = (Throttled.name, Unavailable.name, Ambiguous.name)
RESCUE_REASONS: Final = ("lost", "died")

FAILURE_REASONS: Final = ("refused", "exhausted", "ambiguous", "poison")
DEPENDENCIES: Final = ("postgres", "rabbitmq")
MAX_CODES: Final = 10
"""Codes a provider's answers are counted by; those it says first, the rest are `other`."""

WAITS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 900.0, 3600.0),
)
CALLS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
ROUND_TRIPS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LAGS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

K = TypeVar("K", bound=Hashable)

# A `_created` series beside every counter would double the scrape and answers no question.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one process; implements `notifier.ports.observer.Observer`.

    `providers` names, for each channel, the providers it may use; `target_wait_s` is what each
    priority promises.
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
        routes = [(queue, name) for queue in queues for name in providers.get(queue.channel, ())]
        self._define_counters(queues, routes)
        self._define_histograms(queues, routes)
        self._define_gauges(queues)
        self._define_promises(queues, target_wait_s)
        self._define_process(dict.fromkeys(queue.channel for queue in queues))
        self._define_providers(sorted({name for names in providers.values() for name in names}))
        build = Info("notifier_build", "Which version runs.", registry=self.registry)
        build.info({"version": version})
        ProcessCollector(registry=self.registry)

    def render(self) -> tuple[bytes, str]:
        """The body of `/metrics` and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    # ---- definitions -----------------------------------------------------------------------------

    def _define_counters(
        self, queues: Sequence[QueueKey], routes: Sequence[tuple[QueueKey, str]]
    ) -> None:
        by_queue = ("queue",)
        self._accepted = self._counter("accepted", "Notifications stored.", by_queue, queues)
        self._published = self._counter("published", "Pointers confirmed.", by_queue, queues)
        self._attempts = self._counter(
            "attempts",
            "Attempts, by what the provider said.",
            ("queue", "provider", "outcome"),
            [(*route, outcome) for route in routes for outcome in OUTCOMES],
        )
        self._finished = self._counter(
            "finished",
            "Notifications that came to a final status.",
            ("queue", "status"),
            [(queue, status) for queue in queues for status in sorted(FINAL)],
        )
        self._retries = self._counter(
            "retries",
            "Retries planned, by the outcome that caused them.",
            ("queue", "reason"),
            [(queue, reason) for queue in queues for reason in RETRY_REASONS],
        )
        self._rescues = self._counter(
            "rescues",
            "Taken up again: the message was lost, or its process died: sender or relay.",
            ("queue", "reason"),
            [(queue, reason) for queue in queues for reason in RESCUE_REASONS],
        )
        self._released = self._counter("released", "Given back unspent.", by_queue, queues)
        self._moves = self._counter("moves", "Consumers moved to this queue.", by_queue, queues)
        self._unreadable = Counter(
            "notifier_unreadable", "Messages that could not be read.", registry=self.registry
        )

    def _define_histograms(
        self, queues: Sequence[QueueKey], routes: Sequence[tuple[QueueKey, str]]
    ) -> None:
        self._accept_seconds = Histogram(
            "notifier_accept_seconds",
            "From a submit to its commit.",
            registry=self.registry,
            buckets=CALLS,
        )
        self._queue_wait = self._histogram(
            "queue_wait_seconds", "From due to claimed.", ("queue",), queues, WAITS
        )
        self._attempt_seconds = self._histogram(
            "attempt_seconds", "Length of a provider call.", ("queue", "provider"), routes, CALLS
        )
        self._end_to_end = self._histogram(
            "end_to_end_seconds", "From accepted to sent.", ("queue",), queues, WAITS
        )

    def _define_gauges(self, queues: Sequence[QueueKey]) -> None:
        by_queue = ("queue",)
        self._ready = self._gauge(
            "ready",
            "Pointers ready in the broker, about so many where messages carry several.",
            by_queue,
            queues,
        )
        self._due = self._gauge("due", "Rows due, to a ceiling.", by_queue, queues)
        self._oldest_wait = self._gauge(
            "oldest_wait_seconds", "How long the oldest waits.", by_queue, queues
        )
        self._consumers = self._gauge("consumers", "Consumers assigned.", by_queue, queues)
        self._busy = self._gauge("consumers_busy", "Consumers at an attempt.", by_queue, queues)
        self._limited_by = self._gauge(
            "limited_by",
            "1 for what keeps the queue from more consumers.",
            ("queue", "reason"),
            [(queue, limit.value) for queue in queues for limit in Limit],
        )
        self._limits: dict[QueueKey, str] = {}

    def _define_promises(
        self, queues: Sequence[QueueKey], target_wait_s: Mapping[Priority, float]
    ) -> None:
        self._targets = {
            queue: target_wait_s[queue.priority]
            for queue in queues
            if queue.priority in target_wait_s
        }
        targets = self._gauge(
            "target_wait_seconds", "The wait this queue promises.", ("queue",), self._targets
        )
        for queue, target_s in self._targets.items():
            targets[queue].set(target_s)
        self._late = self._counter(
            "late", "Claimed later than the queue promises.", ("queue",), queues
        )
        channels = dict.fromkeys(queue.channel for queue in queues)
        self._failures = self._counter(
            "failures",
            "Notifications that failed for good, by reason.",
            ("channel", "reason"),
            [(channel, reason) for channel in channels for reason in FAILURE_REASONS],
        )

    def _define_process(self, channels: Iterable[Channel]) -> None:
        self._hangs = self._gauge(
            "hangs", "1 while the channel's calls are not answered.", ("channel",), channels
        )
        self._is_up = self._gauge(
            "dependency_up", "1 while it answers.", ("dependency",), DEPENDENCIES
        )
        self._round_trips = self._histogram(
            "round_trip_seconds",
            "A small question to it, once a second.",
            ("dependency",),
            DEPENDENCIES,
            ROUND_TRIPS,
        )
        self._lag = Histogram(
            "notifier_loop_lag_seconds",
            "How late the event loop is, asked four times a second.",
            registry=self.registry,
            buckets=LAGS,
        )
        self._workers = Gauge(
            "notifier_workers", "Living workers, as this process sees it.", registry=self.registry
        )
        self._lost = Counter(
            "notifier_processes_lost", "Others that died unsaid.", registry=self.registry
        )
        self._waiting = Gauge(
            "notifier_waiting", "About how many rows wait (API).", registry=self.registry
        )
        self._waiting_most = Gauge(
            "notifier_waiting_most", "Above it submits are refused.", registry=self.registry
        )
        self._days_kept = Gauge(
            "notifier_days_kept",
            "Days past retention with rows that are not final.",
            registry=self.registry,
        )

    def _define_providers(self, names: Sequence[str]) -> None:
        self._breakers = self._gauge(
            "breaker",
            "1 for the state the provider's breaker is in.",
            ("provider", "state"),
            [(name, state) for name in names for state in BreakerState],
        )
        self._openings = self._counter(
            "breaker_openings",
            "Breakers this process opened, by reason.",
            ("provider", "reason"),
            [(name, str(reason)) for name in names for reason in Opening],
        )
        self._provider_rate = self._gauge(
            "provider_rate_per_second",
            "What the provider's rate is now, after cuts; 0 for no limit.",
            ("provider",),
            names,
        )
        answers = Counter(
            "notifier_answers",
            "What a provider said, by its code; the rare ones are `other`.",
            ("provider", "code"),
            registry=self.registry,
        )
        self._answers = FirstSeen(answers.labels, names, MAX_CODES)
        for name in names:
            self.breaker(name, BreakerState.CLOSED)

    def _counter(
        self, name: str, says: str, labels: Sequence[str], keys: Iterable[K]
    ) -> Children[K, Counter]:
        metric = Counter(f"notifier_{name}", says, labels, registry=self.registry)
        return Children(metric.labels, len(labels), keys)

    def _histogram(
        self,
        name: str,
        says: str,
        labels: Sequence[str],
        keys: Iterable[K],
        buckets: Sequence[float],
    ) -> Children[K, Distribution]:
        metric = Distributions(f"notifier_{name}", says, labels, buckets)
        self.registry.register(metric)
        return Children(metric.labels, len(labels), keys)

    def _gauge(
        self, name: str, says: str, labels: Sequence[str], keys: Iterable[K]
    ) -> Children[K, Gauge]:
        metric = Gauge(f"notifier_{name}", says, labels, registry=self.registry)
        return Children(metric.labels, len(labels), keys)

    # ---- Observer --------------------------------------------------------------------------------

    def accepted(self, queue: QueueKey, count: int) -> None:
        self._accepted[queue].inc(count)

    def accept_seconds(self, seconds: float) -> None:
        self._accept_seconds.observe(seconds)

    def published(self, queue: QueueKey, count: int) -> None:
        self._published[queue].inc(count)

    def waited(self, queue: QueueKey, seconds: float) -> None:
        self._queue_wait[queue].observe(seconds)
        if seconds > self._targets.get(queue, inf):
            self._late[queue].inc()

    def attempted(
        self, queue: QueueKey, provider: str, outcome: str, code: str, seconds: float
    ) -> None:
        self._attempts[queue, provider, outcome].inc()
        self._answers[provider, code or outcome].inc()
        self._attempt_seconds[queue, provider].observe(seconds)

    def retried(self, queue: QueueKey, reason: str) -> None:
        self._retries[queue, reason].inc()

    def finished(self, queue: QueueKey, status: Status, age_s: float, reason: str = "") -> None:
        self._finished[queue, status].inc()
        if status is Status.FAILED:
            self._failures[queue.channel, reason].inc()
        if status is Status.SENT:
            self._end_to_end[queue].observe(age_s)

    def rescued(self, queue: QueueKey, count: int, reason: str = "lost") -> None:
        self._rescues[queue, reason].inc(count)

    def released(self, queue: QueueKey, count: int) -> None:
        self._released[queue].inc(count)

    def moved(self, queue: QueueKey, count: int) -> None:
        self._moves[queue].inc(count)

    def unreadable(self) -> None:
        self._unreadable.inc()

    def queue_measured(
        self, queue: QueueKey, *, ready: int, due: int, oldest_wait_s: float
    ) -> None:
        self._ready[queue].set(ready)
        self._due[queue].set(due)
        self._oldest_wait[queue].set(oldest_wait_s)

    def queue_held(self, queue: QueueKey, *, consumers: int, busy: int, limited_by: str) -> None:
        self._consumers[queue].set(consumers)
        self._busy[queue].set(busy)
        before = self._limits.get(queue)
        if before == limited_by:
            return
        if before is not None:
            self._limited_by[queue, before].set(0)
        self._limits[queue] = limited_by
        self._limited_by[queue, limited_by].set(1)

    def hangs(self, channel: Channel, *, is_so: bool) -> None:
        self._hangs[channel].set(is_so)

    def workers(self, count: int) -> None:
        self._workers.set(count)

    def processes_lost(self, count: int) -> None:
        self._lost.inc(count)

    def answered(self, dependency: str, seconds: float) -> None:
        self._is_up[dependency].set(1)
        self._round_trips[dependency].observe(seconds)

    def unanswered(self, dependency: str) -> None:
        self._is_up[dependency].set(0)

    def lagged(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def waiting(self, count: int, *, most: int) -> None:
        self._waiting.set(count)
        self._waiting_most.set(most)

    def days_kept(self, count: int) -> None:
        self._days_kept.set(count)

    def breaker(self, provider: str, state: str) -> None:
        for each in BreakerState:
            self._breakers[provider, each].set(each == state)

    def provider_failed(self, provider: str, reason: str) -> None:
        self._openings[provider, reason].inc()

    def provider_rate(self, provider: str, rate_per_s: float) -> None:
        self._provider_rate[provider].set(rate_per_s)
