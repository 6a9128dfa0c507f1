"""`make fuzz`: the parsers' tests, each for a time instead of a number of examples.

`python -m tests.property.fuzz SECONDS [WORD...]`: only targets whose name holds one of the words.
"""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta

from hypothesis import settings

ONE_EXAMPLE: timedelta = timedelta(seconds=5)
"""What takes longer is a finding, too."""

Target = Callable[[], None]


def main(seconds: float, *words: str) -> int:
    """Fuzz them; how many targets failed."""
    settings.register_profile("fuzz", derandomize=False, deadline=ONE_EXAMPLE, print_blob=True)
    settings.load_profile("fuzz")
    warnings.simplefilter("ignore", DeprecationWarning)
    targets = {
        name: target
        for name, target in _targets().items()
        if not words or any(word in name for word in words)
    }
    return sum(not _holds(name, target, seconds) for name, target in targets.items())


def _targets() -> dict[str, Target]:
    from tests.property import test_parsers  # noqa: PLC0415 it is read under the profile above

    found = vars(test_parsers).items()
    return {name.removeprefix("test_"): each for name, each in found if name.startswith("test_")}


def _holds(name: str, target: Target, seconds: float) -> bool:
    """Whether round after round of new examples found nothing."""
    until, rounds = time.monotonic() + seconds, 0
    try:
        while time.monotonic() < until:
            target()
            rounds += 1
    except Exception:  # noqa: BLE001 whatever it is, it is the finding
        traceback.print_exc()
        sys.stdout.write(f"FOUND {name}\n")
        return False
    sys.stdout.write(f"ok    {name}: {rounds} rounds\n")
    return True


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *sys.argv[2:]))
