"""API processes are killed and answers are lost while keys are submitted again and again.

The date changes meanwhile, and processes that restart are of this version, after an earlier one.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import aiohttp
import asyncpg

from harness.figure import Figure
from harness.system import Child, System
from harness.tcp_proxy import LOOPBACK, Proxies, TcpProxy, open_proxies
from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import run_steps_async
from tests.chaos.arena import Arena
from tests.chaos.earlier import export
from tests.chaos.keyed import POISONED_RECIPIENT, STORED, Answer, Ask, Verdict, judge, requests
from tests.dates import let_tests_choose_the_date, set_date

BASE: Final = "7eca9887e51bad20fda2841a9f12198e30e1f8e5"
"""The commit from which is upgraded: the first one with idempotency keys."""
SUBMITS: Final = 100_000 if os.environ.get("CHAOS_LONG") else 20_000
KILL_EVERY_S, LOSE_EVERY_S, LOST_WITHIN_S = 5.0, 0.7, 1.0
PROCESSES, CALLERS = 4, 24
AGAIN_S, TIMEOUT_S = 0.05, 15.0
MIN_KILLS, RENEWED = 3, 2
TO_REPEAT: Final = frozenset({409, 429, 503})
MIDNIGHT_AT, FIRST_MINUTE_ENDS_AT = 0.35, 0.7
"""The parts of the submits after which the day changes, and after which its first minute ends."""
MIDNIGHT_KEYS, HELD_S = 40, 1.2
"""Keys whose statements are held up over midnight, and for how long before and after it."""
STATEMENT_S: Final = 6.0
"""A statement that began before midnight has ended after so long, and so before that minute has."""
POISON: Final = f"ALTER TABLE notifications ADD CHECK (recipient <> '{POISONED_RECIPIENT}')"
GATE: Final = """
    CREATE FUNCTION pass_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(1);
        RETURN NEW;
    END $$;
    CREATE TRIGGER gate BEFORE INSERT ON notifications FOR EACH ROW EXECUTE FUNCTION pass_gate()
