"""A database whose date a test chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

# Postgres finds a function in pg_catalog first, unless search_path names it later.
_SETUP: Final = """
    CREATE SCHEMA test_clock;
    CREATE TABLE test_clock.ahead (by interval NOT NULL);
    INSERT INTO test_clock.ahead VALUES ('0');
    CREATE FUNCTION test_clock.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT pg_catalog.now() + by FROM test_clock.ahead';
    DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET search_path = test_clock, pg_catalog, public',
                       current_database());
    END $$;
"""


async def let_tests_choose_the_date(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Give sessions that begin after this a `now()` that `set_date` moves."""
    await connection.execute(_SETUP)


async def set_date(connection: asyncpg.Connection[asyncpg.Record], at: datetime) -> None:
    """Make `now()` this instant in all sessions. It runs on from there."""
    await connection.execute(
        "UPDATE test_clock.ahead SET by = $1 - pg_catalog.clock_timestamp()", at
    )
