"""Asks before a command changes more than one thing."""

from __future__ import annotations

import sys

from notifier.domain.errors import ConfigError


def is_wanted(count: int | None, things: str, verb: str, *, yes: bool) -> bool:
    """Return whether to go on. One change is not asked for. `count` None: `things` says how many.

    Raises ConfigError where nobody can be asked.
    """
    if yes or count == 1:
        return True
    what = things if count is None else f"{count:,} {things}"
    if not sys.stdin.isatty():
        raise ConfigError(f"{what} change: without a terminal --yes is needed")
    print(f"{verb} {what}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
