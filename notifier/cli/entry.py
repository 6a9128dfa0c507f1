"""From the words of a command line to an exit code: 0 done, 1 failed, 2 misused."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from notifier.cli.commands import app
from notifier.cli.failures import FAILED, INTERRUPTED, MISUSED, explain


def run(tokens: Sequence[str]) -> int:
    """Carry out one command. Expected failures are one line each on stderr."""
    for token in tokens:
        if not _is_unicode(token):
            say(f"{token!r}: the argument is not UTF-8")
            return MISUSED
    return _written(_carry_out(tokens))


def _carry_out(tokens: Sequence[str]) -> int:
    try:
        code = app(
            tokens,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        say(" ".join(str(error).split()))
        return MISUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader went away (`| head`)
        return FAILED
    except Exception as error:
        # The edge of the process: what is expected is said in a line, a surprise is raised again.
        if (explained := explain(error)) is None:
            raise
        code, lines = explained
        for line in lines:
            say(line)
        return code
    return code if isinstance(code, int) else 0


def _written(code: int) -> int:
    """The exit code once stdout has all that was printed: Python would look only at exit."""
    try:
        print(end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it complains at exit
        if code == 0 and not isinstance(error, BrokenPipeError):
            say(f"cannot write the output: {error.strerror}")
        return code or FAILED
    return code


def _is_unicode(text: str) -> bool:
    """Whether it is free of the surrogates that stand for bytes nobody could decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def say(line: str) -> None:
    """One line for the person at the terminal, apart from what a program reads on stdout."""
    print(f"notifier: {line}", file=sys.stderr)
