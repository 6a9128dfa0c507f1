"""Translates Postgres's errors into the errors of domain/errors.py: one table, by SQLSTATE."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from notifier.domain.errors import (
    ConfigError,
    StoreConflict,
    StoreError,
    StoreRefused,
    StoreRejected,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

POOLER_HINT: Final = "is there a connection pooler in transaction mode before Postgres?"

# Source of the codes: PostgreSQL documentation, appendix A. The longest matching prefix applies.
BY_SQLSTATE: Final[dict[str, type[StoreError]]] = {
    "08": StoreUnavailable,  # connection exception
    "0A": StoreUnavailable,  # among others a cached plan whose result type a migration changed
    "21": StoreRejected,  # cardinality violation
    "22": StoreRejected,  # data exception
    "23": StoreRejected,  # integrity constraint violation
    "25006": StoreUnavailable,  # read-only transaction: a standby, until it is promoted
    "26000": StoreRefused,  # a prepared statement is missing: a connection pooler
    "28": StoreRefused,  # invalid authorization
    "3D": StoreRefused,  # the database does not exist
    "3F": StoreRefused,  # the schema does not exist
    "40001": StoreConflict,  # serialization failure
    "40P01": StoreConflict,  # deadlock
    "42": StoreRefused,  # insufficient privilege; undefined table, column, function, type
    "53": StoreUnavailable,  # insufficient resources
    "54": StoreRejected,  # program limit exceeded
    "55000": StoreRefused,  # a migration that needs all processes stopped (0005_live.sql)
    "55P03": StoreUnavailable,  # lock not available
    "57014": StoreUnavailable,  # statement timeout
    "57P": StoreUnavailable,  # shutdown, crash, cannot connect now
}
DATA_EXCEPTION: Final = "22"
"""The texts of these errors contain the value."""
UNLISTED: Final = StoreUnavailable
"""A process repeats what failed for a reason that nobody has foreseen, and says so."""

HINTS: Final = {
    "26000": POOLER_HINT,
    "42P05": POOLER_HINT,  # a prepared statement exists already
    "42703": "run `notifier migrate`",
    "42883": "run `notifier migrate`",
    "42P01": "run `notifier migrate`",
}


def _error_type(sqlstate: str) -> type[StoreError] | None:
    for length in (5, 3, 2):
        error_type = BY_SQLSTATE.get(sqlstate[:length])
        if error_type is not None:
            return error_type
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of domain/errors.py in place of the driver's.

    No message contains values of rows: asyncpg puts those into `detail`, which is dropped, and of
    data exceptions and an SQLSTATE that the table does not list only the code is named.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _translation(error) from error
    except asyncpg.ClientConfigurationError as error:
        raise StoreRefused(f"Postgres: the database URL cannot be used: {error}") from error
    except asyncpg.InterfaceError as error:
        # The driver's own DataError: a value that it cannot encode. Its text contains the value.
        if isinstance(error, ValueError):
            raise StoreRejected("Postgres: a value cannot be encoded") from error
        msg = f"Postgres: {error}"
        raise StoreUnavailable(msg) from error
    except (OSError, TimeoutError, asyncpg.InternalClientError) as error:
        error_type = StoreRefused if _is_tls_refusal(error) else StoreUnavailable
        msg = f"Postgres: {str(error) or type(error).__name__}"
        raise error_type(msg) from error


def _translation(error: asyncpg.PostgresError) -> StoreError:
    sqlstate = error.sqlstate or ""
    error_type = _error_type(sqlstate)
    if error_type is None or sqlstate.startswith(DATA_EXCEPTION):
        name = f"{type(error).__name__} (SQLSTATE {sqlstate or 'unknown'})"
        return (error_type or UNLISTED)(f"Postgres: {name}")
    hint = HINTS.get(sqlstate)
    text = error.args[0] if error.args else type(error).__name__
    return error_type(f"Postgres: {text}" + (f" ({hint})" if hint else ""))


def _is_tls_refusal(error: Exception) -> bool:
    """Return whether one side refused TLS. asyncpg raises a bare ConnectionError for a server."""
    return isinstance(error, ssl.SSLError) or "rejected SSL upgrade" in str(error)


@contextmanager
def at_start() -> Iterator[None]:
    """Raise what Postgres refuses as ConfigError: at the start it is a wrong setting."""
    try:
        yield
    except StoreRefused as error:
        raise ConfigError(str(error), key="database.url") from error
