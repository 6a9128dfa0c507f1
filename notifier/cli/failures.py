"""Which errors of a command are expected, their message lines and their exit code."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from notifier.domain.errors import ConfigError, NotifierError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130
DEV_MODULES = frozenset({"aiosmtpd"})
"""Modules that only the extra `dev` installs."""


class CommandFailed(NotifierError):
    """The command is valid but failed."""


def explain(error: BaseException) -> tuple[int, list[str]] | None:
    """Return the exit code and the message lines; None if any cause is unexpected.

    Looks into exception groups, since a task group wraps the exceptions of its tasks.
    """
    causes = list(_causes(error))
    lines = [line for cause in causes for line in _lines(cause)]
    if not all(_is_expected(cause) for cause in causes):
        return None
    is_misuse = any(_is_misuse(cause) for cause in causes)
    return MISUSED if is_misuse else FAILED, list(dict.fromkeys(lines))


def _causes(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error


def _is_misuse(error: BaseException) -> bool:
    """Return whether a setting or option is wrong. A port in use counts as a wrong setting."""
    if isinstance(error, OSError):
        return error.errno in {errno.EADDRINUSE, errno.EADDRNOTAVAIL}
    return isinstance(error, ConfigError)


def _is_expected(error: BaseException) -> bool:
    if isinstance(error, ModuleNotFoundError):
        return error.name in DEV_MODULES
    if isinstance(error, OSError):
        return error.errno in {
            errno.EADDRINUSE,
            errno.EACCES,
            errno.EADDRNOTAVAIL,
            errno.ENOSPC,
        }
    return isinstance(error, NotifierError)


def _lines(error: BaseException) -> list[str]:
    if isinstance(error, ModuleNotFoundError):
        hint = "this command needs the extra `dev`: pip install 'notifier-engine[dev]'"
        return [f"no module {error.name}: {hint}"]
    if isinstance(error, OSError) and error.strerror:
        return [f"{error.filename}: {error.strerror}" if error.filename else error.strerror]
    return (str(error) or type(error).__name__).splitlines()
