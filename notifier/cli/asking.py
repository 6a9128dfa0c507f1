"""Asks before a command changes more than one thing."""

from __future__ import annotations

import sys

from notifier.domain.errors import ConfigError


def is_wanted(count: int, things: str, verb: str, *, yes: bool) -> bool:
    """Return whether to go on. One change is not asked for.

    Raises ConfigError where nobody can be asked.
    """
    if yes or count == 1:
        return True
    if not sys.stdin.isatty():
        raise ConfigError(f"{count:,} {things} change: without a terminal --yes is needed")
    print(f"{verb} {count:,} {things}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
