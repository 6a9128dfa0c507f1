"""Translates Postgres's errors into the errors of domain/errors.py: one table, by SQLSTATE."""

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

# Source of the codes: PostgreSQL documentation, appendix A. The longest matching prefix applies.
BY_SQLSTATE: Final[dict[str, type[NotifierError]]] = {
    "08": StoreUnavailable,  # connection exception
    "21": StoreRejected,  # cardinality violation
    "22": StoreRejected,  # data exception
    "23": StoreRejected,  # integrity constraint violation
    "25006": StoreUnavailable,  # read-only transaction: a standby, until it is promoted
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
    "55000": ConfigError,  # a migration that needs all processes stopped (0005_live.sql)
    "55P03": StoreUnavailable,  # lock not available
    "57014": StoreUnavailable,  # statement timeout
    "57P": StoreUnavailable,  # shutdown, crash, cannot connect now
}

UNMIGRATED: Final = frozenset({"42703", "42883", "42P01"})


def _error_type(sqlstate: str) -> type[NotifierError] | None:
    for length in (5, 3, 2):
        error_type = BY_SQLSTATE.get(sqlstate[:length])
        if error_type is not None:
            return error_type
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of domain/errors.py in place of the driver's.

    An SQLSTATE that the table does not list is a bug in Notifier; the driver's error passes
    unchanged. No message contains values of rows: asyncpg puts those into `detail`, which is
    dropped.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        error_type = _error_type(error.sqlstate or "")
        if error_type is None:
            raise
        hint = " (run `notifier migrate`)" if error.sqlstate in UNMIGRATED else ""
        msg = f"Postgres: {error.args[0] if error.args else type(error).__name__}{hint}"
        raise error_type(msg) from error
    except asyncpg.ClientConfigurationError as error:
        raise ConfigError("the database URL cannot be used", key="database.url") from error
    except asyncpg.InterfaceError as error:
        # The driver's own DataError: a value that it cannot encode. Its text contains the value.
        if isinstance(error, ValueError):
            raise StoreRejected("Postgres: a value cannot be encoded") from error
        msg = f"Postgres: {error}"
        raise StoreUnavailable(msg) from error
    except (OSError, TimeoutError, asyncpg.InternalClientError) as error:
        msg = f"Postgres: {str(error) or type(error).__name__}"
        raise StoreUnavailable(msg) from error
