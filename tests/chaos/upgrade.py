"""The rolling upgrade: processes of an earlier commit are replaced in turn, under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from math import inf
from typing import Final
from uuid import UUID

import asyncpg

from benchmarks.prove.bulk import insert_waiting
from harness.client import QUEUES, Client, open_client, submit_body
from harness.judge import doubled, times_accepted
from harness.statuses import on_statuses
from notifier.domain.notification import WAITING, Status
from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import run_steps_async
from tests.chaos.load import Load
from tests.chaos.mails import mails
from tests.chaos.newer import PUBLIC_URL, NewerLoad, newer_load, require_as_submitted
from tests.chaos.round import RATE, Fault, Round

BASE: Final = "4f534ed62a19be967c794c24e41a5bb60f891c7e"
"""The commit from which is upgraded: schema 0005, before outcomes that know whose fault it is."""
BACKLOG: Final = "push.low"
COUNT: Final = 100_000
BACKLOG_LATENCY_MS: Final = 150
OTHER_QUEUES: Final = tuple(queue for queue in QUEUES if queue != BACKLOG)
BESIDE_S: Final = 4.0
"""For how long both versions work side by side in each step."""
UPGRADE_S: Final = 30.0
READ: Final = 20
"""How many notifications each version reads that the other one stored."""
WORKERS_FIRST, API_FIRST = "workers first", "API first"
UNREADABLE: Final = (
    "heartbeat_unreadable",
    "lease_progress_unreadable",
    "message_unreadable",
    "Traceback",
)
"""What a version logs that does not understand the other one."""
BACKLOG_ROWS: Final = on_statuses(
    "SELECT id, status, is_ambiguous OR is_late AS is_marked FROM statuses WHERE queue = $1"
)


async def rolling_upgrade(round_: Round) -> float:
    """Migrate, let both versions work side by side, and stop the old processes in turn."""
    await _submit_backlog(round_)
    await asyncio.sleep(BESIDE_S)
    await round_.aim("queued", "sending")
    await _migrate(round_)
    await asyncio.sleep(BESIDE_S)
    # What starts from now on is of this version.
    round_.arena.environ = {**round_.arena.newer, "NOTIFIER_API__PUBLIC_URL": PUBLIC_URL}
    async with AsyncExitStack() as exits:
        if round_.variant == WORKERS_FIRST:
            left_at = await _replace_workers(round_)
            newer = await _replace_api(round_, exits)
        else:
            newer = await _replace_api(round_, exits)
            left_at = await _replace_workers(round_)
        await asyncio.sleep(BESIDE_S)
    newer.require_by_features(left_at, is_refused=round_.variant == API_FIRST)
    return time.time()


async def _submit_backlog(round_: Round) -> None:
    """Let 100,000 notifications wait in one queue; the load goes to the others."""
    run = round_.arena.run
    await run.client.set_behaviour(channel="push", latency_ms=BACKLOG_LATENCY_MS)
    (copied,) = await round_.load.submit([submit_body(BACKLOG)])
    await insert_waiting(run, [UUID(copied)], COUNT)


async def _migrate(round_: Round) -> None:
    began = time.monotonic()
    done = await asyncio.to_thread(round_.arena.system.run, "migrate")
    round_.require(f"the migration ended with 0: {done.stderr}", holds=done.returncode == 0)
    applied = " ".join(done.stdout.split())
    round_.found.append(f"migrated in {time.monotonic() - began:.1f} s: {applied}")


async def _replace_workers(round_: Round) -> float:
    """Let a new worker join, then stop an old one, and so on; return when the last one was told."""
    arena, told_at = round_.arena, inf
    for child in list(arena.run.workers):
        await arena.join()
        await asyncio.sleep(BESIDE_S)
        told_at = time.time()
        await arena.run.stop(child)
    return told_at


async def _replace_api(round_: Round, exits: AsyncExitStack) -> NewerLoad:
    """Run a new API beside the old one, then stop the old one and start a new one at its port.

    The one beside goes on until the exits, and gets what only new workers understand.
    """
    arena = round_.arena
    client = await exits.enter_async_context(_api_beside(round_))
    newer = await exits.enter_async_context(newer_load(client, round_))
    beside = Load(client, round_.random, RATE / 2, queues=OTHER_QUEUES)
    with suppress(TimeoutError):
        async with asyncio.timeout(BESIDE_S):
            await beside.run()
    await _read(arena.run.client, list(beside.accepted)[:READ])
    await _read(client, list(round_.load.accepted)[:READ])
    round_.load.accepted |= beside.accepted
    round_.load.asked_at |= beside.asked_at
    round_.require("the API beside accepted", holds=len(beside.accepted) > 0)
    await arena.start_api()
    return newer


@asynccontextmanager
async def _api_beside(round_: Round) -> AsyncIterator[Client]:
    system = round_.arena.system
    (port,) = free_ports(1)
    child = system.spawn_api_at(port, **round_.arena.environ)
    await run_steps_async(child.starting())
    async with open_client(child.url, system.sandbox_url) as client:
        yield client
    await run_steps_async(child.stopping())


async def _read(client: Client, ids: Iterable[str]) -> None:
    for which in ids:
        await client.notification(which)


async def nothing_is_missing(round_: Round) -> None:
    """Check backlog and mails once no worker runs, and that no process was confused."""
    arena = round_.arena
    for child in list(arena.run.workers):
        await arena.run.stop(child)
    rows = {
        str(row["id"]): row
        for row in await arena.run.rows(BACKLOG_ROWS, BACKLOG)
        if str(row["id"]) not in round_.load.accepted  # those are judged with the load
    }
    times = times_accepted(await arena.run.client.log(channel="push"))
    _require_whole(round_, rows, {which: times[which] for which in rows if times[which]})
    require_as_submitted(round_, mails(arena.mail_sessions))
    round_.require("no process ended by itself", holds=not arena.ended)
    for event in UNREADABLE:
        round_.require(f"no process logged {event}", holds=arena.run.logged(event) == 0)


def _require_whole(
    round_: Round,
    rows: Mapping[str, asyncpg.Record],
    called: Mapping[str, int],
) -> None:
    sent = {which for which, row in rows.items() if row["status"] == Status.SENT}
    waiting = {which for which, row in rows.items() if row["status"] in WAITING}
    marked = {which for which, row in rows.items() if row["is_marked"]}
    lost = len(rows) - len(sent) - len(waiting) + len(sent - set(called))
    unmarked = (doubled(called) | (set(called) - sent)) - marked
    round_.require(f"{lost} of the backlog were lost", holds=lost == 0)
    round_.require(f"{len(unmarked)} of the backlog were doubled", holds=not unmarked)
    round_.require(f"{len(rows)} of the backlog are stored", holds=len(rows) == COUNT)
    round_.found.append(f"of {len(rows)} that waited {len(sent)} were sent")


UPGRADE: Final = (
    Fault(
        strike=rolling_upgrade,
        timeout_s=UPGRADE_S,
        variants=(WORKERS_FIRST, API_FIRST),
        upgrades_from=BASE,
        queues=OTHER_QUEUES,
        check=nothing_is_missing,
        text="API and two workers of an earlier commit run while 100,000 notifications wait. "
        "`notifier migrate` of this version runs beside them, then they are replaced one after the "
        "other: in turn the workers or the API first. A new API refuses what an old worker would "
        "leave out of a mail until the last of them has left. Every mail arrives as submitted.",
    ),
)
