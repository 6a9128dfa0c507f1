"""The rules for each queue and priority, from the settings, for scheduler and attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from notifier.domain.allocation.demand import RESERVED_CONSUMERS
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.domain.retry import OnAmbiguous, RetryPolicy
from notifier.scheduling.consumers.lane import QueueRule
from notifier.settings import Settings


def retry_policies(settings: Settings) -> Mapping[Priority, RetryPolicy]:
    """How many tries each priority has, and their intervals."""
    return {priority: _retry_policy(settings, priority) for priority in Priority}


def _retry_policy(settings: Settings, priority: Priority) -> RetryPolicy:
    priority_settings = settings.priorities.of(priority)
    return RetryPolicy(
        base=timedelta(seconds=priority_settings.retry_base_s),
        factor=priority_settings.retry_factor,
        cap=timedelta(seconds=priority_settings.retry_cap_s),
        tries=priority_settings.tries,
    )


def queue_rules(
    settings: Settings, queues: Sequence[QueueKey], bulkheads: Mapping[Channel, int]
) -> list[QueueRule]:
    """The scheduler's rule for each queue."""
    return [_queue_rule(settings, queue, bulkheads[queue.channel]) for queue in queues]


def _queue_rule(settings: Settings, queue: QueueKey, bulkhead: int) -> QueueRule:
    priority, channel = settings.priorities.of(queue.priority), settings.channels[queue.channel]
    return QueueRule(
        queue=queue,
        weight=priority.weight,
        target_wait_s=priority.target_wait_s,
        consumer_rate=channel.consumer_rate,
        max_consumers=channel.max_consumers,
        bulkhead=bulkhead,
        reserved=_reserved(queue, channel.max_consumers, bulkhead),
        claims_ahead=OnAmbiguous(channel.ambiguous) is not OnAmbiguous.HOLD,
    )


def _reserved(queue: QueueKey, max_consumers: int | None, bulkhead: int) -> int:
    """The reserved consumers of a queue; each other queue of its channel needs a connection too."""
    reserved = RESERVED_CONSUMERS[queue.priority]
    left = max(1, bulkhead - len(Priority) + 1)
    return min(reserved, max_consumers or reserved, left)
