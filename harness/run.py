"""A running system under measurement: its processes, its API and its rows in Postgres."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from harness.client import Client, until
from harness.statuses import UNCLAIMED, on_statuses
from harness.system import Child, System
from notifier.embedded.process import run_steps_async

MIN_IN_FLIGHT = 20
Held = set[tuple[str, int]]


class TooFewInFlight(Exception):
    """Too few notifications were in flight when the fault began; the round does not count."""


@dataclass(slots=True)
class Run:
    """A system, its client and its running workers."""

    system: System
    client: Client
    database: str
    broker: str
    workers: list[Child] = field(default_factory=list)

    @property
    def api(self) -> Child:
        return self.system.children[1]

    async def rows(self, sql: str, *values: object) -> Sequence[asyncpg.Record]:
        """Run a query on a new connection, because the last one may have died with its server."""
        connection = await asyncpg.connect(self.database)
        try:
            return await connection.fetch(sql, *values)
        finally:
            await connection.close()

    async def number(self, sql: str, *values: object) -> float:
        (row,) = await self.rows(sql, *values)
        return float(row[0] or 0)

    async def join(self) -> Child:
        """Start one more worker and wait until it is ready."""
        child = self.system.spawn_worker()
        await run_steps_async(child.starting())
        self.workers.append(child)
        return child

    def kill(self, child: Child) -> float:
        """Send SIGKILL to a worker and return the time of day."""
        child.kill()
        self.workers.remove(child)
        return time.time()

    async def stop(self, child: Child) -> float:
        """Stop a worker with SIGTERM, expect exit code 0, and return the seconds it took."""
        began = time.monotonic()
        self.workers.remove(child)
        await run_steps_async(child.stopping())
        return time.monotonic() - began

    async def identity(self, child: Child) -> UUID:
        """Return the worker id of a process from its heartbeat row."""
        return await self.identity_of(child.pid)

    async def identity_of(self, pid: int) -> UUID:
        """Return the worker id of the process with this pid."""
        ids = await until(lambda: self.rows("SELECT id FROM workers WHERE pid = $1", pid), bool)
        found: UUID = ids[0]["id"]
        return found

    def logged(self, event: str) -> int:
        """Count the lines of all logs that contain an event."""
        return sum(child.log.read_text().count(event) for child in self.system.children)

    async def all_final(self, timeout_s: float = 180) -> None:
        """Wait until no notification waits or is being sent."""
        sql = "SELECT count(*) FROM live"
        await until(lambda: self.number(sql), lambda left: left == 0, timeout_s)

    async def not_sent(self, ids: Sequence[str]) -> int:
        """Count those of these ids whose status is not `sent`."""
        sql = on_statuses("SELECT count(*) FROM statuses WHERE id = ANY($1) AND status = 'sent'")
        return len(set(ids)) - round(await self.number(sql, _uuids(ids)))

    async def last_end(self, ids: Sequence[str]) -> float:
        """Return when the last of these ended: its call, or the row without one."""
        sql = on_statuses("SELECT max(at) FROM statuses WHERE id = ANY($1)")
        return await self.number(sql, _uuids(ids))

    async def sending(self, worker: UUID | None = None) -> Held:
        """Return id and claim of all rows in `sending`, of this worker or of all workers."""
        sql = """SELECT id, claim FROM live
                 WHERE claimed_by <> $2 AND ($1::uuid IS NULL OR claimed_by = $1)"""
        return {(str(row["id"]), row["claim"]) for row in await self.rows(sql, worker, UNCLAIMED)}

    async def ambiguous(self) -> set[str]:
        """Return the ids that have an ambiguous attempt."""
        rows = await self.rows("SELECT DISTINCT id FROM attempts WHERE outcome = 'ambiguous'")
        return {str(row["id"]) for row in rows}

    async def accepted(self) -> Counter[str]:
        return await self.client.accepted()


def at_least_in_flight(held: Collection[object]) -> int:
    """Return how many are in flight. Raises TooFewInFlight below 20."""
    if len(held) < MIN_IN_FLIGHT:
        raise TooFewInFlight(f"{len(held)} in flight, expected at least {MIN_IN_FLIGHT}")
    return len(held)


async def sleep_until(moment: float) -> None:
    """Sleep until `time.time()` reaches this value."""
    await asyncio.sleep(max(0.0, moment - time.time()))


def _uuids(ids: Sequence[str]) -> list[UUID]:
    return [UUID(which) for which in ids]
