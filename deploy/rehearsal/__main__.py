"""`deploy/rehearse`: runs the compose stack, one trial after the other, and prints a table.

A trial that raises counts as missed, and the next one runs. The stack is always removed.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.rehearsal import alone, delivering, images, stopping, watching
from deploy.rehearsal.engine import CommandFailed, EngineUnavailable, require_engine
from deploy.rehearsal.log import log
from deploy.rehearsal.stack import Stack, open_stack
from harness.figure import Figure, Verdict, failed, judge

Trial = Callable[[Stack], Awaitable[Sequence[Figure]]]
TRIALS: Mapping[str, Trial] = {
    "image": alone.image_size,
    "alone": alone.runs_alone,
    "up": delivering.started,
    "1,000": delivering.thousand,
    "targets": watching.targets,
    "alert": watching.alert,
    "scale": delivering.scaled,
    "restart": delivering.restarted,
    "stop": stopping.stopped,
    "sandbox": delivering.sandbox_restarted,
}
REQUIRED = "up"


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: removes the stack
    try:
        require_engine()
        with images.available_images(
            only_stand_ins=options.stand_ins, keep=options.keep
        ) as available:
            services = [name for name in available if name != images.PYTHON]
            verdicts = asyncio.run(_rehearse(services, _trials(options.names)))
    except (EngineUnavailable, CommandFailed) as error:
        log(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    _show(verdicts)
    return 0 if all(verdict.is_met for verdict in verdicts) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/rehearse")
    parser.add_argument("names", nargs="*", help=f"trials to run, default all: {', '.join(TRIALS)}")
    parser.add_argument(
        "--stand-ins",
        action="store_true",
        help="build all images from Debian packages, without pulling",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the built images for the next run"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(TRIALS):
        parser.error(f"no trial {', '.join(sorted(unknown))}, expected: {', '.join(TRIALS)}")
    return options


def _trials(names: Collection[str]) -> Mapping[str, Trial]:
    """Return the named trials, or all, in their order, always with the trial `up`."""
    chosen = {REQUIRED, *names} if names else set(TRIALS)
    return {name: trial for name, trial in TRIALS.items() if name in chosen}


async def _rehearse(services: Collection[str], trials: Mapping[str, Trial]) -> list[Verdict]:
    verdicts = list[Verdict]()
    async with open_stack(services) as stack:
        for name, trial in trials.items():
            log(name)
            of_trial = await _verdicts(name, trial, stack)
            verdicts += of_trial
            for verdict in of_trial:
                result = "met" if verdict.is_met else "MISSED"
                log(f"  {result}  {verdict.name}: {verdict.measured}")
            if name == REQUIRED and not all(verdict.is_met for verdict in of_trial):
                break
    return verdicts


async def _verdicts(name: str, trial: Trial, stack: Stack) -> list[Verdict]:
    try:
        return judge(name, [await trial(stack)])
    except Exception as error:  # noqa: BLE001 any error is the result of the trial
        log(await stack.compose("logs", "--tail", "15", "--no-color"))
        return [failed(name, error)]


def _show(verdicts: Sequence[Verdict]) -> None:
    table = Table("trial", "figure", "target", "measured", "")
    for verdict in verdicts:
        result = "[green]met[/]" if verdict.is_met else "[red]missed[/]"
        cells = (verdict.line, verdict.name, verdict.target, verdict.measured)
        table.add_row(*map(escape, cells), result)
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
