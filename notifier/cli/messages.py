"""Messages to the person at the terminal. They go to stderr, since programs read stdout."""

from __future__ import annotations

import sys


def print_message(line: str) -> None:
    """Print one line to stderr, after the name of the program."""
    print(f"notifier: {line}", file=sys.stderr, flush=True)
