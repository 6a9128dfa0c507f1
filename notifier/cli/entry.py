"""Runs one command line and returns its exit code: 0 done, 1 failed, 2 misused, 130 interrupted."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import CycloptsError

from notifier.cli.commands import app
from notifier.cli.failures import FAILED, INTERRUPTED, MISUSED, explain
from notifier.cli.messages import print_message
from notifier.cli.streams import discard

_UNWRITABLE: Final = frozenset(
    {errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EAGAIN}
)


def run(tokens: Sequence[str]) -> int:
    """Run one command and return its exit code. An expected failure is one line on stderr."""
    for token in tokens:
        if not _is_unicode(token):
            print_message(f"{token!r}: the argument is not UTF-8")
            return MISUSED
    return _flush_output(_run_command(tokens))


def _run_command(tokens: Sequence[str]) -> int:
    try:
        code = app.meta(
            tokens,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        print_message(" ".join(str(error).split()))
        return MISUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader closed the pipe (`| head`)
        return FAILED
    except OSError as error:
        if _is_unwritable_output(error):
            print_message(_unwritable(error))
            return FAILED
        return _explained(error)
    except Exception as error:  # noqa: BLE001 raised again unless it is expected
        return _explained(error)
    return code if isinstance(code, int) else 0


def _explained(error: Exception) -> int:
    """Print an expected error as lines and return its exit code; raise any other again."""
    if (explained := explain(error)) is None:
        raise error
    code, lines = explained
    for line in lines:
        print_message(line)
    return code


def _flush_output(code: int) -> int:
    """Flush the streams and return the exit code; Python itself flushes only after it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        if code == 0 and not isinstance(error, BrokenPipeError):
            print_message(_unwritable(error))
        code = code or FAILED
    try:
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)
    return code


def _is_unwritable_output(error: OSError) -> bool:
    """Return whether a write to stdout failed: such an error names no file."""
    return error.filename is None and error.errno in _UNWRITABLE


def _unwritable(error: OSError) -> str:
    return f"cannot write the output: {error.strerror}"


def _is_unicode(text: str) -> bool:
    """Return whether the text is free of surrogates, which encode bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
