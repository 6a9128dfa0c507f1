"""How far the rates of keys are used up, on a connection of its own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import KeyId
from notifier.domain.key_rate import MAX_BATCH
from notifier.ports.keys import TokenReply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from notifier.ports.keys import TokenRequest

CONNECTIONS: Final = 1
"""How many connections `open_key_rates` opens at most."""


class PostgresKeyRates:
    """Implements ports.keys.KeyRateStore: one row per key, see sql/key_rates.sql."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    async def take(self, requests: Sequence[TokenRequest]) -> Mapping[KeyId, TokenReply]:
        replies = await self._take(requests)
        if begun := [request for request in requests if request.key not in replies]:
            await self._connection.fetch(
                statement("key_rates_begin"), [request.key for request in begun]
            )
            replies |= await self._take(begun)
        return replies

    async def _take(self, requests: Sequence[TokenRequest]) -> dict[KeyId, TokenReply]:
        rows = await self._connection.fetch(
            statement("key_rates"),
            [request.key for request in requests],
            [request.rate_per_s for request in requests],
            [request.first for request in requests],
            [request.wanted for request in requests],
            float(MAX_BATCH),
        )
        return {
            KeyId(row["key"]): TokenReply(granted=row["granted"], left=row["left"]) for row in rows
        }


@asynccontextmanager
async def open_key_rates(settings: ConnectionSettings) -> AsyncIterator[PostgresKeyRates]:
    """The rates, on a connection that connects at first use."""
    async with open_connection(settings) as connection:
        yield PostgresKeyRates(connection)
