"""One system of real processes while it is measured: asked through its API, judged by its rows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from harness.client import FINAL, Client, until
from harness.system import Child, System
from notifier.embedded.process import run_steps_async

IN_FLIGHT_LEAST = 20
Held = set[tuple[str, int]]


class TooFewInFlight(Exception):
    """The fault hit too little to prove anything: the round does not count."""


@dataclass(slots=True)
class Run:
    """`workers` are those started and not stopped or killed by us."""

    system: System
    client: Client
    database: str
    broker: str
    workers: list[Child] = field(default_factory=list)

    @property
    def api(self) -> Child:
        return self.system.children[1]

    async def rows(self, sql: str, *values: object) -> Sequence[asyncpg.Record]:
        """On a connection of its own: the last may have died with its server."""
        connection = await asyncpg.connect(self.database)
        try:
            return await connection.fetch(sql, *values)
        finally:
            await connection.close()

    async def number(self, sql: str, *values: object) -> float:
        (row,) = await self.rows(sql, *values)
        return float(row[0] or 0)

    # ---- processes ------------------------------------------------------------------------------

    async def join(self) -> Child:
        """One more worker, ready."""
        child = self.system.spawn_worker()
        await run_steps_async(child.starting())
        self.workers.append(child)
        return child

    def kill(self, child: Child) -> float:
        """SIGKILL; the instant."""
        child.kill()
        self.workers.remove(child)
        return time.time()

    async def stop(self, child: Child) -> float:
        """SIGTERM, and it must exit 0; how many seconds it took."""
        began = time.monotonic()
        self.workers.remove(child)
        await run_steps_async(child.stopping())
        return time.monotonic() - began

    async def identity(self, child: Child) -> UUID:
        """The id of a process that beats."""
        return await self.identity_of(child.pid)

    async def identity_of(self, pid: int) -> UUID:
        """The same of a process that another started."""
        ids = await until(lambda: self.rows("SELECT id FROM workers WHERE pid = $1", pid), bool)
        found: UUID = ids[0]["id"]
        return found

    def logged(self, event: str) -> int:
        """In how many lines of all logs an event stands."""
        return sum(child.log.read_text().count(event) for child in self.system.children)

    # ---- rows -----------------------------------------------------------------------------------

    async def all_final(self, within: float = 180) -> None:
        sql = "SELECT count(*) FROM notifications WHERE status::text <> ALL($1)"
        await until(lambda: self.number(sql, FINAL), lambda left: left == 0, within)

    async def not_sent(self, ids: Sequence[str]) -> int:
        """How many of these do not stand as sent, whether or not they exist."""
        sql = "SELECT count(*) FROM notifications WHERE id = ANY($1) AND status = 'sent'"
        return len(set(ids)) - round(await self.number(sql, _uuids(ids)))

    async def last_change(self, ids: Sequence[str]) -> float:
        """When the last of these came to its status."""
        sql = "SELECT extract(epoch FROM max(updated_at)) FROM notifications WHERE id = ANY($1)"
        return await self.number(sql, _uuids(ids))

    async def sending(self, worker: UUID | None = None) -> Held:
        """What says `sending`, by this worker or by anyone: ids and claims."""
        sql = """SELECT id, claim FROM notifications
                 WHERE status = 'sending' AND ($1::uuid IS NULL OR claimed_by = $1)"""
        return {(str(row["id"]), row["claim"]) for row in await self.rows(sql, worker)}

    async def ambiguous(self) -> set[str]:
        """What has an attempt of which nobody knows what came."""
        rows = await self.rows("SELECT DISTINCT id FROM attempts WHERE outcome = 'ambiguous'")
        return {str(row["id"]) for row in rows}

    async def accepted(self) -> Counter[str]:
        return await self.client.accepted()


def at_least_in_flight(held: Collection[object]) -> int:
    """How many; raises TooFewInFlight."""
    if len(held) < IN_FLIGHT_LEAST:
        raise TooFewInFlight(f"{len(held)} in flight, at least {IN_FLIGHT_LEAST} count")
    return len(held)


async def sleep_until(moment: float) -> None:
    """Until this instant of `time.time()`."""
    await asyncio.sleep(max(0.0, moment - time.time()))


def _uuids(ids: Sequence[str]) -> list[UUID]:
    return [UUID(which) for which in ids]
