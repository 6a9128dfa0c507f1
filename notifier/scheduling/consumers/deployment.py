"""What a consumer pool must know about the rest of the deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from notifier.domain.notification import Channel, QueueKey
from notifier.ports.controls import Permissions
from notifier.scheduling.cluster.peer_load import PeerLoad
from notifier.scheduling.rates.provider_rate import ProviderRate


class Cluster(Protocol):
    """The other workers. Implemented by scheduling.cluster.membership.Membership."""

    def share(self) -> float:
        """This worker's fraction of all consumers in the deployment."""
        ...

    def peer_load(self) -> Mapping[QueueKey, PeerLoad]:
        """The load of the other workers, by queue."""
        ...

    def is_alive(self) -> bool:
        """Whether this worker's heartbeats still reach Postgres."""
        ...


class CallLimits(Protocol):
    """How many calls providers take. Implemented by scheduling.rates.bulkheads.Bulkheads."""

    def call_limit(self, channel: Channel) -> int | None:
        """How many calls the channel may make at once in this worker, None for no limit."""
        ...


class NoCallLimits:
    """Implements CallLimits for channels without a limit."""

    def call_limit(self, channel: Channel) -> int | None:  # noqa: ARG002 the Protocol's signature
        """None."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The other workers, the gates, the rates of providers, by queue, and their call limits."""

    cluster: Cluster
    gates: Permissions
    rates: Mapping[QueueKey, ProviderRate]
    call_limits: CallLimits = field(default_factory=NoCallLimits)
