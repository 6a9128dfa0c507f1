"""A key is revoked under load, while the API processes hear of it or hear nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from harness.client import Client, open_client, submit_body, until
from notifier.adapters.postgres.connection import ConnectionSettings, open_connection
from notifier.adapters.postgres.keys import PostgresKeys
from notifier.domain.credentials import ENTROPY_BYTES, Credential, Mode, new_credential
from notifier.domain.keys import KeyScope, NewKey
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import run_steps_async
from notifier.ports.keys import Author
from tests.chaos.load import Load
from tests.chaos.processes import PROCESS_S
from tests.chaos.round import RATE, Fault, Round

REFUSED_WITHIN_S: Final = 5.0
"""The promise of a revoked key."""
USED_S, WATCHED_S = 2.0, 8.0
"""For how long the key is used before it is revoked, and after that."""
CALLERS, PAUSE_S = 3, 0.05
NOTIFIED, SILENT, LOST = "notified", "listener silent", "listener lost"
ACCEPTED, REFUSED = 202, 401
REVOKER: Final = Author(actor="cli:chaos")
LISTENERS: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'LISTEN%notifier_keys%'
"""
CLOSE_LISTENERS: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND (query LIKE 'LISTEN%' OR query = 'SELECT')
"""
"""After 10 s a listener shows the query by which it checks its connection."""


class Answered(NamedTuple):
    """The answer to one submit, and when it was asked and answered."""

    asked_at: float
    at: float
    status: int


@dataclass(slots=True)
class Callers:
    """Submit one by one with the key to one process."""

    client: Client
    load: Load
    answers: list[Answered] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Submit until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(self._call(), name=f"caller with the key {number}")

    async def _call(self) -> None:
        while True:
            asked_at = time.time()
            body = submit_body(self.load.random.choice(self.load.queues))
            status, _, document = await self.client.post(body)
            self.answers.append(Answered(asked_at, time.time(), status))
            if status == ACCEPTED:
                self.accepted.add(document["id"])
                self.load.accepted[document["id"]] = "ok"
                self.load.asked_at[document["id"]] = asked_at
            await asyncio.sleep(PAUSE_S)

    @property
    def refused_at(self) -> float:
        """When the first 401 arrived; infinity if none did."""
        return min((each.at for each in self.answers if each.status == REFUSED), default=inf)


async def key_revoked(round_: Round) -> float:
    """Revoke a key that is in use at two API processes; the load goes on with another key."""
    async with AsyncExitStack() as exits:
        keys = await exits.enter_async_context(_open_keys(round_))
        credential = await _create(keys)
        api, sandbox = round_.arena.system.api_url, round_.arena.system.sandbox_url
        other = await exits.enter_async_context(_second_api(round_))
        callers = []
        for url in (api, other):
            client = await exits.enter_async_context(open_client(url, sandbox))
            client.key = credential.text
            callers.append(Callers(client, round_.load))
        beside = await exits.enter_async_context(open_client(other, sandbox))
        beside.key = round_.arena.run.client.key
        load = Load(beside, round_.random, RATE / 2)
        async with asyncio.TaskGroup() as group:
            coroutines = [load.run(), *(each.run() for each in callers)]
            running = [group.create_task(each) for each in coroutines]
            await asyncio.sleep(USED_S)
            await round_.aim("queued", "sending")
            round_.hit(round_.held & callers[0].accepted.union(callers[1].accepted))
            async with _listeners(round_, len(callers)):
                revoked_at = time.time()
                await keys.revoke(credential.id, REVOKER, tenant=None)
                await asyncio.sleep(WATCHED_S)
            for task in running:
                task.cancel()
    round_.load.accepted |= load.accepted
    round_.load.asked_at |= load.asked_at
    round_.load.unanswered += load.unanswered
    for each in callers:
        _require_refused(round_, each, revoked_at)
    return revoked_at


def _require_refused(round_: Round, callers: Callers, revoked_at: float) -> None:
    refused_at = callers.refused_at
    late = [
        each
        for each in callers.answers
        if each.status == ACCEPTED
        and each.asked_at > min(refused_at, revoked_at + REFUSED_WITHIN_S)
    ]
    round_.require(f"{len(late)} accepted with the revoked key", holds=not late)
    others = {each.status for each in callers.answers} - {ACCEPTED, REFUSED}
    round_.require(f"a submit with the key got {sorted(others)}", holds=not others)
    after_s = refused_at - revoked_at
    round_.require(
        f"the key was refused after {after_s:.2f} s", holds=0 <= after_s <= REFUSED_WITHIN_S
    )
    round_.found.append(
        f"{len(callers.accepted)} accepted with the key, refused {after_s:.2f} s after it was "
        f"revoked, {sum(each.status == REFUSED for each in callers.answers)} times"
    )


@asynccontextmanager
async def _open_keys(round_: Round) -> AsyncIterator[PostgresKeys]:
    """Yield the keys as `notifier keys --database` has them: no API process is told."""
    settings = ConnectionSettings(url=round_.arena.place.database)
    async with open_connection(settings) as connection:
        yield PostgresKeys(connection)


async def _create(keys: PostgresKeys) -> Credential:
    credential = new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES))
    new = NewKey(tenant=DEFAULT_TENANT, mode=Mode.LIVE, scopes=(KeyScope.SUBMIT,))
    await keys.create(new, credential, REVOKER)
    return credential


@asynccontextmanager
async def _second_api(round_: Round) -> AsyncIterator[str]:
    """Run one more API process, and yield its URL."""
    (port,) = free_ports(1)
    child = round_.arena.system.spawn_api_at(port)
    await run_steps_async(child.starting())
    yield child.url
    await run_steps_async(child.stopping())


@asynccontextmanager
async def _listeners(round_: Round, count: int) -> AsyncIterator[None]:
    """Break the connections that listen for changed keys, as the variant says."""
    run, frozen = round_.arena.run, list[int]()
    if round_.variant != NOTIFIED:
        await run.rows(CLOSE_LISTENERS)
        found = await until(lambda: run.rows(LISTENERS), lambda rows: len(rows) == count)
        if round_.variant == LOST:
            await run.rows(CLOSE_LISTENERS)
        else:
            frozen = [row["pid"] for row in found]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


async def nobody_else_was_refused(round_: Round) -> None:
    """Check that callers with the other key noticed nothing."""
    refused = round_.load.unanswered
    round_.require(f"{refused} with the other key were refused", holds=not refused)


REVOKED: Final = (
    Fault(
        strike=key_revoked,
        timeout_s=PROCESS_S,
        keyed=True,
        variants=(NOTIFIED, SILENT, LOST),
        check=nobody_else_was_refused,
        text="A key that is in use at two API processes is revoked in the database, while others "
        "go on with another key. In turn the processes are notified, or the connections over which "
        "they listen are silent, or just lost. Each process answers 401 within "
        f"{REFUSED_WITHIN_S:g} s and accepts nothing with the key after that; what it accepted "
        "before is sent. Counted from the revocation.",
    ),
)
