"""Bulk rows in Postgres: copies of rows that the API itself stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from harness.client import submit_body
from harness.run import Run

WAITING = """
    WITH copies AS MATERIALIZED (
        SELECT (left(uuid_at(now())::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid
               AS new_id, n, now() + coalesce($3::interval, expires_at - created_at) AS ends_at,
               tenant, queue, recipient, content, metadata, max_tries
        FROM generate_series(1, $2::integer) AS n
        JOIN notifications ON id = ($1::uuid[])[1 + n % cardinality($1::uuid[])]
    ), stored AS (
        INSERT INTO notifications (id, expires_at, tenant, queue, max_tries, recipient, content,
                                   metadata)
        SELECT new_id, ends_at, tenant, queue, max_tries, recipient, content, metadata FROM copies
    )
    INSERT INTO live (id, queue, class, created_at, due_at, ready_at, expires_at, size, max_tries)
    SELECT new_id, queue, 1, now(), since + n * interval '1 us', since + n * interval '1 us',
           ends_at, length(content), coalesce(max_tries, 0)
    FROM copies, (SELECT clock_timestamp() AS since WHERE pg_current_xact_id() IS NOT NULL) AS t"""
"""The rows are due after the transaction has its number, as the product's are, and one after the
other, as those of many submits are."""

_DAYS = """
    DO $$ DECLARE parent text; child text; day date; BEGIN
        FOREACH parent IN ARRAY ARRAY['notifications', 'attempts', 'ends'] LOOP
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
        INSERT INTO notifications (id, created_at, expires_at, tenant, queue, max_tries, recipient,
                                   content, metadata)
        SELECT new_id, at, at + (expires_at - created_at), tenant, queue, max_tries, recipient,
               content, metadata
        FROM ids JOIN notifications ON id = copied
    )
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, tries,
                          provider, outcome, code, detail, reference)
    SELECT new_id, claim, recorded_by, at, at, queue_wait_s, tries,
           provider, outcome, code, detail, reference
    FROM ids JOIN attempts ON id = copied"""


BYTES_EACH = """
    SELECT (sum(pg_total_relation_size(relid)) + pg_total_relation_size('live'))
           / (SELECT count(*) FROM notifications)
    FROM unnest(ARRAY['notifications', 'attempts', 'ends']) AS parent,
         pg_partition_tree(parent::regclass)"""
"""Bytes per notification, with its indexes and attempts, and what is left of `live`."""


async def templates(run: Run, queues: Sequence[str]) -> list[UUID]:
    """Submit one notification to each queue, wait until they are sent, and return the ids."""
    ids = await run.client.submit([submit_body(queue) for queue in queues])
    await run.all_final()
    return [UUID(which) for which in ids]


async def insert_waiting(
    run: Run, copied: Sequence[UUID], count: int, ttl: timedelta | None = None
) -> None:
    """Insert `count` waiting copies of these, in turn; `ttl` replaces their time to live."""
    await run.rows(WAITING, copied, count, ttl)


async def insert_history(run: Run, copied: Sequence[UUID], count: int) -> None:
    """Insert `count` sent copies of these, spread evenly over the last seven days."""
    await run.rows(days(7))
    await run.rows(HISTORY, copied, count)


async def settle(run: Run) -> None:
    """Vacuum and analyze, as a server does during the hours in which such a load grows."""
    await run.rows("VACUUM (ANALYZE) notifications, live, attempts")
    await run.rows("CHECKPOINT")
