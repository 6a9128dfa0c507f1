"""Streams of events under load: nothing missed, nothing twice, and how far behind they are."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg

from benchmarks.prove.event_writers import ENTRY
from harness.client import submit_body
from harness.figure import Figure
from harness.judge import percentile
from harness.run import Run
from harness.stack import Stack

SPAN_S = 300.0
RATE = 10_000.0
STREAMS = 50
NOTIFICATIONS = 5_000
KILL_EVERY_S = 0.5
"""How often one of the streams is cut off."""
SETTLE_S = 20.0
LAG_S = 0.5
SUBMIT_S = 15.0
SUBMITTERS = 32
SUBMIT_RATIO = 0.9


async def events(stack: Stack) -> Sequence[Figure]:
    """10,000 events per second for 5 minutes to 50 streams, each of one tag.

    Eight writers; a tenth of their transactions is committed late. A transaction of this database
    and one of another are open throughout. Every half second a stream is cut off and resumes. Lag
    is counted from the end of the commit until the reader has the event. Then the rate of submits
    is measured beside 50 silent streams, and without events.
    """
    async with stack.running() as run:
        ids = await _stored(run)
        received = [dict[bytes, float]() for _ in range(STREAMS)]
        repeated: list[int] = []
        stop = asyncio.Event()
        file = run.system.folder / "written"
        async with _open_elsewhere(stack, run), asyncio.TaskGroup() as group:
            for number in range(STREAMS):
                reader = _read(run, number, received[number], repeated, stop)
                group.create_task(reader, name=f"stream {number}")
            await _write(run, ids, file)
            await asyncio.sleep(SETTLE_S)
            stop.set()
        written = _written(file)
        with_streams = await _submits_beside_streams(run)
    async with stack.running(events__enabled=False) as run:
        without = await _submits(run)
    got: dict[bytes, float] = {}
    for each in received:
        got |= each
    lags = [got[key] - at for key, at in written.items() if key in got]
    return [
        Figure(name="events written", value=len(written)),
        Figure(name="... missed", value=len(written.keys() - got.keys()), high=0),
        Figure(name="... twice", value=len(repeated), high=0),
        Figure(
            name="... that were never committed", value=len(got.keys() - written.keys()), high=0
        ),
        Figure(name="lag: p99", value=percentile(lags, 0.99), unit="s", high=LAG_S),
        Figure(name="... p50", value=percentile(lags, 0.5), unit="s"),
        Figure(
            name=f"submits beside {STREAMS} streams against none and no events",
            value=with_streams / without,
            unit="x",
            low=SUBMIT_RATIO,
        ),
    ]


async def _stored(run: Run) -> Sequence[str]:
    """Submit notifications, a hundredth of them for each tag, to a channel that is paused."""
    await run.client.hold("pause", "channel", "email")
    bodies = [
        {**submit_body("email.low"), "tag": f"tag-{number % STREAMS}"}
        for number in range(NOTIFICATIONS)
    ]
    return await run.client.submit(bodies)


@asynccontextmanager
async def _open_elsewhere(stack: Stack, run: Run) -> AsyncIterator[None]:
    """Two transactions that write and stay open: here and in another database."""
    connections = [await asyncpg.connect(url) for url in (run.database, stack.postgres.url())]
    for connection in connections:
        await connection.execute("BEGIN; CREATE TEMP TABLE open (n int)")
    try:
        yield
    finally:
        for connection in connections:
            await connection.close()


async def _write(run: Run, ids: Sequence[str], file: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.prove.event_writers"),
        *(run.database, str(SPAN_S), str(RATE), str(file)),
        stdin=asyncio.subprocess.PIPE,
    )
    await process.communicate("\n".join(ids).encode())
    if process.returncode:
        raise RuntimeError(f"the writers ended with {process.returncode}")


def _written(file: Path) -> dict[bytes, float]:
    return dict(ENTRY.iter_unpack(file.read_bytes()))


async def _read(
    run: Run, number: int, received: dict[bytes, float], repeated: list[int], stop: asyncio.Event
) -> None:
    """Read one stream, cut it off now and then, and resume behind the last id."""
    chance, last_id = random.Random(number), ""
    async with aiohttp.ClientSession() as session:
        while not stop.is_set():
            span_s = chance.expovariate(1 / (KILL_EVERY_S * STREAMS))
            with suppress(TimeoutError, aiohttp.ClientError, asyncio.IncompleteReadError):
                async with (
                    asyncio.timeout(span_s),
                    _frames(session, run, number, last_id) as frames,
                ):
                    async for id_, key in frames:
                        last_id = id_
                        if key is None:
                            continue
                        if key in received:
                            repeated.append(number)
                        received[key] = time.time()


@asynccontextmanager
async def _frames(
    session: aiohttp.ClientSession, run: Run, number: int, last_id: str
) -> AsyncIterator[AsyncIterator[tuple[str, bytes | None]]]:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
    url = f"{run.system.api_url}/v1/events"
    timeout = aiohttp.ClientTimeout(total=None)
    async with session.get(
        url,
        params={"tag": f"tag-{number}"},
        headers=headers,
        timeout=timeout,
        raise_for_status=True,
        read_bufsize=2**22,
    ) as response:
        yield _parsed(response)


async def _parsed(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, bytes | None]]:
    while frame := await response.content.readuntil(b"\n\n"):
        fields = dict(line.partition(b": ")[::2] for line in frame.splitlines())
        data = fields.get(b"data")
        key = None if data is None else UUID(data[7:43].decode()).bytes  # {"id":"..."
        if b"id" in fields:
            yield fields[b"id"].decode(), key


async def _submits_beside_streams(run: Run) -> float:
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_hold(session, run, number), name=f"stream {number}")
            for number in range(STREAMS)
        ]
        rate = await _submits(run)
        for task in tasks:
            task.cancel()
    return rate


async def _hold(session: aiohttp.ClientSession, run: Run, number: int) -> None:
    async with _frames(session, run, number, "") as frames:
        async for _ in frames:
            pass


async def _submits(run: Run) -> float:
    """Return how many single submits per second are accepted, of low priority and not yet due."""
    until, count = time.monotonic() + SUBMIT_S, 0
    body = submit_body("sms.low", send_at="2027-06-01T00:00:00Z")

    async def submit() -> None:
        nonlocal count
        while time.monotonic() < until:
            await run.client.submit_one(body)
            count += 1

    async with asyncio.TaskGroup() as group:
        for number in range(SUBMITTERS):
            group.create_task(submit(), name=f"submits {number}")
    return count / SUBMIT_S
