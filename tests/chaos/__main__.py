"""`make chaos`: faults in a running Notifier, round after round, and what was lost or doubled.

`python -m tests.chaos [fault ...] [--rounds N] [--seed N]` starts a private Postgres and RabbitMQ,
plays the rounds of this seed that were not yet played on this code, and ends with a table of all
that were. It exits with 1 if something was lost, doubled without a mark, or recovered too late.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness.stack import Stack, running_stack
from tests.chaos.faults import FAULTS
from tests.chaos.playing import Note, missing, play_all, play_trial
from tests.chaos.results import CHANGED, Result, by_fault, keep, played_on, present_code
from tests.chaos.table import show
from tests.chaos.trials import TRIALS

ALL = (*FAULTS, *TRIALS)


def main() -> int:
    wanted = _arguments()
    names = [name for each in wanted.names for name in each.split(",") if name] or list(ALL)
    if unknown := sorted(set(names) - set(ALL)):
        _tell(f"no fault {', '.join(unknown)}; there are {', '.join(ALL)}")
        return 2
    code, results = present_code(), list[Result]()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and tidy up

    def note(result: Result) -> None:
        results.append(msgspec.structs.replace(result, commit=code))
        keep(results[-1])

    with tempfile.TemporaryDirectory(prefix="notifier-chaos-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with running_stack(folder) as stack:
            for fault in names:
                asyncio.run(_play(stack, fault, wanted, played_on(code).get(fault, ()), note))
    show(by_fault(results) if code.endswith(CHANGED) else played_on(code))
    return 0 if all(one.is_kept for one in results) else 1


async def _play(
    stack: Stack, name: str, wanted: argparse.Namespace, played: Sequence[Result], note: Note
) -> None:
    numbers = missing(wanted.rounds if name in FAULTS else 1, wanted.seed, played)
    if not numbers:
        _tell(f"{name}: played already with seed {wanted.seed}")
    elif name in FAULTS:
        await play_all(stack, FAULTS[name], numbers, wanted.seed, note, _tell)
    else:
        await play_trial(stack, TRIALS[name], wanted.seed, note, _tell)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("names", nargs="*", help=f"which faults; all: {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int, default=10, help="that count, of each fault")
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    if wanted.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    return wanted


def _tell(words: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {words}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
