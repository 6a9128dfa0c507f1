"""Blobs in Postgres: the files of emails, and whole mails."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.connection import (
    NO_SESSION_SETTINGS,
    ConnectionSettings,
    PostgresConnection,
    open_connections,
)
from notifier.adapters.postgres.statements import statement
from notifier.domain.blobs import BlobId, StoredBlob, digest_of, id_of_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from notifier.domain.notification import NotificationId
    from notifier.domain.tenants import TenantId

CONNECTIONS: Final = 2
"""How many connections `open_blobs` opens at most."""


class PostgresBlobs:
    """Implements ports.blobs.BlobStore and BlobReader.

    Data has a connection of its own, so that a question about ids does not wait for it, and only
    one file at a time has copies in the driver.
    """

    def __init__(self, questions: PostgresConnection, data: PostgresConnection) -> None:
        self._questions = questions
        self._data = data

    async def keep(self, tenant: TenantId, ids: Collection[BlobId]) -> Mapping[BlobId, StoredBlob]:
        rows = await self._questions.fetch(statement("blobs_keep"), tenant, _digests(ids))
        return {
            id_of_digest(row["hash"]): StoredBlob(
                row["size"], row["is_mail"], tuple(row["senders"] or ())
            )
            for row in rows
        }

    async def put(
        self,
        tenant: TenantId,
        id: BlobId,  # noqa: A002 the port's name
        data: bytes,
        *,
        is_mail: bool,
        senders: Sequence[str] = (),
    ) -> bool:
        (row,) = await self._data.fetch(
            statement("blobs_put"), tenant, digest_of(id), data, is_mail, list(senders) or None
        )
        return bool(row["is_new"])

    async def sizes(
        self, notification: NotificationId, ids: Collection[BlobId]
    ) -> Mapping[BlobId, int]:
        rows = await self._questions.fetch(statement("blobs_sizes"), notification, _digests(ids))
        return {id_of_digest(row["hash"]): row["size"] for row in rows}

    async def read(
        self,
        notification: NotificationId,
        id: BlobId,  # noqa: A002 the port's name
    ) -> bytes | None:
        rows = await self._data.fetch(statement("blobs_read"), notification, digest_of(id))
        return rows[0]["data"] if rows else None


def _digests(ids: Collection[BlobId]) -> list[bytes]:
    # In one order, so that two statements cannot wait for each other.
    return sorted(map(digest_of, ids))


@asynccontextmanager
async def open_blobs(settings: ConnectionSettings) -> AsyncIterator[PostgresBlobs]:
    """The store of blobs, with two connections of its own."""
    async with open_connections(settings, [NO_SESSION_SETTINGS] * CONNECTIONS) as connections:
        yield PostgresBlobs(*connections)
