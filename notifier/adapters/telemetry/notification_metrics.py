"""The metrics of notifications: accepted, published, claimed, attempted, finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final

from prometheus_client import Counter, Histogram

from notifier.adapters.telemetry.series import FirstSeen, SeriesFactory
from notifier.domain.notification import FINAL, Channel, Priority, QueueKey, Status
from notifier.domain.outcome import OUTCOMES, Accepted, Refused
from notifier.ports.observer import RescueReason

OUTCOME_NAMES: Final = tuple(outcome.name for outcome in OUTCOMES)
RETRY_REASONS: Final = tuple(
    name for name in OUTCOME_NAMES if name not in {Accepted.name, Refused.name}
)
FAILURE_REASONS: Final = ("refused", "exhausted", "ambiguous", "poison", "render")
MAX_CODES: Final = 10
"""Response codes with a series per provider: the first ones seen. Later codes count as `other`."""

WAIT_BUCKETS: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 900.0, 3600.0),
)
CALL_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


class NotificationMetrics:
    """Implements the methods of notifier.ports.observer.Observer that report notifications."""

    def __init__(
        self,
        factory: SeriesFactory,
        queues: Sequence[QueueKey],
        providers: Mapping[Channel, Sequence[str]],
        target_wait_s: Mapping[Priority, float],
    ) -> None:
        self._target_wait_s = {
            queue: target_wait_s[queue.priority]
            for queue in queues
            if queue.priority in target_wait_s
        }
        routes = [(queue, name) for queue in queues for name in providers.get(queue.channel, ())]
        self._define_flow(factory, queues)
        names = sorted({name for names in providers.values() for name in names})
        self._define_attempts(factory, routes, names)
        self._define_endings(factory, queues)

    def _define_flow(self, factory: SeriesFactory, queues: Sequence[QueueKey]) -> None:
        by_queue = ("queue",)
        self._accepted = factory.counter(
            "accepted", "Notifications stored by the API.", by_queue, queues
        )
        self._accept_seconds = Histogram(
            "notifier_accept_seconds",
            "Seconds from a submit to its commit in Postgres.",
            registry=factory.registry,
            buckets=CALL_BUCKETS,
        )
        self._published = factory.counter(
            "published", "Publishes that RabbitMQ confirmed, in notifications.", by_queue, queues
        )
        self._queue_wait = factory.histogram(
            "queue_wait_seconds",
            "Seconds from the time a notification was due to the call of its provider.",
            by_queue,
            queues,
            WAIT_BUCKETS,
        )
        targets = factory.gauge(
            "target_wait_seconds",
            "The longest wait that the settings promise for this queue, in seconds.",
            by_queue,
            self._target_wait_s,
        )
        for queue, target_s in self._target_wait_s.items():
            targets[queue].set(target_s)
        self._claimed_late = factory.counter(
            "claimed_late",
            "Notifications called after a wait above target_wait_seconds.",
            by_queue,
            queues,
        )
        self._unreadable = Counter(
            "notifier_unreadable_messages",
            "Messages in the queues that are not Notifier's. They are discarded.",
            registry=factory.registry,
        )

    def _define_attempts(
        self,
        factory: SeriesFactory,
        routes: Sequence[tuple[QueueKey, str]],
        names: Sequence[str],
    ) -> None:
        self._attempts = factory.counter(
            "attempts",
            "Calls to a provider that ended, by outcome.",
            ("queue", "provider", "outcome"),
            [(*route, outcome) for route in routes for outcome in OUTCOME_NAMES],
        )
        self._attempt_seconds = factory.histogram(
            "attempt_seconds",
            "Duration of a call to a provider, in seconds.",
            ("queue", "provider"),
            routes,
            CALL_BUCKETS,
        )
        responses = factory.open_counter(
            "provider_responses",
            "Responses of a provider, by its own code. "
            f"After {MAX_CODES} different codes, further ones count as `other`.",
            ("provider", "code"),
        )
        self._responses = FirstSeen(responses.labels, names, MAX_CODES)

    def _define_endings(self, factory: SeriesFactory, queues: Sequence[QueueKey]) -> None:
        self._finished = factory.counter(
            "finished",
            "Notifications that reached a final status.",
            ("queue", "status"),
            [(queue, status) for queue in queues for status in sorted(FINAL)],
        )
        channels = dict.fromkeys(queue.channel for queue in queues)
        self._failures = factory.counter(
            "failures",
            "Notifications that failed permanently, by reason.",
            ("channel", "reason"),
            [(channel, reason) for channel in channels for reason in FAILURE_REASONS],
        )
        self._copies_refused = factory.counter(
            "copies_refused",
            "Copies of sent emails that the mail server refused.",
            ("channel",),
            channels,
        )
        self._end_to_end = factory.histogram(
            "end_to_end_seconds",
            "Seconds from the submit of a notification to its status sent.",
            ("queue",),
            queues,
            WAIT_BUCKETS,
        )
        self._retries = factory.counter(
            "retries",
            "Retries planned, by the outcome that caused them.",
            ("queue", "reason"),
            [(queue, reason) for queue in queues for reason in RETRY_REASONS],
        )
        self._rescues = factory.counter(
            "rescues",
            "Notifications recovered, because RabbitMQ lost the message or a process died.",
            ("queue", "reason"),
            [(queue, reason) for queue in queues for reason in RescueReason],
        )
        self._released = factory.counter(
            "released",
            "Notifications that a worker gave back without an attempt.",
            ("queue",),
            queues,
        )
        self._parked = factory.counter(
            "parked",
            "Notifications put off by a pause of their tag or tenant or by quiet hours.",
            ("queue",),
            queues,
        )

    def accepted(self, queue: QueueKey, count: int) -> None:
        self._accepted[queue].inc(count)

    def submit_committed(self, seconds: float) -> None:
        self._accept_seconds.observe(seconds)

    def published(self, queue: QueueKey, count: int) -> None:
        self._published[queue].inc(count)

    def claimed(self, queue: QueueKey, wait_s: float) -> None:
        self._queue_wait[queue].observe(wait_s)
        if wait_s > self._target_wait_s.get(queue, inf):
            self._claimed_late[queue].inc()

    def attempted(
        self, queue: QueueKey, provider: str, outcome: str, code: str, seconds: float
    ) -> None:
        self._attempts[queue, provider, outcome].inc()
        self._responses[provider, code or outcome].inc()
        self._attempt_seconds[queue, provider].observe(seconds)

    def retried(self, queue: QueueKey, reason: str) -> None:
        self._retries[queue, reason].inc()

    def finished(self, queue: QueueKey, status: Status, age_s: float, reason: str = "") -> None:
        self._finished[queue, status].inc()
        if status is Status.SENT:
            self._end_to_end[queue].observe(age_s)
        elif status is Status.FAILED:
            self._failures[queue.channel, reason].inc()

    def rescued(self, queue: QueueKey, count: int, reason: RescueReason) -> None:
        self._rescues[queue, reason].inc(count)

    def released(self, queue: QueueKey, count: int) -> None:
        self._released[queue].inc(count)

    def copies_refused(self, queue: QueueKey, count: int) -> None:
        self._copies_refused[queue.channel].inc(count)

    def parked(self, queue: QueueKey, count: int) -> None:
        self._parked[queue].inc(count)

    def message_unreadable(self) -> None:
        self._unreadable.inc()
