"""What a command could not do, in one line, and the exit code that goes with it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from notifier.domain.errors import ConfigError, NotifierError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130
DEV_MODULES = frozenset({"aiosmtpd"})
"""What only the extra `dev` brings."""


class CommandFailed(NotifierError):
    """The command was understood and could not be carried out."""


def explain(error: BaseException) -> tuple[int, list[str]] | None:
    """The exit code and a line for each cause; None for a surprise, which deserves its traceback.

    A task group wraps what ended it, so groups are taken apart.
    """
    leaves = list(_leaves(error))
    lines = [line for leaf in leaves for line in _lines(leaf)]
    if not all(_is_expected(leaf) for leaf in leaves):
        return None
    is_misuse = any(_is_misuse(leaf) for leaf in leaves)
    return MISUSED if is_misuse else FAILED, list(dict.fromkeys(lines))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _is_misuse(error: BaseException) -> bool:
    """A wrong setting, which the address of a port in use is, too."""
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
