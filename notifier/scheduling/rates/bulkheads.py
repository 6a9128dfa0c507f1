"""How many calls each channel may make at once: its share of its provider's connections.

A provider may find that its server takes fewer connections than the settings allow. Then the share
falls, and consumers leave the channel instead of waiting for a connection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from notifier.domain.notification import Channel
from notifier.ports.observer import ConnectionObserver
from notifier.ports.provider import LimitsConnections


@dataclass(frozen=True, slots=True)
class ProviderConnections:
    """A provider's `max_connections`, and what it found itself, if it looks for it."""

    maximum: int
    found: LimitsConnections | None = None

    @property
    def limit(self) -> int:
        """How many connections may be open now."""
        return self.maximum if self.found is None else self.found.connection_limit


class Bulkheads:
    """Implements consumers.deployment.CallLimits."""

    def __init__(
        self,
        channels: Mapping[Channel, str],
        providers: Mapping[str, ProviderConnections],
        observer: ConnectionObserver,
    ) -> None:
        """`channels` names each channel's provider."""
        self._channels = channels
        self._sharers = Counter(channels.values())
        self._providers = providers
        self._observer = observer
        self._reported: dict[str, int] = {}

    def call_limit(self, channel: Channel) -> int | None:
        """How many calls the channel may make at once, None for a channel without a provider."""
        name = self._channels.get(channel)
        if name is None:
            return None
        limit = self._providers[name].limit
        if self._reported.get(name) != limit:
            self._reported[name] = limit
            self._observer.provider_connections_changed(name, limit)
        return max(1, limit // self._sharers[name])

    def lowered(self) -> Mapping[str, int]:
        """The providers whose servers take fewer connections than the settings allow."""
        limits = {name: each.limit for name, each in self._providers.items()}
        return {
            name: limit for name, limit in limits.items() if limit < self._providers[name].maximum
        }
