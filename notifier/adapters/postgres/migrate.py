"""Migrates a database to the newest schema. Besides the revisions, the only user of alembic."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from notifier.adapters.postgres.access import require_own_sessions
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.errors import at_start, translated
from notifier.domain.errors import StoreUnavailable
from notifier.lifecycle import Backoff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

CONNECT_TIMEOUT_S: Final = 10.0
LOCK_TIMEOUT_S: Final = 60.0
FIRST_RETRY_S: Final = 0.1
MAX_RETRY_S: Final = 2.0
MIGRATIONS: Final = Path(__file__).parent / "migrations"
_DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


def migrate(url: str) -> list[str]:
    """Apply the missing revisions and return them, oldest first. Concurrent calls are safe.

    None is missing in a schema that a newer version of Notifier has migrated.

    Processes may run meanwhile: a statement that gets no lock within 200 ms would make them wait,
    so its revision is undone and repeated, for a minute; those before it stay. Must not be called
    in a running event loop. Raises StoreUnavailable if Postgres is unreachable, ConfigError if it
    refuses the work.
    """
    return asyncio.run(_migrate(url))


def revisions() -> list[str]:
    """Return all revisions of this version of Notifier, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    newest_first = ScriptDirectory.from_config(config).walk_revisions()
    return [revision.revision for revision in newest_first][::-1]


async def _migrate(url: str) -> list[str]:
    with at_start():
        await require_own_sessions(ConnectionSettings(url=url))
        return await _migrate_without_waiting(url)


async def _migrate_without_waiting(url: str) -> list[str]:
    backoff = Backoff(FIRST_RETRY_S, MAX_RETRY_S)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    found: list[str | None] = []
    while True:
        try:
            return await _apply(url, found)
        except StoreUnavailable as error:
            is_locked = isinstance(error.__cause__, asyncpg.LockNotAvailableError)
            if not is_locked or time.monotonic() > deadline:
                raise
        await asyncio.sleep(backoff.next_s())


async def _apply(url: str, found: list[str | None]) -> list[str]:
    """Apply the missing revisions; return those since the first one of `found`, oldest first.

    The revision that is found is added to `found`.
    """
    # asyncpg parses the URL, so that all its options (sockets, sslmode) work here as well.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S),
        poolclass=NullPool,
    )
    with translated(), _as_driver_error():
        async with engine.connect() as connection:
            applied = await connection.run_sync(_upgrade, found)
            await connection.commit()
    return applied


@contextmanager
def _as_driver_error() -> Iterator[None]:
    """Raise the driver's error in place of SQLAlchemy's, which quotes the statement."""
    try:
        yield
    except DBAPIError as error:
        cause: BaseException | None = error.orig
        while cause is not None and not isinstance(cause, _DRIVER_ERRORS):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from error


def _upgrade(connection: Connection, found: list[str | None]) -> list[str]:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    before = MigrationContext.configure(connection).get_current_revision()
    connection.commit()
    if before and before not in revisions():  # a newer version has migrated: nothing is missing
        return []
    found.append(before)
    command.upgrade(config, "head")
    after = MigrationContext.configure(connection).get_current_revision()
    newest_first = script.iterate_revisions(after or "head", found[0] or "base")
    return [revision.revision for revision in reversed(list(newest_first))]
