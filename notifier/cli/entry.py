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
    except BrokenPipeError:
        # The reader went away (`| head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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


def say(line: str) -> None:
    """One line for the person at the terminal, apart from what a program reads on stdout."""
    print(f"notifier: {line}", file=sys.stderr)