"""
"""Lets a test hold statements up that have stored their keys, and not their notifications."""
HEADER: Final = "Idempotency-Key"


@dataclass(slots=True)
class Process:
    """One API process and the proxies before and behind it."""

    port: int
    database: str
    callers: TcpProxy
    postgres: TcpProxy
    child: Child


@dataclass(slots=True, kw_only=True)
class Counts:
    """What the run had: kills, lost answers, repeats, and the days of the stored keys."""

    kills: int = 0
    lost_to_callers: int = 0
    lost_to_processes: int = 0
    repeats: int = 0
    days: int = 0


class Played(NamedTuple):
    """A run."""

    verdict: Verdict
    counts: Counts


@dataclass(slots=True, kw_only=True)
class Plan:
    """How much is submitted, and how often a process is killed."""

    submits: int
    kill_every_s: float = KILL_EVERY_S
    seed: int = 1


async def idempotency_kills(arena: Arena) -> Sequence[Figure]:
    """The trial of `make chaos`."""
    plan = Plan(submits=SUBMITS)
    verdict, counts = await play(arena.system, arena.place.database, plan)
    return [
        Figure(name="submits answered", value=verdict.answers, low=SUBMITS),
        Figure(name="... keys", value=verdict.keys, low=1),
        Figure(name="... processes killed", value=counts.kills, low=1),
        Figure(name="... answers lost on the way to callers", value=counts.lost_to_callers, low=1),
        Figure(name="... answers of Postgres lost", value=counts.lost_to_processes, low=1),
        Figure(name="... requests repeated", value=counts.repeats, low=1),
        Figure(name="... replays", value=verdict.replays, low=1),
        Figure(name="... 422 for another body", value=verdict.reused, low=1),
        Figure(name="keys with two notifications", value=verdict.doubled, high=0),
        Figure(name="keys with differing answers", value=verdict.differing, high=0),
        Figure(name="answers without a row", value=verdict.without_row, high=0),
        Figure(name="answers that no order explains", value=verdict.wrong, high=0),
        Figure(name="keys without a row", value=verdict.keys_without_row, high=0),
    ]


async def play(system: System, database: str, plan: Plan) -> Played:
    """Submit all, then judge. The database is migrated, and no process has used it."""
    connection = await asyncpg.connect(database)
    try:
        await let_tests_choose_the_date(connection)
        await set_date(connection, _at(1, "23:30"))
        await connection.execute(POISON)
        await connection.execute(GATE)
        code = await asyncio.to_thread(export, BASE, system.folder / f"code-{BASE[:12]}")
        async with _open_processes(system, database, code) as processes:
            run = _Run(system, processes, connection, plan)
            answers = await run.play()
        stored = await _stored(connection)
        keys = await connection.fetchval("SELECT count(DISTINCT key) FROM idempotency_keys")
        days = await connection.fetchval("SELECT count(DISTINCT day) FROM idempotency_keys")
    finally:
        await connection.close()
    run.counts.days = days
    return Played(judge(answers, stored, keys), run.counts)


def _at(days: int, clock: str) -> datetime:
    day = datetime.now(UTC).date() + timedelta(days=days)
    return datetime.combine(day, time.fromisoformat(clock), UTC)


async def _stored(connection: asyncpg.Connection[asyncpg.Record]) -> Mapping[str, Sequence[str]]:
    """The ids of the notifications of each key."""
    found = defaultdict[str, list[str]](list)
    for row in await connection.fetch("SELECT id, metadata FROM notifications"):
        found[json.loads(row["metadata"])["key"]].append(str(row["id"]))
    return found


@asynccontextmanager
async def _open_processes(
    system: System, database: str, code: Path
) -> AsyncIterator[Sequence[Process]]:
    """Run the API processes of the earlier commit; at the end those of then stop."""
    async with open_proxies() as proxies:
        processes = [_spawn(system, database, code, proxies) for _ in range(PROCESSES)]
        for process in processes:
            await run_steps_async(process.child.starting())
        yield processes
        for process in processes:
            await run_steps_async(process.child.starting())  # the last kill may have been just now
            await run_steps_async(process.child.stopping())


def _spawn(system: System, database: str, code: Path, proxies: Proxies) -> Process:
    (port,) = free_ports(1)
    postgres = proxies.open_for(database)
    url = postgres.url(database)
    child = system.spawn_api_at(port, NOTIFIER_DATABASE__URL=url, PYTHONPATH=str(code))
    return Process(port, url, proxies.open(LOOPBACK, port), postgres, child)


class _Run:
    """The callers and the faults of one run."""

    def __init__(
        self,
        system: System,
        processes: Sequence[Process],
        connection: asyncpg.Connection[asyncpg.Record],
        plan: Plan,
    ) -> None:
        self._system = system
        self._processes = processes
        self._connection = connection
        self._plan = plan
        self._random = Random(plan.seed)
        self._requests = list(requests(plan.submits, self._random))
        self._total = len(self._requests)
        self._numbers = count()
        self._answers = list[Answer]()
        self._may_answer = MIDNIGHT_AT
        self._calls = 0
        self._killed: Process | None = None
        self.counts = Counts()

    async def play(self) -> Sequence[Answer]:
        """Answer all requests under the faults, and return the answers."""
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            faults = [
                group.create_task(fault)
                for fault in (self._kill(), self._lose(), self._change_the_day(session))
            ]
            async with asyncio.TaskGroup() as callers:
                for _ in range(CALLERS):
                    callers.create_task(self._call(session))
            for fault in faults:
                fault.cancel()
        return self._answers

    async def _call(self, session: aiohttp.ClientSession) -> None:
        while self._requests:
            after_kills = (self.counts.kills + 1) / MIN_KILLS
            if self._answered_part() > min(after_kills, self._may_answer):
                await asyncio.sleep(AGAIN_S)  # a fast machine would be done before the faults
                continue
            await self._call_with(session, self._requests.pop())

    async def _answer(
        self, session: aiohttp.ClientSession, asks: Sequence[Ask], at: Process | None = None
    ) -> Sequence[Answer]:
        """Repeat a request until it is answered, first at this process and then at any."""
        header = f"batch-{next(self._numbers)}"
        while True:
            try:
                process = at or self._random.choice(self._processes)
                status, document, is_replay = await self._post(session, process, asks, header)
            except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
                status, document, is_replay = 503, {}, False
            if status not in TO_REPEAT:
                break
            self.counts.repeats += 1
            at = None
            await asyncio.sleep(AGAIN_S)
        if len(asks) == 1:
            return [_answered(asks[0], status, document, is_replay=is_replay)]
        return [
            _of_batch(ask, result) for ask, result in zip(asks, document["results"], strict=True)
        ]

    async def _post(
        self, session: aiohttp.ClientSession, process: Process, asks: Sequence[Ask], header: str
    ) -> tuple[int, Any, bool]:
        url = f"http://{LOOPBACK}:{process.callers.port}/v1/notifications"
        if len(asks) == 1:
            body, headers = asks[0].document(), {HEADER: asks[0].key}
        else:
            items = [ask.document() | {"idempotency_key": ask.key} for ask in asks]
            url, body, headers = f"{url}/batch", {"notifications": items}, {HEADER: header}
        async with session.post(url, json=body, headers=headers) as response:
            is_replay = "Idempotent-Replayed" in response.headers
            return response.status, json.loads(await response.read()), is_replay

    async def _kill(self) -> None:
        """Kill one process after the other and start it again, in this version."""
        while True:
            for process in self._processes:
                await asyncio.sleep(self._plan.kill_every_s)
                process.child.kill()
                self._killed = process
                self.counts.kills += 1
                process.child = self._system.spawn_api_at(
                    process.port, NOTIFIER_DATABASE__URL=process.database
                )
                await run_steps_async(process.child.starting())
                self._killed = None

    async def _lose(self) -> None:
        """Drop the answers of one process to its callers, or of Postgres to one process."""
        while True:
            for process in self._processes:
                for proxy in (process.callers, process.postgres):
                    await asyncio.sleep(LOSE_EVERY_S)
                    is_lost = await _lose_answers(proxy)
                    if proxy is process.callers:
                        self.counts.lost_to_callers += is_lost
                    else:
                        self.counts.lost_to_processes += is_lost

    async def _change_the_day(self, session: aiohttp.ClientSession) -> None:
        await self._until_answered(MIDNIGHT_AT)
        # A process that waits at the gate already begins no other statement; two that were
        # started again are of this version.
        while self._calls or self._killed or self.counts.kills < RENEWED:
            await asyncio.sleep(AGAIN_S)
        await self._pass_midnight(session)
        self._may_answer = FIRST_MINUTE_ENDS_AT
        await asyncio.sleep(STATEMENT_S)
        await self._until_answered(FIRST_MINUTE_ENDS_AT)
        if await self._connection.fetchval("SELECT test_clock.now() < $1", _at(2, "00:00:59")):
            await set_date(self._connection, _at(2, "00:00:59"))
        self._may_answer = 1.0

    async def _pass_midnight(self, session: aiohttp.ClientSession) -> None:
        """Submit some keys before and after midnight at once: the gate holds them up."""
        early, late = self._processes[:RENEWED]
        asks = [Ask(f"midnight-{number}") for number in range(MIDNIGHT_KEYS)]
        await set_date(self._connection, _at(1, "23:59:59"))
        async with asyncio.TaskGroup() as group, self._connection.transaction():
            await self._connection.execute("SELECT pg_advisory_xact_lock(1)")
            for process in (early, late):
                group.create_task(self._call_with(session, asks, process))
                await asyncio.sleep(HELD_S)

    async def _call_with(
        self, session: aiohttp.ClientSession, asks: Sequence[Ask], at: Process | None = None
    ) -> None:
        self._calls += 1
        answers = await self._answer(session, asks, at)
        self._calls -= 1
        self._answers += answers

    async def _until_answered(self, part: float) -> None:
        while self._answered_part() < part:
            await asyncio.sleep(AGAIN_S)

    def _answered_part(self) -> float:
        return 1 - len(self._requests) / self._total


async def _lose_answers(proxy: TcpProxy) -> bool:
    proxy.swallow_replies()
    try:
        async with asyncio.timeout(LOST_WITHIN_S):
            await proxy.swallowed.wait()
    except TimeoutError:
        return False
    finally:
        proxy.heal()
    return True


def _answered(ask: Ask, status: int, document: Any, *, is_replay: bool | None) -> Answer:
    if status != STORED:
        return Answer(ask, status)
    return Answer(ask, status, document["id"], document["status"], is_replay)


def _of_batch(ask: Ask, result: Any) -> Answer:
    problem = result.get("problem")
    status = problem["status"] if problem else STORED
    return _answered(ask, status, result, is_replay=None)
