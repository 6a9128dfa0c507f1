"""The label values of series. A deployment with many channels shares those of the last ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from notifier.domain.notification import Channel, QueueKey

OTHER: Final = "other"
MAX_CHANNELS: Final = 16
"""Channels with series of their own: the first ones of the settings."""


class LabelValues:
    """Names the series of a key. The channels after the first ones share the channel `other`."""

    def __init__(self, queues: Collection[QueueKey]) -> None:
        channels = list(dict.fromkeys(queue.channel for queue in queues))
        self._others = frozenset[Channel](channels[MAX_CHANNELS:])

    def of(self, labels: Sequence[str], key: object) -> tuple[str, ...]:
        """Return the values for these labels. The key has one part for each."""
        parts = dict(zip(labels, _parts(key), strict=True))
        if not self.is_shared(labels, key):
            return tuple(str(part) for part in parts.values())
        shared = {"queue": f"{OTHER}.{_priority(parts)}", "channel": OTHER, "provider": OTHER}
        return tuple(shared.get(label, str(part)) for label, part in parts.items())

    def is_shared(self, labels: Sequence[str], key: object) -> bool:
        """Whether keys of several channels have these values."""
        first = _parts(key)[0]
        channel = first.channel if isinstance(first, QueueKey) else first
        return labels[0] in {"queue", "channel"} and channel in self._others


def _parts(key: object) -> tuple[object, ...]:
    return key if isinstance(key, tuple) else (key,)


def _priority(parts: dict[str, object]) -> str:
    queue = parts.get("queue")
    return queue.priority if isinstance(queue, QueueKey) else ""
