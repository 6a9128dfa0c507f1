"""Each statement of a list looks rows up in an index, whatever the statistics say.

It is planned once, and the plan may be from when the tables were empty.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from benchmarks.prove.bulk import days
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import CONNECTIONS, open_reader
from notifier.adapters.postgres.statements import statement
from notifier.domain.notification import Status
from notifier.ports.queries import Filter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import asyncpg

    from notifier.adapters.postgres.reader import PostgresReader

MANY: Final = 20_000
BY_ID: Final = r"\bid ="
SPAN: Final = r"\bid >=.*\bid <="
OF_QUEUE: Final = r"queue = .*turn = .*class = "
OF_TURNS: Final = ("turns_pkey", "queue = ")
EACH_QUEUE: Final = r"^$|queue >"
OF_STATUS: Final = r"ROW\(status, id\) >= .*ROW\(status, id\) <= "
LIVE: Final = "live_pkey"
DUE: Final = "live_due"

# Statement: its indexes, each with what its condition is like.
SCANS: Final = {
    "list_notifications": {("notifications_pkey", SPAN)},
    "list_waiting": {(DUE, EACH_QUEUE), (DUE, OF_QUEUE), (LIVE, SPAN), OF_TURNS},
    "list_sending": {(DUE, EACH_QUEUE), (DUE, OF_QUEUE), ("leases_pkey", ""), OF_TURNS},
    "list_sent": {
        ("attempts_pkey", SPAN),
        ("ends_pkey", BY_ID),
        (LIVE, BY_ID),
        ("notifications_pkey", BY_ID),
    },
    "list_ended": {("ends_status_id_idx", OF_STATUS)},
    "list_expired": {
        ("ends_status_id_idx", OF_STATUS),
        ("live_expires", "expires_at <="),
    },
    "list_lost": {
        ("notifications_pkey", SPAN),
        ("attempts_pkey", BY_ID),
        (LIVE, BY_ID),
        ("ends_pkey", BY_ID),
    },
    "list_lookup": {("lookups_hash_id_idx", "hash = .*" + SPAN)},
    "match_lookup": {
        ("lookups_hash_id_idx", "hash = ANY .*" + BY_ID),
        ("notifications_pkey", BY_ID),
        ("ends_pkey", BY_ID),
        (LIVE, BY_ID),
        ("attempts_pkey", BY_ID),
    },
    "seen": {("notifications_pkey", r"id = ANY")},
    "read_notifications": {
        ("notifications_pkey", r"id = ANY"),
        (LIVE, BY_ID),
        ("ends_pkey", BY_ID),
        ("attempts_pkey", BY_ID),
        ("retries_pkey", BY_ID),
        ("fallbacks_pkey", BY_ID),
        ("fallbacks_notification", r"\bnotification ="),
    },
    "get_attempts": {("attempts_pkey", BY_ID)},
    "explain_waiting": {
        (LIVE, BY_ID),
        ("notifications_pkey", BY_ID),
        ("parked_pkey", BY_ID),
        ("attempts_pkey", BY_ID),
    },
    "explain_ahead": {
        (DUE, OF_QUEUE + r".*ROW\(due_at, id\) > .*ROW\(due_at, id\) < "),
        ("leases_pkey", "queue ="),
    },
    "pause_authors": {("audit_pkey", r"\bid >=")},
}
OF_ONE: Final = frozenset({"explain_waiting", "explain_ahead", "pause_authors"})
"""They read what concerns one notification."""
FILL: Final = """
    WITH new AS MATERIALIZED (
        SELECT n, (left(uuid_at(now() - n * interval '4 s')::text, 14) || '7000-8000-'
                   || lpad(to_hex(n), 12, '0'))::uuid AS id
        FROM generate_series(1, $1::integer) AS n
    ), stored AS (
        INSERT INTO notifications (id, expires_at, queue, recipient, content, metadata)
        SELECT id, now() + interval '1 hour', 'email.low', 'a@example.com', '{}', '{}' FROM new
    ), found AS (
        INSERT INTO lookups (hash, id) SELECT md5('sale')::uuid, id FROM new
    ), waiting AS (
        INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, queue)
        SELECT id, now(), now(), now(), now() + interval '1 hour', 2, 1, 'email.low'
        FROM new WHERE n % 4 = 0
    ), ended AS (
        INSERT INTO ends (id, claim, status, queue, tries, first_at, at)
        SELECT id, 1, 'failed', 'email.low', 1, now(), now() FROM new WHERE n % 4 = 1
    )
    INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s, provider,
                          outcome, code, detail, reference, tries)
    SELECT id, 1, gen_random_uuid(), now(), now(), 0, 'smtp', 'accepted', '250', '', '', 1
    FROM new WHERE n % 4 > 1"""


@pytest.mark.parametrize("statistics", ["empty tables", "old statistics", "present statistics"])
async def test_each_list_looks_rows_up_in_the_indexes_made_for_it(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], statistics: str
) -> None:
    await connection.execute("ANALYZE")
    if statistics != "empty tables":
        await connection.execute(FILL, MANY)
    if statistics == "present statistics":
        await connection.execute("VACUUM ANALYZE")
    async with open_reader(ConnectionSettings(url=database_url)) as reader:
        for name, expected in SCANS.items():
            for node in await scans_of(reader, name):
                index = re.sub(r"_\d{8}_", "_", node.get("Index Name", node["Node Type"]))
                condition = node.get("Index Cond", "")
                found = [like for of, like in expected if of == index]
                assert any(re.search(like, condition) for like in found), (name, index, condition)


async def test_the_statements_of_lists_are_planned_once_however_many_days_are_kept(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute(days(29))
    await connection.execute(FILL, 1000)
    filters = [Filter(tag=("sale",)), *(Filter(status=each) for each in [(), *zip(Status)])]
    async with open_reader(ConnectionSettings(url=database_url)) as reader:
        for selection in filters:
            for _ in range(2 * CONNECTIONS):
                await reader.notifications(selection)
        async with reader._snapshot() as session:
            rows = await session.fetch(
                "SELECT statement, custom_plans, generic_plans FROM pg_prepared_statements"
            )
    plans = {row["statement"]: (row["custom_plans"], row["generic_plans"]) for row in rows}
    for name in SCANS.keys() - {"match_lookup", "get_attempts", *OF_ONE}:
        custom, generic = plans[statement(name)]
        assert custom == 0, name
        assert generic >= 2, name


async def scans_of(reader: PostgresReader, name: str) -> list[Mapping[str, Any]]:
    """Return the nodes of a statement's plan for any values that read a table."""
    text = statement(name)
    count = max(int(number) for number in re.findall(r"\$(\d+)", re.sub(r"--.*", "", text)))
    async with reader._snapshot() as session:
        await session.execute(f"PREPARE planned AS {text}")
        values = ", ".join(["NULL"] * count)
        [row] = await session.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE planned ({values})")
        await session.execute("DEALLOCATE planned")
    nodes = list(nodes_of(json.loads(row[0])[0]["Plan"]))
    return [node for node in nodes if "Relation Name" in node or "Index Name" in node]


def nodes_of(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)
