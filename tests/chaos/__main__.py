"""`make chaos`: injects faults into a running Notifier and counts what was lost or sent twice.

`python -m tests.chaos [fault ...] [--rounds N] [--seed N]` starts a private Postgres and RabbitMQ,
plays the rounds of this seed that are not recorded for this code yet, and prints a table of all
rounds. It exits with 1 if a notification was lost, was sent twice without an attempt that explains
it, or if a recovery took too long.
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
    arguments = _arguments()
    names = [name for each in arguments.names for name in each.split(",") if name] or list(ALL)
    if unknown := sorted(set(names) - set(ALL)):
        _report(f"unknown fault {', '.join(unknown)}; expected one of {', '.join(ALL)}")
        return 2
    code, version, results = present_code(), "", list[Result]()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # run exit handlers

    def note(result: Result) -> None:
        results.append(msgspec.structs.replace(result, commit=code, rabbitmq=version))
        keep(results[-1])

    with tempfile.TemporaryDirectory(prefix="notifier-chaos-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with running_stack(folder, arguments.rabbitmq) as stack:
            version = stack.rabbitmq.install.version
            for fault in names:
                played = played_on(code, rabbitmq=version).get(fault, ())
                asyncio.run(_play(stack, fault, arguments, played, note))
    show(by_fault(results) if code.endswith(CHANGED) else played_on(code, rabbitmq=version))
    return 0 if all(result.is_kept for result in results) else 1


async def _play(
    stack: Stack, name: str, arguments: argparse.Namespace, played: Sequence[Result], note: Note
) -> None:
    numbers = missing(arguments.rounds if name in FAULTS else 1, arguments.seed, played)
    if not numbers:
        _report(f"{name}: already played with seed {arguments.seed}")
    elif name in FAULTS:
        await play_all(stack, FAULTS[name], numbers, arguments.seed, note, _report)
    else:
        await play_trial(stack, TRIALS[name], arguments.seed, note, _report)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("names", nargs="*", help=f"faults to inject; all: {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int, default=10, help="rounds per fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rabbitmq", default="", choices=("4", "4.0"), help="its version")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    return arguments


def _report(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
