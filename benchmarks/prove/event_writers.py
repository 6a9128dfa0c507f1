"""Writes events as fast as a deployment of a given size would: a process of its own.

`python -m benchmarks.prove.event_writers DATABASE_URL SECONDS RATE FILE` reads the ids of
notifications from its input. Eight connections write; a part of their transactions stays open for
up to half a second, and some are rolled back. FILE gets 24 bytes for each event that was committed:
its id, and when the commit had returned, as a float of seconds since the epoch.
"""

from __future__ import annotations

import asyncio
import random
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import asyncpg

from notifier.domain.events import EventType, event_id
from notifier.domain.notification import NotificationId

WRITERS = 8
BATCH = 125
LATE_CHANCE, LATE_S = 0.1, 0.5
ROLLBACK_CHANCE = 0.02
ENTRY = struct.Struct(">16sd")
_WRITE = """
    INSERT INTO event_batches (day, type, ids, claims, tries)
    SELECT (now() AT TIME ZONE 'UTC')::date, $1, $2::uuid[], $3::integer[],
           array_fill(1::smallint, ARRAY[cardinality($2)])
    RETURNING at
"""


def main() -> None:
    url, span_s, rate, path = sys.argv[1:]
    ids = [UUID(line) for line in sys.stdin.read().split()]
    with Path(path).open("wb") as file:
        asyncio.run(_write_all(url, float(span_s), float(rate), ids, file))


async def _write_all(
    url: str, span_s: float, rate: float, ids: Sequence[UUID], file: BinaryIO
) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            own = ids[number::WRITERS]
            work = _write(url, span_s, rate / WRITERS, own, number, file)
            group.create_task(work, name=f"writer {number}")


async def _write(
    url: str, span_s: float, rate: float, ids: Sequence[UUID], seed: int, file: BinaryIO
) -> None:
    chance, connection = random.Random(seed), await asyncpg.connect(url)
    began, due, claim, number = time.monotonic(), 0.0, 0, 0
    late: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        while due < span_s:
            await asyncio.sleep(began + due - time.monotonic())
            due += BATCH / rate
            chosen = [ids[(number + n) % len(ids)] for n in range(BATCH)]
            number += BATCH
            claim += BATCH
            claims = list(range(claim, claim + BATCH))
            if chance.random() < LATE_CHANCE:
                wait_s = chance.random() * LATE_S
                late.add(group.create_task(_late(url, chosen, claims, wait_s, file), name="late"))
                continue
            async with connection.transaction():
                at = await connection.fetchval(_WRITE, EventType.SENT, chosen, claims)
            _note(file, chosen, claims, at)
    await connection.close()


async def _late(
    url: str, ids: Sequence[UUID], claims: Sequence[int], wait_s: float, file: BinaryIO
) -> None:
    """Write in a transaction that is committed later, or not at all."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    at = await connection.fetchval(_WRITE, EventType.SENT, ids, claims)
    await asyncio.sleep(wait_s)
    if wait_s < ROLLBACK_CHANCE * LATE_S:
        await transaction.rollback()
    else:
        await transaction.commit()
        _note(file, ids, claims, at)
    await connection.close()


def _note(file: BinaryIO, ids: Sequence[UUID], claims: Sequence[int], at: object) -> None:
    committed_at = time.time()
    for id_, claim in zip(ids, claims, strict=True):
        key = event_id(EventType.SENT, NotificationId(id_), claim, at)  # type: ignore[arg-type]
        file.write(ENTRY.pack(key.bytes, committed_at))


if __name__ == "__main__":
    main()
