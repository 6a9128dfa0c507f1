"""The rules for each queue and priority, from the settings: for scheduler, attempts and readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec

from notifier.domain.allocation.demand import RESERVED_CONSUMERS
from notifier.domain.explanation.facts import QueueRules
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


def explained_rules(
    settings: Settings, queues: Sequence[QueueKey]
) -> Mapping[QueueKey, QueueRules]:
    """What an explanation says of the settings of each queue.

    An API process may lack secrets of the providers: only their rates are read.
    """
    return {queue: _explained_rule(settings, queue) for queue in queues}


def _explained_rule(settings: Settings, queue: QueueKey) -> QueueRules:
    channel = settings.channels[queue.channel]
    return QueueRules(
        provider=channel.provider,
        provider_rate_per_s=_provider_rate(settings, channel.provider),
        consumer_rate_per_s=channel.consumer_rate,
        target_wait_s=settings.priorities.of(queue.priority).target_wait_s,
    )


def _provider_rate(settings: Settings, provider: str) -> float | None:
    """The rate of a provider, None without one, and for one that a worker refuses."""
    raw = settings.providers.get(provider, {}).get("rate")
    try:
        rate = msgspec.convert(
            str(raw) if isinstance(raw, str) else raw, float | None, strict=False
        )
    except msgspec.ValidationError:
        return None
    return rate if rate is None or rate > 0 else None


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
