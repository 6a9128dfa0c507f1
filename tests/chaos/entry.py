"""`python -m tests.chaos.entry worker ...`: runs a command in a process that will fail.

The environment sets the failure: `CHAOS_STOP_AT` is the step (see stops.py), `CHAOS_CLOCK_S` the
seconds by which its clock is wrong. `CHAOS_TRACE` is the file of its trace (see traced.py).
"""

from __future__ import annotations

import os
from pathlib import Path


def main() -> None:
    if off_s := os.environ.get("CHAOS_CLOCK_S"):
        from tests.chaos.clock import shift  # noqa: PLC0415 before any module reads the clock

        shift(float(off_s))
    if path := os.environ.get("CHAOS_TRACE"):
        from tests.chaos.traced import trace_into  # noqa: PLC0415 only loaded when needed

        trace_into(Path(path))
    if step := os.environ.get("CHAOS_STOP_AT"):
        from tests.chaos.stops import break_at  # noqa: PLC0415 only loaded when needed

        break_at(step, how=os.environ["CHAOS_HOW"], items=int(os.environ["CHAOS_ITEMS"]))
    from notifier.__main__ import main as run  # noqa: PLC0415 after the patches above

    run()


if __name__ == "__main__":
    main()
