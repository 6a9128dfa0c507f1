"""The leases of one process, on its own connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.tolerant import decode_entries
from notifier.domain.due import DueClass, Position
from notifier.domain.notification import QueueKey, WorkerId
from notifier.ports.leases import HeldLease, Lease, LeaseRead, Progress, TurnProgress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

CONNECTIONS: Final = 1
"""How many connections `open_leases` opens at most."""

# A lease that a crash of Postgres sets back is lost by its holder at the next renewal.
_SESSION_SETTINGS: Final = {"synchronous_commit": "off"}


class _StoredProgress(msgspec.Struct):
    """The column `progress`. Other versions may have written fewer fields or classes, or more."""

    floors: dict[str, msgspec.Raw] = {}
    marks: dict[str, msgspec.Raw] = {}
    is_backlogged: bool = False
    turns: dict[str, msgspec.Raw] = {}


class _StoredTurn(msgspec.Struct):
    """One of the turns of the column `progress`."""

    floors: dict[str, msgspec.Raw] = {}
    marks: dict[str, msgspec.Raw] = {}


_decoder = msgspec.json.Decoder(_StoredProgress)

log = structlog.get_logger(__name__)


def encode_progress(progress: Progress) -> str:
    """The value of the column `progress`."""
    return msgspec.json.encode(progress).decode()


def decode_progress(stored: str) -> Progress:
    """Read the column `progress`; a class that does not fit starts at the beginning.

    Raises msgspec.DecodeError for anything but progress.
    """
    decoded = _decoder.decode(stored)
    return Progress(
        floors=decode_entries(decoded.floors, _due_class, Position),
        marks=decode_entries(decoded.marks, _due_class, Position),
        is_backlogged=decoded.is_backlogged,
        turns={
            turn: TurnProgress(
                floors=decode_entries(of_turn.floors, _due_class, Position),
                marks=decode_entries(of_turn.marks, _due_class, Position),
            )
            for turn, of_turn in decode_entries(decoded.turns, int, _StoredTurn).items()
        },
    )


def _due_class(name: str) -> DueClass:
    return DueClass(int(name))


class _Written(NamedTuple):
    """What a renewal that succeeded has written, and the beat of the lease after it."""

    term: int
    progress: Progress
    beat: int


class PostgresLeases:
    """Implements ports.leases.LeaseStore."""

    def __init__(
        self, worker: WorkerId, queues: Sequence[QueueKey], connection: PostgresConnection
    ) -> None:
        self.worker = worker
        self._names = [str(queue) for queue in queues]
        self._connection = connection
        self._written: dict[QueueKey, _Written] = {}

    async def renew(self, held: Sequence[HeldLease]) -> LeaseRead:
        """Write the progress of these leases unless they have another holder; read all leases."""
        wanted = {lease.queue: (lease.term, lease.progress) for lease in held}
        changed = {queue: self._changed(queue, *of) for queue, of in wanted.items()}
        before, self._written = self._written, {}
        rows = await self._connection.fetch(
            statement("lease_renew"),
            self.worker,
            self._names,
            [str(queue) for queue in wanted],
            [term for term, _ in wanted.values()],
            list(changed.values()),
        )
        leases = [
            Lease(
                queue=QueueKey.parse(row["queue"]),
                holder=row["holder"] and WorkerId(row["holder"]),
                term=row["term"],
                beat=row["beat"],
                is_backlogged=row["is_backlogged"],
                turns=tuple(row["turns"] or ()),
            )
            for row in rows
        ]
        renewed = {QueueKey.parse(row["queue"]): row["beat"] for row in rows if row["is_renewed"]}
        self._written = {
            queue: _Written(*wanted[queue], beat)
            for queue, beat in renewed.items()
            # Another beat: a crash of Postgres has set the lease back, and its progress too.
            if changed[queue] is not None or beat == before[queue].beat + 1
        }
        return LeaseRead(leases, set(renewed))

    async def acquire(self, seen: Sequence[Lease]) -> Mapping[QueueKey, Progress]:
        """Become the holder of each lease whose term and beat are still as seen.

        Progress that cannot be decoded counts as none: all rows are published again.
        """
        rows = await self._connection.fetch(
            statement("lease_acquire"),
            self.worker,
            [str(lease.queue) for lease in seen],
            [lease.term for lease in seen],
            [lease.beat for lease in seen],
        )
        return {
            QueueKey.parse(row["queue"]): _decode_progress(row["queue"], row["progress"])
            for row in rows
        }

    async def release(self, held: Sequence[HeldLease]) -> None:
        """Write the progress of these leases and leave them without a holder."""
        await self._connection.fetch(statement("lease_release"), self.worker, *_columns(held))

    def _changed(self, queue: QueueKey, term: int, progress: Progress) -> str | None:
        """Return the progress to write, None if the last renewal has written it."""
        before = self._written.get(queue)
        if before and before.term == term and before.progress is progress:
            return None
        return encode_progress(progress)

    async def forget_leases(self) -> None:
        """Delete all leases, so that all due rows are published again."""
        await self._connection.fetch("DELETE FROM leases")


def _columns(held: Sequence[HeldLease]) -> tuple[list[str], list[int], list[str]]:
    """Queues, terms and progress."""
    return (
        [str(lease.queue) for lease in held],
        [lease.term for lease in held],
        [encode_progress(lease.progress) for lease in held],
    )


def _decode_progress(queue: str, stored: str) -> Progress:
    try:
        return decode_progress(stored)
    except msgspec.DecodeError as error:
        log.warning("lease_progress_unreadable", queue=queue, reason=str(error))
        return Progress()


@asynccontextmanager
async def open_leases(
    settings: ConnectionSettings, worker: WorkerId, queues: Sequence[QueueKey]
) -> AsyncIterator[PostgresLeases]:
    """Yield the leases of these queues with their own connection, which opens at the first use.

    The time limit of a statement must be LEASE_TIMEOUT_S, see domain/liveness.py.
    """
    async with open_connection(settings, _SESSION_SETTINGS) as connection:
        yield PostgresLeases(worker, queues, connection)
