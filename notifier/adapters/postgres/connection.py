"""A Postgres connection that reconnects after it was lost.

Each kind of batch has its own connection, so that no kind waits behind another.
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
    from collections.abc import AsyncIterator, Mapping, Sequence

APPLICATION_NAME: Final = "notifier"
CONNECT_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 0.5
CLIENT_TIMEOUT_MARGIN_S: Final = 2.0
"""Added to the server's statement time-out to get the client's."""
NO_SESSION_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """The address of Postgres and the time limit of one statement."""

    url: str
    statement_timeout_s: float = 5.0

    def session_settings(self) -> Mapping[str, str]:
        """The session parameters that every connection sets when it has connected."""
        return {
            "jit": "off",  # the statements are short: compiling them costs more than it saves
            # A plan made while a day's partition is empty would later read the whole partition.
            "enable_seqscan": "off",
            "statement_timeout": str(int(self.statement_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": "10000",
        }


class PostgresConnection:
    """A connection that is opened at first use and reopened after a loss. One user at a time."""

    def __init__(
        self,
        settings: ConnectionSettings,
        session_settings: Mapping[str, str] = NO_SESSION_SETTINGS,
    ) -> None:
        self._settings = settings
        self._session_settings = session_settings
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._lock = asyncio.Lock()

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run one statement and return its rows. Raises the errors of errors.py."""
        async with self.acquire() as connection:
            return await connection.fetch(sql, *args)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """Hold the connection for more than one statement; other callers wait.

        Raises the errors of errors.py. After a cancellation, and after any error but StoreConflict
        and StoreRejected, the connection is terminated: the state of its session is unknown.
        """
        async with self._lock:
            try:
                with translated():
                    yield await self._connected()
            except (StoreConflict, StoreRejected):
                raise
            except (NotifierError, asyncio.CancelledError):
                self._terminate()
                raise

    async def _connected(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return self._connection

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        connection = await asyncpg.connect(
            self._settings.url,
            timeout=CONNECT_TIMEOUT_S,
            # Fires after the server's own limit, for a server that no longer responds.
            command_timeout=self._settings.statement_timeout_s + CLIENT_TIMEOUT_MARGIN_S,
            server_settings={"application_name": APPLICATION_NAME},
        )
        try:
            # Not as parameters of the startup: a connection pooler refuses or ignores those.
            settings = {**self._settings.session_settings(), **self._session_settings}
            await connection.execute(
                "".join(f"SET {name} TO '{value}';" for name, value in settings.items())
            )
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _terminate(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Close the session in order; terminate it after 0.5 s."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=CLOSE_TIMEOUT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()


@asynccontextmanager
async def open_connection(
    settings: ConnectionSettings, session_settings: Mapping[str, str] = NO_SESSION_SETTINGS
) -> AsyncIterator[PostgresConnection]:
    """A connection that connects at first use and is closed at the end of the block.

    `session_settings` are parameters of its session, besides those of all connections.
    """
    connection = PostgresConnection(settings, session_settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        yield connection


@asynccontextmanager
async def open_connections(
    settings: ConnectionSettings, session_settings: Sequence[Mapping[str, str]]
) -> AsyncIterator[Sequence[PostgresConnection]]:
    """Connections as that of `open_connection`, one for each of `session_settings`.

    They are closed at the same time: Postgres may answer none of them.
    """
    connections = [PostgresConnection(settings, each) for each in session_settings]
    try:
        yield connections
    finally:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(connection.close(), name="close a connection")
