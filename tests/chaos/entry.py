"""`python -m tests.chaos.entry worker ...`: the ordinary command in a process that is to break.

The environment says how: `CHAOS_STOP_AT` at which step (see stops.py), `CHAOS_CLOCK_S` by how much
its clock is off.
"""

from __future__ import annotations

import os


def main() -> None:
    if off_s := os.environ.get("CHAOS_CLOCK_S"):
        from tests.chaos.clock import shift  # noqa: PLC0415 before anything asks for the time

        shift(float(off_s))
    if step := os.environ.get("CHAOS_STOP_AT"):
        from tests.chaos.stops import break_at  # noqa: PLC0415 only who breaks loads it

        break_at(step, how=os.environ["CHAOS_HOW"], items=int(os.environ["CHAOS_ITEMS"]))
    from notifier.__main__ import main as run  # noqa: PLC0415 what it imports is broken by now

    run()


if __name__ == "__main__":
    main()
