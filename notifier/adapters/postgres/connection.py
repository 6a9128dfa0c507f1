"""One Postgres connection that comes back by itself.

Each kind of batch has its own, so that no kind waits behind another.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import asyncpg

from notifier.adapters.postgres.errors import translated
from notifier.domain.errors import NotifierError, StoreConflict, StoreRejected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
AS_CONFIGURED: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """Where Postgres is, and how long one statement may take there."""

    url: str
    statement_timeout_s: float = 5.0

    def server_settings(self) -> Mapping[str, str]:
        """What every connection of ours says at its start."""
        return {
            "application_name": "notifier",
            "jit": "off",  # our statements are short: compiling them costs more than they do
            "enable_seqscan": "off",  # a plan made while a day is empty would read all of it later
            "statement_timeout": str(int(self.statement_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": "10000",
        }


class PostgresConnection:
    """A connection opened when first used and again after it was lost; one user at a time."""

    def __init__(
        self, settings: ConnectionSettings, planner: Mapping[str, str] = AS_CONFIGURED
    ) -> None:
        self._settings = settings
        self._planner = planner
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._turn = asyncio.Lock()

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run one statement. Raises the errors of errors.py."""
        async with self.use() as connection:
            return await connection.fetch(sql, *args)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """The connection, for more than one statement.

        After an error of which the server did not say that the session goes on, and after a
        cancellation, the connection is thrown away: what it still holds is unknown.
        """
        async with self._turn:
            try:
                with translated():
                    yield await self._opened()
            except (StoreConflict, StoreRejected):
                raise
            except (NotifierError, asyncio.CancelledError):
                self._discard()
                raise

    async def _opened(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._settings.url,
                timeout=CONNECT_TIMEOUT_S,
                # The server's limit comes first; this one is for a server that says nothing.
                command_timeout=self._settings.statement_timeout_s + 2,
                server_settings={**self._settings.server_settings(), **self._planner},
            )
        return self._connection

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Say goodbye to the server, within 2 s."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=CLOSE_TIMEOUT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()


@asynccontextmanager
async def open_connection(
    settings: ConnectionSettings, planner: Mapping[str, str] = AS_CONFIGURED
) -> AsyncIterator[PostgresConnection]:
    """A link, closed at the end. Connects only when used; `planner` are settings of Postgres's."""
    link = PostgresConnection(settings, planner)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(link.close)
        yield link
