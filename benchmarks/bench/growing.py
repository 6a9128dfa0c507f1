"""Drain workloads by number of processes, and by rows of the past in the database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import asyncpg

from benchmarks.bench.curve import Figures, throughput
from benchmarks.bench.draining import AT_ITS_BEST, drain, watch
from benchmarks.bench.place import Place, Servers
from benchmarks.bench.systems import NOTIFIER, a_notification
from benchmarks.prove.bulk import BYTES_EACH, HISTORY, days

PROCESSES = (1, 2, 4)
MILLION = 1_000_000
MILLIONS = (0, 1, 2, 4, 7, 10)
TEMPLATES = 9
INSERT_WITHIN = timedelta(minutes=10)


def processes(servers: Servers, count: int) -> Figures:
    """No-op sends with 1, 2 and 4 worker processes."""
    return {
        f"{number}_per_s": drain(servers, NOTIFIER, count, replace(AT_ITS_BEST, processes=number))[
            "per_s"
        ]
        for number in PROCESSES
    }


def rows(servers: Servers, count: int) -> Figures:
    """No-op sends by 2 workers beside 0 to 10 million sent notifications of seven days.

    The past consists of copies with their attempts, with fresh statistics. The last figure is the
    bytes per notification, with indexes and attempt.
    """
    with servers.place() as place:
        _drained(place, TEMPLATES)
        copied = [row[0] for row in asyncio.run(_ask(place, "SELECT id FROM notifications"))]
        figures, there = dict[str, float](), 0
        for millions in MILLIONS:
            asyncio.run(_age(place, copied, millions * MILLION - there))
            there = millions * MILLION
            figures[f"{millions}_per_s"] = _drained(place, count)
        (size,) = asyncio.run(_ask(place, BYTES_EACH))
    return {**figures, "bytes": float(size[0])}


def _drained(place: Place, count: int) -> float:
    place.log.write_bytes(b"")
    NOTIFIER.fill(place, AT_ITS_BEST, [a_notification()] * count)
    NOTIFIER.work(place, AT_ITS_BEST)
    samples = watch(place, count)
    place.children.stop()
    return throughput(samples, count)


async def _age(place: Place, copied: list[UUID], count: int) -> None:
    if count:
        await _ask(place, days(7))
    for _ in range(count // MILLION):
        await _ask(place, HISTORY, copied, MILLION)
    for words in ("VACUUM (ANALYZE) notifications, attempts", "CHECKPOINT"):
        await _ask(place, words)


async def _ask(place: Place, sql: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(place.database_url)
    try:
        return await connection.fetch(sql, *values, timeout=INSERT_WITHIN.total_seconds())
    finally:
        await connection.close()
