"""The row that says "this process lives", on its own connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from notifier.adapters.postgres.link import Link, LinkSettings, open_link
from notifier.adapters.postgres.statements import statement
from notifier.domain.notification import QueueKey, WorkerId
from notifier.ports import Beaten, QueueFigures, WorkerFigures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from asyncpg import Record

_decoder = msgspec.json.Decoder(dict[str, QueueFigures])


class PostgresHeartbeat:
    """Writes this process's heartbeat and reads everybody else's."""

    def __init__(self, worker: WorkerId, link: Link) -> None:
        self.worker = worker
        self._link = link

    async def beat(
        self, *, kind: str, host: str, pid: int, beat: int, figures: Mapping[QueueKey, QueueFigures]
    ) -> Beaten:
        """Say that this process lives, with its figures; returns the others' rows and the time."""
        said = msgspec.json.encode({str(queue): of for queue, of in figures.items()}).decode()
        rows = await self._link.fetch(statement("beat"), self.worker, kind, host, pid, beat, said)
        return Beaten(
            now=rows[0]["now"], others=[_figures(row) for row in rows if row["id"] is not None]
        )

    async def leave(self) -> None:
        """Remove the row: this process ends of its own will."""
        await self._link.fetch("DELETE FROM workers WHERE id = $1", self.worker)


def _figures(row: Record) -> WorkerFigures:
    return WorkerFigures(
        id=WorkerId(row["id"]),
        kind=row["kind"],
        host=row["host"],
        pid=row["pid"],
        beat=row["beat"],
        age_s=row["age_s"],
        queues={QueueKey.parse(name): of for name, of in _decoder.decode(row["figures"]).items()},
    )


@asynccontextmanager
async def open_heartbeat(
    settings: LinkSettings, worker: WorkerId
) -> AsyncIterator[PostgresHeartbeat]:
    """The heartbeat's own connection, opened when first used."""
    async with open_link(settings) as link:
        yield PostgresHeartbeat(worker, link)
