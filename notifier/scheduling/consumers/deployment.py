"""What a consumer pool must know about the rest of the deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from notifier.domain.notification import QueueKey
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The other workers, the gates, and the rates of providers, by queue."""

    cluster: Cluster
    gates: Permissions
    rates: Mapping[QueueKey, ProviderRate]
