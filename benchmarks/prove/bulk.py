"""Rows by the hundred thousand, straight into Postgres: copies of what the API stored itself."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from benchmarks.prove.run import Run
from tests.e2e.client import an_order

WAITING = """
    INSERT INTO notifications (id, tenant, queue, recipient, content, metadata, max_tries, status,
                               ready_at, due_at, expires_at)
    SELECT (left(uuid_at(now())::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid,
           tenant, queue, recipient, content, metadata, max_tries, 'queued',
           now(), now(), now() + (expires_at - created_at)
    FROM generate_series(1, $2::integer) AS n
    JOIN notifications ON id = ($1::uuid[])[1 + n % cardinality($1::uuid[])]"""


async def templates(run: Run, queues: Sequence[str]) -> list[UUID]:
    """One notification of each of these queues, submitted and sent."""
    ids = await run.client.submit([an_order(queue) for queue in queues])
    await run.all_final()
    return [UUID(which) for which in ids]


async def insert_waiting(run: Run, copied: Sequence[UUID], count: int) -> None:
    """So many more wait, in turn like these."""
    await run.rows(WAITING, copied, count)


async def settle(run: Run) -> None:
    """What a server would have done by itself in the hours that such a load takes to come."""
    await run.rows("VACUUM (ANALYZE) notifications, attempts")
    await run.rows("CHECKPOINT")
