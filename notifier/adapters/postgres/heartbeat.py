"""The heartbeat row of one process, on its own connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from notifier import __version__
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.tolerant import decode_entries
from notifier.domain.breaker import ProviderFigures
from notifier.domain.features import FEATURES
from notifier.domain.notification import QueueKey, WorkerId
from notifier.ports.heartbeat import (
    NO_FIGURES,
    Figures,
    HeartbeatReply,
    QueueFigures,
    WorkerFigures,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpg import Record

    from notifier.adapters.postgres.access import AccessCheck

CONNECTIONS: Final = 1
"""How many connections `open_heartbeat` opens at most."""

log = structlog.get_logger(__name__)


class _StoredFigures(msgspec.Struct):
    """The column `figures`. Other versions may have written fewer fields, or more."""

    queues: dict[str, msgspec.Raw] = {}
    providers: dict[str, msgspec.Raw] = {}
    draining: bool = False
    version: str | None = None
    features: object = None


_decoder = msgspec.json.Decoder(_StoredFigures)


def encode_figures(figures: Figures) -> str:
    """The value of the column `figures`."""
    queues = {str(queue): row for queue, row in figures.queues.items()}
    stored = {
        "queues": queues,
        "providers": figures.providers,
        "version": __version__,
        "features": list(FEATURES),
        **({"draining": True} if figures.is_draining else {}),
    }
    return msgspec.json.encode(stored).decode()


def decode_figures(stored: str) -> Figures:
    """Read the column `figures`; a queue or provider that does not fit is left out.

    Raises ValueError for anything but figures.
    """
    try:
        decoded = _decoder.decode(stored)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    return Figures(
        queues=decode_entries(decoded.queues, QueueKey.parse, QueueFigures),
        providers=decode_entries(decoded.providers, str, ProviderFigures),
        is_draining=decoded.draining,
        version=decoded.version,
        features=_names(decoded.features),
    )


def _names(stored: object) -> frozenset[str]:
    names = stored if isinstance(stored, list) else []
    return frozenset(name for name in names if isinstance(name, str))


class PostgresHeartbeat:
    """Implements ports.heartbeat.Heartbeat."""

    def __init__(
        self,
        worker: WorkerId,
        connection: PostgresConnection,
        check: AccessCheck | None = None,
    ) -> None:
        self.worker = worker
        self._connection = connection
        self._check = check
        self._unreadable: set[WorkerId] = set()

    async def beat(
        self, *, kind: str, host: str, pid: int, beat: int, figures: Figures
    ) -> HeartbeatReply:
        """Write this process's row; return the other processes' rows and the time."""
        if self._check is not None:
            await self._check.run_once()
        rows = await self._connection.fetch(
            statement("beat"), self.worker, kind, host, pid, beat, encode_figures(figures)
        )
        # One row without id is returned when there is no other process.
        others = [row for row in rows if row["id"] is not None]
        refusal = await self._check.missing(self._connection) if self._check else ""
        return HeartbeatReply(now=rows[0]["now"], others=self._read(others), refusal=refusal)

    async def leave(self) -> None:
        """Delete this process's row."""
        await self._connection.fetch("DELETE FROM workers WHERE id = $1", self.worker)

    def _read(self, rows: Sequence[Record]) -> list[WorkerFigures]:
        before, self._unreadable = self._unreadable, set()
        read = []
        for row in rows:
            try:
                figures = decode_figures(row["figures"])
            except ValueError as error:
                self._unreadable.add(row["id"])
                if row["id"] not in before:
                    reason = str(error)
                    log.warning("heartbeat_unreadable", worker=str(row["id"]), reason=reason)
                figures = NO_FIGURES
            read.append(_worker_figures(row, figures))
        return read


def _worker_figures(row: Record, figures: Figures) -> WorkerFigures:
    return WorkerFigures(
        id=WorkerId(row["id"]),
        kind=row["kind"],
        host=row["host"],
        pid=row["pid"],
        beat=row["beat"],
        age_s=row["age_s"],
        queues=figures.queues,
        providers=figures.providers,
        is_draining=figures.is_draining,
        version=figures.version,
        features=figures.features,
    )


@asynccontextmanager
async def open_heartbeat(
    settings: ConnectionSettings, worker: WorkerId, check: AccessCheck | None = None
) -> AsyncIterator[PostgresHeartbeat]:
    """Yield the heartbeat with its own connection, which opens at the first use.

    The first heartbeat succeeds only after the `check` of the process's start.
    """
    async with open_connection(settings) as connection:
        yield PostgresHeartbeat(worker, connection, check)
