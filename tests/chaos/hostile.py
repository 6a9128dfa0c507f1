"""Attacks by hostile clients; other clients must be served meanwhile."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from harness.client import submit_body
from harness.figure import Figure
from harness.judge import percentile
from tests.chaos.arena import Arena
from tests.chaos.memory import resident_mb

WATCHED_S: Final = 45.0
POLL_INTERVAL_S, REQUEST_TIMEOUT_S = 0.1, 5.0
HEAD: Final = b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNK: Final = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
OPEN_FILES: Final = 1024
"""The default limit of open files under a service manager."""

MIN_REQUESTS: Final = 50
"""Requests of other clients during the attack."""
TOO_SLOW, TOO_LARGE, HEAD_TOO_LARGE, OVERLOADED = 408, 413, 431, 503

Attack = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def slow_heads(arena: Arena) -> Sequence[Figure]:
    """Each client sends one byte of a header per second."""
    return await _attacked(arena, 500, _slow_head, {TOO_SLOW})


async def idle_connections(arena: Arena) -> Sequence[Figure]:
    """5,000 clients connect and send nothing; the process may open 1,024 files."""
    resource.prlimit(arena.api.pid, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    return await _attacked(arena, 5_000, _nothing, {TOO_SLOW})


async def endless_bodies(arena: Arena) -> Sequence[Figure]:
    """Each client sends an endless body at full speed; few may hold so much at once."""
    return await _attacked(arena, 20, _endless, {TOO_LARGE, OVERLOADED})


async def slow_bodies(arena: Arena) -> Sequence[Figure]:
    """Each client sends one byte of a body per second."""
    return await _attacked(arena, 500, _slow_body, {TOO_SLOW})


async def many_headers(arena: Arena) -> Sequence[Figure]:
    """Each client sends 10,000 headers in one request."""
    return await _attacked(arena, 50, _headers, {HEAD_TOO_LARGE})


async def _slow_head(writer: asyncio.StreamWriter) -> None:
    await _drip(writer, HEAD + b"X-Slow: ", b"a")


async def _nothing(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(CHUNK)
        await writer.drain()


async def _slow_body(writer: asyncio.StreamWriter) -> None:
    await _drip(writer, HEAD + b"Content-Length: 5000\r\n\r\n", b" ")


async def _drip(writer: asyncio.StreamWriter, first: bytes, drop: bytes) -> None:
    """Write `first`, then one byte per second forever."""
    writer.write(first)
    while True:
        writer.write(drop)
        await writer.drain()
        await asyncio.sleep(1)


async def _headers(writer: asyncio.StreamWriter) -> None:
    fields = b"".join(b"X-%d: aaaaaaaaaaaaaaaa\r\n" % number for number in range(10_000))
    writer.write(HEAD + fields + b"Content-Length: 2\r\n\r\n{}")
    await writer.drain()
    await asyncio.Event().wait()


async def _attacked(
    arena: Arena, count: int, attack: Attack, expected: Collection[int]
) -> Sequence[Figure]:
    _allow_files(count)
    idle_mb, peak_mb = resident_mb(arena.api.pid), 0.0
    waits, failed = list[float](), 0
    async with _attackers(arena, count, attack) as attackers:
        deadline = time.monotonic() + WATCHED_S
        while time.monotonic() < deadline and (attackers.connected or len(waits) < MIN_REQUESTS):
            wait_s, is_served = await _ask(arena)
            waits.append(wait_s)
            failed += not is_served
            peak_mb = max(peak_mb, resident_mb(arena.api.pid))
            await asyncio.sleep(POLL_INTERVAL_S)
        left = attackers.connected
    otherwise = sum(status not in expected for status in attackers.statuses)
    return [
        Figure(
            name=f"{count} hostile callers: still connected after {WATCHED_S:g} s",
            value=left,
            high=0,
        ),
        Figure(name="... answered with another status than expected", value=otherwise, high=0),
        Figure(name="... requests of other callers not served", value=failed, high=0),
        Figure(name="... p99 of other callers", value=percentile(waits, 0.99), unit="s", high=1),
        Figure(
            name="... peak memory of the API, compared with idle",
            value=peak_mb / idle_mb,
            unit="x",
            high=2,
        ),
    ]


async def _ask(arena: Arena) -> tuple[float, bool]:
    """Submit once on a new connection; return its seconds and whether it got a 202."""
    began = time.monotonic()
    url, timeout = (
        f"{arena.run.client.api}/v1/notifications",
        aiohttp.ClientTimeout(REQUEST_TIMEOUT_S),
    )
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=submit_body()) as answer,
        ):
            return time.monotonic() - began, answer.status == 202
    except (aiohttp.ClientError, TimeoutError):
        return time.monotonic() - began, False


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + OPEN_FILES, hard), hard))


@dataclass(slots=True)
class Attackers:
    """Counts the connected clients and collects the statuses they got."""

    connected: int = 0
    statuses: list[int] = field(default_factory=list)

    async def strike(self, port: int, attack: Attack) -> None:
        """Run one client until the server closes its connection."""
        self.connected += 1
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await self._converse(reader, writer, attack)
            finally:
                writer.transport.abort()
        except* OSError:  # a reset closes it too
            pass
        finally:
            self.connected -= 1

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, attack: Attack
    ) -> None:
        async with asyncio.TaskGroup() as group:
            attacking = group.create_task(_quietly(attack(writer)))
            first = await reader.readline()
            if first.startswith(b"HTTP/1.1 "):
                self.statuses.append(int(first.split()[1]))
            while await reader.read(1000):
                pass
            attacking.cancel()


async def _quietly(work: Awaitable[None]) -> None:
    with suppress(OSError):
        await work


@asynccontextmanager
async def _attackers(arena: Arena, count: int, attack: Attack) -> AsyncIterator[Attackers]:
    """Run the attackers during the block."""
    port, attackers = arena.system.api_port, Attackers()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attackers.strike(port, attack)) for _ in range(count)]
        await asyncio.sleep(POLL_INTERVAL_S)
        yield attackers
        for task in tasks:
            task.cancel()
