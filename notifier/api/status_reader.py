"""The port behind `GET /v1/queues`, `/v1/providers` and `/v1/pauses`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from notifier.domain.controls import Pause
from notifier.ports.queries import ProviderState, QueueState


class StatusReader(Protocol):
    """Reads the state of all queues and providers. Raises StoreUnavailable."""

    async def queues(self) -> Sequence[QueueState]:
        """Returns the state of every queue."""
        ...

    async def providers(self) -> Sequence[ProviderState]:
        """Returns the state of every provider."""
        ...

    async def pauses(self) -> Sequence[Pause]:
        """Returns the pauses that have not expired."""
        ...
