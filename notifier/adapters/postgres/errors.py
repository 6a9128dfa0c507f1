"""Postgres's errors in our words: one table, by SQLSTATE."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from notifier.domain.errors import (
    ConfigError,
    NotifierError,
    StoreConflict,
    StoreRejected,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# PostgreSQL documentation, appendix A. The longest prefix that fits counts.
BY_SQLSTATE: Final[dict[str, type[NotifierError]]] = {
    "08": StoreUnavailable,  # connection exception
    "22": StoreRejected,  # data exception
    "23": StoreRejected,  # integrity constraint violation
    "25006": StoreUnavailable,  # read-only transaction: a standby, for now
    "28": ConfigError,  # invalid authorization
    "3D": ConfigError,  # the database does not exist
    "40001": StoreConflict,  # serialization failure
    "40P01": StoreConflict,  # deadlock
    "42501": ConfigError,  # insufficient privilege
    "42703": ConfigError,  # undefined column
    "42883": ConfigError,  # undefined function
    "42P01": ConfigError,  # undefined table
    "53": StoreUnavailable,  # insufficient resources
    "54": StoreRejected,  # program limit exceeded
    "55P03": StoreUnavailable,  # lock not available
    "57014": StoreUnavailable,  # statement timeout
    "57P": StoreUnavailable,  # shutdown, crash, cannot connect now
}

UNMIGRATED: Final = frozenset({"42703", "42883", "42P01"})


def _kind(sqlstate: str) -> type[NotifierError] | None:
    for length in (5, 3, 2):
        kind = BY_SQLSTATE.get(sqlstate[:length])
        if kind is not None:
            return kind
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Raise our errors for the driver's.

    What no table names is a bug of ours and passes unchanged. Messages never hold row values:
    asyncpg keeps those in `detail`, which is left behind.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        kind = _kind(error.sqlstate or "")
        if kind is None:
            raise
        hint = " (run `notifier migrate`)" if error.sqlstate in UNMIGRATED else ""
        msg = f"Postgres: {error.args[0] if error.args else type(error).__name__}{hint}"
        raise kind(msg) from error
    except asyncpg.ClientConfigurationError as error:
        raise ConfigError("the database URL cannot be used", key="database.url") from error
    except asyncpg.InterfaceError as error:
        # The driver's own DataError: a value it cannot even encode. Its text would show the value.
        if isinstance(error, ValueError):
            raise StoreRejected("Postgres: a value cannot be encoded") from error
        msg = f"Postgres: {error}"
        raise StoreUnavailable(msg) from error
    except (OSError, TimeoutError, asyncpg.InternalClientError) as error:
        msg = f"Postgres: {str(error) or type(error).__name__}"
        raise StoreUnavailable(msg) from error
