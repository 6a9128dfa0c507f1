"""Migrates a database to the newest schema. Besides the revisions, the only user of alembic."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

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

CONNECT_TIMEOUT_S: Final = 10.0
MIGRATIONS: Final = Path(__file__).parent / "migrations"


def migrate(url: str) -> list[str]:
    """Apply the missing revisions and return them, oldest first. Concurrent calls are safe.

    Must not be called in a running event loop. Raises StoreUnavailable if Postgres is unreachable.
    """
    return asyncio.run(_migrate(url))


def revisions() -> list[str]:
    """Return all revisions of this version of Notifier, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    newest_first = ScriptDirectory.from_config(config).walk_revisions()
    return [revision.revision for revision in newest_first][::-1]


async def _migrate(url: str) -> list[str]:
    # asyncpg parses the URL, so that all its options (sockets, sslmode) work here as well.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S),
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
    newest_first = script.iterate_revisions(after or "head", before or "base")
    return [revision.revision for revision in reversed(list(newest_first))]
