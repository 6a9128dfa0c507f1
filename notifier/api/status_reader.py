"""What `GET /v1/queues`, `/v1/providers` and `/v1/pauses` stand on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from notifier.domain.controls import Pause
from notifier.ports.queries import ProviderState, QueueState


class Board(Protocol):
    """Who knows the state of every queue and provider. Raises StoreUnavailable."""

    async def queues(self) -> Sequence[QueueState]:
        """One row a queue."""
        ...

    async def providers(self) -> Sequence[ProviderState]:
        """One row a provider."""
        ...

    async def pauses(self) -> Sequence[Pause]:
        """All that have not expired."""
        ...
