"""docs/privacy.md says of every column with text or bytes what an erasure does with it."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.live_rows import Connection

PAGE = Path(__file__).parents[2] / "docs/privacy.md"
COLUMNS = """
    SELECT c.relname AS table, a.attname AS column
    FROM pg_class c
    JOIN pg_namespace s ON s.oid = c.relnamespace AND s.nspname = 'public'
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND a.atttypid = ANY (ARRAY['text', 'bytea', 'jsonb', 'json', 'varchar', 'text[]', 'bytea[]']::regtype[])
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alembic_version'
"""  # noqa: E501 one list of types
NAME = re.compile(r"`([a-z_]+)`")


async def test_every_column_with_text_is_in_the_list_of_what_is_erased(
    connection: Connection,
) -> None:
    stored = defaultdict[str, set[str]](set)
    for row in await connection.fetch(COLUMNS):
        stored[row["table"]] |= {row["column"]} - {None}
    text = PAGE.read_text().partition("### Every table")[2]
    listed: dict[frozenset[str], set[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            tables, columns, *_ = line.strip("| ").split(" | ")
            listed[frozenset(NAME.findall(tables))] = set(NAME.findall(columns))
    assert set(stored) == {table for tables in listed for table in tables}
    for of, named in listed.items():
        assert named == set().union(*(stored[table] for table in of)), of
