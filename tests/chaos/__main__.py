"""`make chaos`: injects faults into a running Notifier and counts what was lost or sent twice.

`python -m tests.chaos [fault ...] [--rounds N] [--seed N]` starts a private Postgres and RabbitMQ,
plays the rounds of this seed that are not recorded for this code yet, and prints a table of all
rounds. It exits with 1 if in any of them, recorded ones included, a notification was lost or sent
twice without an attempt that explains it, or a recovery took too long.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from harness.rabbitmq import choose_rabbitmq
from harness.stack import Stack, running_stack
from tests.chaos.faults import FAULTS
from tests.chaos.playing import Note, missing, plan, play_all, play_trial
from tests.chaos.results import Code, Result, by_fault, keep, played_on, present_code
from tests.chaos.table import show
from tests.chaos.trials import TRIALS

ALL = (*FAULTS, *TRIALS)


def main() -> int:
    arguments = _arguments()
    names = [name for each in arguments.names for name in each.split(",") if name] or list(ALL)
    if unknown := sorted(set(names) - set(ALL)):
        _report(f"unknown fault {', '.join(unknown)}; expected one of {', '.join(ALL)}")
        return 2
    asked = {name: arguments.rounds if name in FAULTS else 1 for name in names}
    code, version = present_code(), choose_rabbitmq(arguments.rabbitmq).version
    _report(f"code {code.digest}, commit {code.commit}, RabbitMQ {version}")
    for line in plan(asked, arguments.seed, _recorded(code, version)):
        _report(line)
    results = list[Result]()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # run exit handlers

    def note(result: Result) -> None:
        played = msgspec.structs.replace(
            result, code=code.digest, commit=code.commit, rabbitmq=version
        )
        results.append(played)
        # The processes of a round run the files of the working tree, which may have been changed.
        if code.is_committed and present_code() == code:
            keep(played)
        else:
            _report("not recorded: notifier or tests/chaos has uncommitted or new changes")

    with tempfile.TemporaryDirectory(prefix="notifier-chaos-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with running_stack(folder, arguments.rabbitmq) as stack:
            for fault, rounds in asked.items():
                played = _recorded(code, version).get(fault, ())
                numbers = missing(rounds, arguments.seed, played)
                asyncio.run(_play(stack, fault, numbers, arguments.seed, note))
    shown = _recorded(code, version) or by_fault(results)
    show(shown)
    asked_for = [result for name in names for result in shown.get(name, ())]
    return 0 if all(result.is_kept for result in (*results, *asked_for)) else 1


def _recorded(code: Code, version: str) -> Mapping[str, Sequence[Result]]:
    """Return the recorded rounds that count for the files as they are."""
    return played_on(code, rabbitmq=version) if code.is_committed else {}


async def _play(stack: Stack, name: str, numbers: Sequence[int], seed: int, note: Note) -> None:
    if not numbers:
        return
    if name in FAULTS:
        await play_all(stack, FAULTS[name], numbers, seed, note, _report)
    else:
        await play_trial(stack, TRIALS[name], seed, note, _report)


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
