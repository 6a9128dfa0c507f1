"""Bring a database to the newest schema. The only module that imports alembic."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from notifier.adapters.postgres.errors import translated

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(url: str) -> list[str]:
    """Apply what is missing; returns the revisions applied, oldest first. Two may run at once.

    Must not be called from a running event loop. Raises StoreUnavailable if Postgres is away.
    """
    return asyncio.run(_migrate(url))


def revisions() -> list[str]:
    """Every revision that this version knows, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    walked = ScriptDirectory.from_config(config).walk_revisions()
    return [revision.revision for revision in walked][::-1]


async def _migrate(url: str) -> list[str]:
    # The driver reads the URL itself, so that all it understands (sockets, sslmode) works here too.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(url, timeout=10),
        poolclass=NullPool,
    )
    with translated():
        async with engine.connect() as connection:
            applied = await connection.run_sync(_upgrade)
            await connection.commit()
    return applied


def _upgrade(connection: Connection) -> list[str]:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    before = MigrationContext.configure(connection).get_current_revision()
    connection.commit()
    command.upgrade(config, "head")
    after = MigrationContext.configure(connection).get_current_revision()
    walked = script.iterate_revisions(after or "head", before or "base")
    return [revision.revision for revision in reversed(list(walked))]
