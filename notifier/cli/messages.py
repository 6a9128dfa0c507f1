"""Messages to the person at the terminal. They go to stderr, since programs read stdout."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from notifier.cli.streams import STDERR, write_line


def print_message(line: str) -> None:
    """Print one line to stderr, after the name of the program; a full or closed one is ignored."""
    write_line(sys.stderr, f"notifier: {line}")


def print_message_at_once(line: str) -> None:
    """Like print_message, for signal handlers: not through the buffer, which may be in use."""
    with suppress(OSError):
        os.write(STDERR, f"notifier: {line}\n".encode())
