"""`make fuzz`: runs each test of the parsers for a time instead of a number of examples.

`python -m tests.property.fuzz SECONDS [WORD...]` runs the targets whose name contains a word.
"""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta

from hypothesis import settings

MAX_EXAMPLE_TIME: timedelta = timedelta(seconds=5)
"""An example that takes longer is a finding."""

Target = Callable[[], None]


def main(seconds: float, *words: str) -> int:
    """Fuzzes the targets and returns how many of them failed."""
    settings.register_profile("fuzz", derandomize=False, deadline=MAX_EXAMPLE_TIME, print_blob=True)
    settings.load_profile("fuzz")
    warnings.simplefilter("ignore", DeprecationWarning)
    targets = {
        name: target
        for name, target in _targets().items()
        if not words or any(word in name for word in words)
    }
    return sum(not _survives(name, target, seconds) for name, target in targets.items())


def _targets() -> dict[str, Target]:
    from tests.property import test_api_parsers, test_parsers  # noqa: PLC0415 read the profile

    members = {**vars(test_parsers), **vars(test_api_parsers)}
    return {
        name.removeprefix("test_"): member
        for name, member in members.items()
        if hasattr(member, "hypothesis")
    }


def _survives(name: str, target: Target, seconds: float) -> bool:
    """Runs rounds of new examples and returns whether none of them failed."""
    ends_at, rounds = time.monotonic() + seconds, 0
    try:
        while time.monotonic() < ends_at:
            target()
            rounds += 1
    except Exception:  # noqa: BLE001 every exception is a finding
        traceback.print_exc()
        sys.stdout.write(f"FOUND {name}\n")
        return False
    sys.stdout.write(f"ok    {name}: {rounds} rounds\n")
    return True


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *sys.argv[2:]))
