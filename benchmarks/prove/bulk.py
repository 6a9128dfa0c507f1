"""Bulk rows in Postgres: copies of rows that the API itself stored."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from harness.client import submit_body
from harness.run import Run

WAITING = """
    INSERT INTO notifications (id, tenant, queue, recipient, content, metadata, max_tries, status,
                               ready_at, due_at, expires_at)
    SELECT (left(uuid_at(now())::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid,
           tenant, queue, recipient, content, metadata, max_tries, 'queued',
           now(), now(), now() + (expires_at - created_at)
    FROM generate_series(1, $2::integer) AS n
    JOIN notifications ON id = ($1::uuid[])[1 + n % cardinality($1::uuid[])]"""

_DAYS = """
    DO $$ DECLARE parent text; child text; day date; BEGIN
        FOREACH parent IN ARRAY ARRAY['notifications', 'attempts', 'failures'] LOOP
            FOR n IN 2..{last} LOOP
                day := (now() AT TIME ZONE 'UTC')::date - n;
                child := parent || '_' || to_char(day, 'YYYYMMDD');
                EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I '
                               'FOR VALUES FROM (%L) TO (%L)',
                               child, parent, uuid_at(day_start(day)), uuid_at(day_start(day + 1)));
            END LOOP;
        END LOOP;
    END $$"""


def days(last: int) -> str:
    """Creates the daily partitions of the past, as far back as `days`."""
    return _DAYS.format(last=last)


HISTORY = """
    WITH past AS (
        SELECT now() - interval '7 days' * (1 - n / $2::float8) AS at,
               ($1::uuid[])[1 + n % cardinality($1::uuid[])] AS copied
        FROM generate_series(0, $2::integer - 1) AS n
    ), ids AS MATERIALIZED (
        SELECT (left(uuid_at(at)::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid
               AS new_id, * FROM past
    ), sent AS (
        INSERT INTO notifications (id, created_at, updated_at, expires_at, ready_at, published_at,
                                   claim, tries, is_retry, status, tenant, queue, recipient,
                                   content, metadata)
        SELECT new_id, at, at, at + (expires_at - created_at), at, at,
               claim, tries, is_retry, status, tenant, queue, recipient, content, metadata
        FROM ids JOIN notifications ON id = copied
    )
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s,
                          provider, outcome, code, detail, reference)
    SELECT new_id, claim, recorded_by, at, at, queue_wait_s,
           provider, outcome, code, detail, reference
    FROM ids JOIN attempts ON id = copied"""


BYTES_EACH = """
    SELECT sum(pg_total_relation_size(relid)) / (SELECT count(*) FROM notifications)
    FROM unnest(ARRAY['notifications', 'attempts', 'failures']) AS parent,
         pg_partition_tree(parent::regclass)"""
"""Bytes per notification, with its indexes and attempts."""


async def templates(run: Run, queues: Sequence[str]) -> list[UUID]:
    """Submit one notification to each queue, wait until they are sent, and return the ids."""
    ids = await run.client.submit([submit_body(queue) for queue in queues])
    await run.all_final()
    return [UUID(which) for which in ids]


async def insert_waiting(run: Run, copied: Sequence[UUID], count: int) -> None:
    """Insert `count` waiting copies of these, in turn."""
    await run.rows(WAITING, copied, count)


async def insert_history(run: Run, copied: Sequence[UUID], count: int) -> None:
    """Insert `count` sent copies of these, spread evenly over the last seven days."""
    await run.rows(days(7))
    await run.rows(HISTORY, copied, count)


async def settle(run: Run) -> None:
    """Vacuum and analyze, as a server does during the hours in which such a load grows."""
    await run.rows("VACUUM (ANALYZE) notifications, attempts")
    await run.rows("CHECKPOINT")
