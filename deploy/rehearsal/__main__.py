"""`deploy/rehearse`: the compose stack for real, trial after trial, one table, always taken down.

A trial that breaks is a miss; the others go on.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.rehearsal import alone, delivering, images, stopping, watching
from deploy.rehearsal.engine import CommandFailed, EngineAway, require_engine
from deploy.rehearsal.stack import Stack, open_stack
from harness.figure import Figure, Verdict, failed, judge

Trial = Callable[[Stack], Awaitable[Sequence[Figure]]]
TRIALS: Mapping[str, Trial] = {
    "image": alone.small,
    "alone": alone.alone,
    "up": delivering.started,
    "1,000": delivering.thousand,
    "targets": watching.targets,
    "alert": watching.alert,
    "scale": delivering.scaled,
    "restart": delivering.restarted,
    "stop": stopping.stopped,
    "sandbox": delivering.sandbox_restarted,
}
NEEDED = "up"


def main() -> int:
    wanted = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: takes down what is up
    try:
        require_engine()
        with images.provided(forced=wanted.stand_ins, keep=wanted.keep, tell=_tell) as there:
            services = [name for name in there if name != images.PYTHON]
            verdicts = asyncio.run(_rehearse(services, _trials(wanted.names)))
    except (EngineAway, CommandFailed) as error:
        _tell(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    _show(verdicts)
    return 0 if all(one.is_met for one in verdicts) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/rehearse")
    parser.add_argument("names", nargs="*", help=f"which trials; all: {', '.join(TRIALS)}")
    parser.add_argument(
        "--stand-ins", action="store_true", help="images of Debian's packages, without asking first"
    )
    parser.add_argument("--keep", action="store_true", help="keep stand-ins and image for the next")
    wanted = parser.parse_args()
    if unknown := set(wanted.names) - set(TRIALS):
        parser.error(f"no trial {', '.join(sorted(unknown))}")
    return wanted


def _trials(names: Collection[str]) -> Mapping[str, Trial]:
    """Those named, or all, in their order; the stack must be up for any."""
    chosen = {NEEDED, *names} if names else set(TRIALS)
    return {name: trial for name, trial in TRIALS.items() if name in chosen}


async def _rehearse(services: Collection[str], trials: Mapping[str, Trial]) -> list[Verdict]:
    verdicts = list[Verdict]()
    async with open_stack(services) as stack:
        for name, trial in trials.items():
            _tell(name)
            found = await _verdicts(name, trial, stack)
            verdicts += found
            for one in found:
                _tell(f"  {'met' if one.is_met else 'MISSED'}  {one.name}: {one.measured}")
            if name == NEEDED and not all(one.is_met for one in found):
                break
    return verdicts


async def _verdicts(name: str, trial: Trial, stack: Stack) -> list[Verdict]:
    try:
        return judge(name, [await trial(stack)])
    except Exception as error:  # noqa: BLE001 whatever broke the trial is its result
        _tell(await stack.compose("logs", "--tail", "15", "--no-color"))
        return [failed(name, error)]


def _show(verdicts: Sequence[Verdict]) -> None:
    table = Table("trial", "figure", "target", "measured", "")
    for one in verdicts:
        verdict = "[green]met[/]" if one.is_met else "[red]missed[/]"
        table.add_row(*map(escape, (one.line, one.name, one.target, one.measured)), verdict)
    Console(width=140).print(table)


def _tell(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
