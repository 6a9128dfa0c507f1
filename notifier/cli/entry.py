"""Runs one command line and returns its exit code: 0 done, 1 failed, 2 misused, 130 interrupted."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from notifier.cli.commands import app
from notifier.cli.failures import FAILED, INTERRUPTED, MISUSED, explain
from notifier.cli.messages import print_message


def run(tokens: Sequence[str]) -> int:
    """Run one command and return its exit code. An expected failure is one line on stderr."""
    for token in tokens:
        if not _is_unicode(token):
            print_message(f"{token!r}: the argument is not UTF-8")
            return MISUSED
    return _flush_output(_run_command(tokens))


def _run_command(tokens: Sequence[str]) -> int:
    try:
        code = app(
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
    except Exception as error:
        # The edge of the process: an expected error becomes a line, any other is raised again.
        if (explained := explain(error)) is None:
            raise
        code, lines = explained
        for line in lines:
            print_message(line)
        return code
    return code if isinstance(code, int) else 0


def _flush_output(code: int) -> int:
    """Flush stdout and return the exit code; Python itself flushes only after the exit code."""
    try:
        print(end="", flush=True)
    except OSError as error:
        # Without this, Python would try again at exit and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code == 0 and not isinstance(error, BrokenPipeError):
            print_message(f"cannot write the output: {error.strerror}")
        return code or FAILED
    return code


def _is_unicode(text: str) -> bool:
    """Return whether the text is free of surrogates, which encode bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
