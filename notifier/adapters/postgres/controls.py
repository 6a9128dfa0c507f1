"""Pauses and breakers in Postgres: every change is compare-and-set, and told to all at its commit.

All spans and instants are Postgres's own.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.listening import Listening
from notifier.adapters.postgres.statements import statement
from notifier.domain.controls import Breaker, BreakerState, Controls, Pause, Scope, ScopeKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Record

    from notifier.domain.notification import WorkerId

CHANNEL = "notifier_controls"
CONNECTIONS: Final = 2
"""How many connections `open_controls` opens at most."""


class PostgresControls:
    """As ports.controls.ControlStore says, for one process. `changed` has one caller at a time."""

    def __init__(self, worker: WorkerId, link: PostgresConnection, listening: Listening) -> None:
        self._worker = worker
        self._link = link
        self._listening = listening

    async def read(self) -> Controls:
        """All pauses that have not expired, and all breakers."""
        async with self._link.acquire() as connection:
            pauses = await connection.fetch(statement("controls_pauses"))
            breakers = await connection.fetch(statement("controls_breakers"), self._worker)
        return Controls(
            pauses=tuple(_pause(row) for row in pauses),
            breakers=tuple(_breaker(row) for row in breakers),
        )

    async def changed(self, within_s: float) -> None:
        """Return when some process changed something, or after `within_s`.

        Also returns when the connection that listens is back: something may have been missed.
        """
        await self._listening.on_outcome(within_s)

    async def pause(self, scope: Scope, *, reason: str, for_s: float | None) -> None:
        """Begin or prolong a pause; None is until resumed."""
        await self._change("pause", scope.kind, scope.name, reason, for_s)

    async def resume(self, scope: Scope) -> bool:
        """End a pause; False if there was none."""
        return await self._change("resume", scope.kind, scope.name)

    async def open_breaker(self, provider: str, reason: str) -> bool:
        """Closed (or no row) -> open."""
        return await self._change("breaker_open", provider, reason)

    async def hold_probe(self, provider: str, within_s: float) -> bool:
        """Open and past its wait, or half-open and past its hold -> half-open, held by us."""
        return await self._change("breaker_hold", provider, self._worker, within_s)

    async def reopen_breaker(self, provider: str, reason: str) -> bool:
        """Half-open and held by this process -> open, the wait doubled."""
        return await self._change("breaker_reopen", provider, self._worker, reason)

    async def close_breaker(self, provider: str) -> bool:
        """Half-open and held by this process -> closed."""
        return await self._change("breaker_close", provider, self._worker)

    async def _change(self, name: str, *args: object) -> bool:
        """Each change answers with one row, that of its notice, if it was made."""
        return bool(await self._link.fetch(statement(name), *args))


def _pause(row: Record) -> Pause:
    return Pause(
        scope=Scope(ScopeKind(row["kind"]), row["name"]),
        reason=row["reason"],
        age_s=row["age_s"],
        expires_in_s=row["expires_in_s"],
    )


def _breaker(row: Record) -> Breaker:
    return Breaker(
        provider=row["provider"],
        state=BreakerState(row["state"]),
        reason=row["reason"],
        openings=row["openings"],
        age_s=row["age_s"],
        probe_in_s=row["probe_in_s"],
        is_mine=row["is_mine"],
    )


@asynccontextmanager
async def open_controls(
    settings: ConnectionSettings, worker: WorkerId
) -> AsyncIterator[PostgresControls]:
    """Two connections of its own: one asks and changes, opened when first used; one listens."""
    stop = asyncio.Event()
    async with open_connection(settings) as link, open_connection(settings) as ear:
        listening = Listening(ear, CHANNEL)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(listening.run(stop), name="controls listen")
            try:
                yield PostgresControls(worker, link, listening)
            finally:
                stop.set()
                task.cancel()
