"""Erasures and the removal of old contents look rows up in indexes, whatever the statistics are."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.operation_steps import PostgresOperationSteps, open_operation_steps
from notifier.adapters.postgres.statements import statement
from tests.integration.test_list_plans import BY_ID, FILL, LIVE, MANY, SPAN, nodes_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import asyncpg

STORED: Final = "notifications_pkey"
BY_IDS: Final = r"id = ANY"
BY_HASH: Final = "hash = "
OF_USER: Final = "tenant = .*mode = .*user_id ="
AFTER_USER: Final = r"ROW\(tenant, mode, user_id\) >"

# Statement: its indexes, each with what its condition is like.
SCANS: Final = {
    "erase_scan": {(STORED, SPAN)},
    "erase_read": {(STORED, BY_IDS)},
    "erase_lock": {(STORED, BY_IDS)},
    "erase_end": {(LIVE, BY_IDS)},
    "erase_wipe": {
        (STORED, BY_IDS),
        (LIVE, BY_IDS),
        ("attempts_pkey", BY_IDS),
        ("attempts_pkey", BY_ID),
        ("ends_pkey", BY_IDS),
        ("parked_pkey", BY_IDS),
    },
    "erase_calls_read": {(STORED, BY_IDS), ("lookups_hash_id_idx", BY_HASH)},
    "erase_calls": {(STORED, BY_IDS)},
    "webhook_named_lock": {(STORED, BY_IDS)},
    "erase_lookups": {("lookups_hash_id_idx", "hash = ANY .*")},
    "scrub_next": {(STORED, r"\bid >.*\bid <")},
    "scrub_due": {("scrub_later_due", "due_at <=")},
    "scrub": {
        (STORED, BY_IDS),
        (LIVE, BY_ID),
        ("ends_pkey", BY_ID),
        ("attempts_pkey", BY_ID),
        ("scrub_later_pkey", BY_IDS),
    },
    "scrub_live": {(LIVE, BY_IDS)},
}


SCANS_OF_INBOXES: Final = {
    "inbox_erase": {("inbox_entries_pkey", BY_IDS)},
    "inbox_erase_users": {
        ("inbox_entries_newest", OF_USER),
        ("inbox_entries_changed", OF_USER),
        ("inbox_entries_pkey", BY_IDS),
    },
    "inbox_users": {("inbox_entries_newest", AFTER_USER), ("inbox_entries_changed", AFTER_USER)},
}
FILL_INBOXES: Final = """
    INSERT INTO inbox_entries (id, tenant, mode, user_id, body, expires_at)
    SELECT gen_random_uuid(), '', 'live', 'user-' || n % 500, repeat('b', 200), 'infinity'
    FROM generate_series(1, $1::integer) AS n"""


@pytest.mark.parametrize("statistics", ["empty tables", "old statistics", "present statistics"])
async def test_no_day_is_read_as_a_whole(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], statistics: str
) -> None:
    await connection.execute("ANALYZE")
    if statistics != "empty tables":
        await connection.execute(FILL, MANY)
    if statistics == "present statistics":
        await connection.execute("VACUUM ANALYZE")
    async with open_operation_steps(ConnectionSettings(url=database_url)) as steps:
        await check_scans(steps, SCANS)


async def test_entries_of_inboxes_are_looked_up_without_statistics(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute(FILL_INBOXES, 5000)
    async with open_operation_steps(ConnectionSettings(url=database_url)) as steps:
        await check_scans(steps, SCANS_OF_INBOXES)


async def check_scans(
    steps: PostgresOperationSteps, scans: Mapping[str, Collection[tuple[str, str]]]
) -> None:
    """Check that statements read tables by these indexes alone, each by such a condition."""
    for name, expected in scans.items():
        for node in await scans_of(steps, name):
            index = re.sub(r"_\d{8}_", "_", node.get("Index Name", node["Node Type"]))
            condition = node.get("Index Cond", "")
            found = [like for of, like in expected if of == index]
            assert any(re.search(like, condition) for like in found), (name, index, condition)


async def scans_of(steps: PostgresOperationSteps, name: str) -> list[Mapping[str, Any]]:
    """Return the nodes of a statement's plan for any values that read a table."""
    text = statement(name)
    count = max(int(number) for number in re.findall(r"\$(\d+)", re.sub(r"--.*", "", text)))
    async with steps._connection.acquire() as session:
        await session.execute(f"PREPARE planned AS {text}")
        values = ", ".join(["NULL"] * count)
        [row] = await session.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE planned ({values})")
        await session.execute("DEALLOCATE planned")
    nodes = list(nodes_of(json.loads(row[0])[0]["Plan"]))
    return [
        node
        for node in nodes
        if "Index Name" in node or ("Relation Name" in node and node["Node Type"] != "ModifyTable")
    ]
