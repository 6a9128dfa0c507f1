"""Databases at an earlier revision of the schema."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg

from notifier.adapters.postgres import migrate as migrations

SCRIPTS: Final = Path(migrations.__file__).parent / "migrations/versions"


def all_from(revision: str) -> list[str]:
    """Return this revision and all later ones, oldest first."""
    return [each for each in migrations.revisions() if each >= revision]


@asynccontextmanager
async def open_at_revision(
    url: str, revision: str
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Bring an empty database to a revision, as Alembic leaves it; yields a connection to it."""
    connection = await asyncpg.connect(url)
    for script in sorted(SCRIPTS.glob("*.sql")):
        if script.name[:4] <= revision:
            await connection.execute(script.read_text())
    await connection.execute(
        "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL PRIMARY KEY);"
        f"INSERT INTO alembic_version VALUES ('{revision}')"
    )
    yield connection
    await connection.close()
