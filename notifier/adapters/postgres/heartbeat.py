"""The row that says "this process lives", on its own connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.domain.breaker import ProviderFigures
from notifier.domain.notification import QueueKey, WorkerId
from notifier.ports.heartbeat import Figures, HeartbeatReply, QueueFigures, WorkerFigures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Record


CONNECTIONS: Final = 1
"""How many connections `open_heartbeat` opens at most."""


class _Said(msgspec.Struct):
    """The figures of a process as its row holds them; an older version wrote less."""

    queues: dict[str, QueueFigures] = {}
    providers: dict[str, ProviderFigures] = {}


_decode = msgspec.json.Decoder(_Said).decode


class PostgresHeartbeat:
    """Writes this process's heartbeat and reads everybody else's."""

    def __init__(self, worker: WorkerId, link: PostgresConnection) -> None:
        self.worker = worker
        self._link = link

    async def beat(
        self, *, kind: str, host: str, pid: int, beat: int, figures: Figures
    ) -> HeartbeatReply:
        """Say that this process lives, with its figures; returns the others' rows and the time."""
        queues = {str(queue): of for queue, of in figures.queues.items()}
        said = msgspec.json.encode({"queues": queues, "providers": figures.providers}).decode()
        rows = await self._link.fetch(statement("beat"), self.worker, kind, host, pid, beat, said)
        return HeartbeatReply(
            now=rows[0]["now"], others=[_figures(row) for row in rows if row["id"] is not None]
        )

    async def leave(self) -> None:
        """Remove the row: this process ends of its own will."""
        await self._link.fetch("DELETE FROM workers WHERE id = $1", self.worker)


def _figures(row: Record) -> WorkerFigures:
    said = _decode(row["figures"])
    return WorkerFigures(
        id=WorkerId(row["id"]),
        kind=row["kind"],
        host=row["host"],
        pid=row["pid"],
        beat=row["beat"],
        age_s=row["age_s"],
        queues={QueueKey.parse(name): of for name, of in said.queues.items()},
        providers=said.providers,
    )


@asynccontextmanager
async def open_heartbeat(
    settings: ConnectionSettings, worker: WorkerId
) -> AsyncIterator[PostgresHeartbeat]:
    """The heartbeat's own connection, opened when first used."""
    async with open_connection(settings) as link:
        yield PostgresHeartbeat(worker, link)
