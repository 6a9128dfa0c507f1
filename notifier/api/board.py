"""What `GET /v1/queues` stands on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from notifier.ports import QueueState


class Board(Protocol):
    """Who knows the state of every queue."""

    async def queues(self) -> Sequence[QueueState]:
        """One row a queue. Raises StoreUnavailable when Postgres is away."""
        ...
