"""Receives NOTIFY on one channel, over a connection that is restored when it is lost.

A notification can be lost with its connection. The caller must therefore also read from time to
time.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from notifier.adapters.postgres.connection import open_connection
from notifier.domain.errors import StoreError, StoreUnavailable
from notifier.lifecycle import wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from notifier.adapters.postgres.connection import ConnectionSettings, PostgresConnection

RECONNECT_DELAY_S: Final = 0.5
CHECK_INTERVAL_S: Final = 10.0
"""A connection that a firewall has dropped is as quiet as one without notifications: only a query
shows the difference."""

log = structlog.get_logger(__name__)


class NotifyListener:
    """The notifications of one channel; all that arrive between two calls of `wait` count once."""

    def __init__(self, connection: PostgresConnection, channel: str) -> None:
        self._connection = connection
        self._channel = channel
        self._notified = asyncio.Event()
        self._failure = ""

    async def wait(self, timeout_s: float) -> None:
        """Return at a notification, when a lost connection is restored, or after `timeout_s`."""
        await wait(self._notified, timeout_s)
        self._notified.clear()

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`; connect again 0.5 s after each loss."""
        while not stop.is_set():
            try:
                await self._listen(stop)
            except StoreError as error:
                self._note_failure(str(error))
            await wait(stop, RECONNECT_DELAY_S)

    async def _listen(self, stop: asyncio.Event) -> None:
        """Listen on one connection until `stop`. Raises StoreUnavailable when it is lost."""
        lost = asyncio.Event()
        async with self._connection.acquire() as connection:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(self._channel, lambda *_: self._notified.set())
            self._note_success()
            while not stop.is_set():
                if await wait(lost, CHECK_INTERVAL_S):
                    raise StoreUnavailable("Postgres: the listening connection was lost")
                await _check(connection)

    def _note_success(self) -> None:
        if self._failure:
            log.info("listener_reconnected", channel=self._channel)
        self._failure = ""
        # Earlier notifications were not received: let the caller read.
        self._notified.set()

    def _note_failure(self, reason: str) -> None:
        if not self._failure:
            log.warning("listener_disconnected", channel=self._channel, reason=reason)
        self._failure = reason


@asynccontextmanager
async def open_listener(
    settings: ConnectionSettings, channel: str, *, name: str
) -> AsyncIterator[NotifyListener]:
    """Yield a listener on a separate connection. `name` is that of its task."""
    stop = asyncio.Event()
    async with open_connection(settings) as connection, asyncio.TaskGroup() as group:
        listener = NotifyListener(connection, channel)
        task = group.create_task(listener.run(stop), name=name)
        try:
            yield listener
        finally:
            stop.set()
            task.cancel()


async def _check(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.execute("SELECT")
