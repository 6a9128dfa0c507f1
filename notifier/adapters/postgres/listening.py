"""Hearing NOTIFY on one channel, over a connection that comes back by itself.

A notice may be lost with its connection, so whoever listens asks now and then all the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import StoreUnavailable
from notifier.lifecycle import wait

if TYPE_CHECKING:
    import asyncpg

    from notifier.adapters.postgres.connection import PostgresConnection

RECONNECT_S: Final = 0.5
PROVE_EVERY_S: Final = 10.0
"""A connection that a firewall forgot is silent like one on which nothing happens."""

log = structlog.get_logger(__name__)


class Listening:
    """One channel's notices; many between two looks count as one."""

    def __init__(self, link: PostgresConnection, channel: str) -> None:
        self._link = link
        self._channel = channel
        self._notice = asyncio.Event()
        self._reason = ""

    async def on_outcome(self, within_s: float) -> None:
        """Return at a notice, or when the connection is back, or after `within_s`."""
        await wait(self._notice, within_s)
        self._notice.clear()

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`, and again 0.5 s after each loss."""
        while not stop.is_set():
            try:
                await self._listen(stop)
            except StoreUnavailable as error:
                self._miss(str(error))
            await wait(stop, RECONNECT_S)

    async def _listen(self, stop: asyncio.Event) -> None:
        """One connection's life."""
        lost = asyncio.Event()
        async with self._link.acquire() as connection:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(self._channel, lambda *_: self._notice.set())
            self._begin()
            while not stop.is_set():
                if await wait(lost, PROVE_EVERY_S):
                    raise StoreUnavailable("Postgres: the connection that listens is gone")
                await _prove(connection)

    def _begin(self) -> None:
        """Listening now; what was said before was not heard."""
        if self._reason:
            log.info("listener_reconnected", channel=self._channel)
        self._reason = ""
        self._notice.set()

    def _miss(self, reason: str) -> None:
        if not self._reason:
            log.warning("listener_disconnected", channel=self._channel, reason=reason)
        self._reason = reason


async def _prove(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.execute("SELECT")
