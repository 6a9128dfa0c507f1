"""The standard streams: no process depends on one that is closed, full or blocked."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import Final, TextIO

STDIN, STDOUT, STDERR = range(3)
_ERRORS: Final = "backslashreplace"


def open_missing_streams() -> None:
    """Open those of the descriptors 0, 1 and 2 that are closed (`<&-`, `>&-`, `2>&-`).

    Otherwise the next file or socket would get the number. They are opened in the wrong direction,
    so that a read or write fails, as on a closed stream.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            mode = os.O_WRONLY if descriptor == STDIN else os.O_RDONLY
            os.set_inheritable(os.open(os.devnull, mode), True)
    # The type stubs do not know that a closed stream is None.
    if vars(sys)["stdin"] is None:
        sys.stdin = open(STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115 open for good
    if vars(sys)["stdout"] is None:
        sys.stdout = _open_output(STDOUT)
    if vars(sys)["stderr"] is None:
        sys.stderr = _open_output(STDERR)


def _open_output(descriptor: int) -> TextIO:
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors=_ERRORS, closefd=False)


def write_line(stream: TextIO, line: str) -> None:
    """Write a line; what the stream does not take is dropped."""
    with suppress(OSError, ValueError):
        stream.write(f"{line}\n")
        stream.flush()


def print_notice(text: str) -> None:
    """Print what a process says after its start; a stdout that does not take it is given up."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        discard(sys.stdout)


def discard(stream: TextIO) -> None:
    """Drop what the stream still holds and all that is written to it later.

    Without this, Python flushes the stream at its exit and changes the exit code if that fails.
    """
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()


def write_without_blocking() -> None:
    """From now on drop what a pipe that nobody reads does not take, instead of waiting for it.

    A write that waits now continues if this is called from a signal handler.
    """
    for descriptor in (STDOUT, STDERR):
        with suppress(OSError):
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                os.set_blocking(descriptor, False)
