"""`make prove`: measures the promised figures on real processes, several rounds of each.

`python -m benchmarks.prove [name ...] [--rounds N]` starts a private Postgres and RabbitMQ, runs
one measurement after the other, prints a table and exits with 1 on a miss. An error is a miss.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import promises
from benchmarks.bench.machine import commit
from benchmarks.prove.lines import LINES, Measurement
from harness.figure import Figure, Verdict, failed, judge
from harness.run import TooFewInFlight
from harness.stack import Stack, running_stack

REPEATS = 5
RESULTS = Path(".cache/prove.tsv")


def main() -> int:
    wanted = _arguments()
    unknown = sorted(set(wanted.names) - set(LINES))
    if unknown:
        _tell(f"no line {', '.join(unknown)}; there are {', '.join(LINES)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="notifier-prove-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        verdicts = _measure_all(folder, wanted.names or list(LINES), wanted.rounds)
    _show(verdicts)
    if wanted.save:
        _save(verdicts)
    return 0 if all(one.is_met for one in verdicts) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prove")
    parser.add_argument("names", nargs="*", help=f"which ones; all by default: {', '.join(LINES)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each; the median counts")
    parser.add_argument("--save", action="store_true", help="save them for docs/performance.md")
    wanted = parser.parse_args()
    if wanted.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    return wanted


def _measure_all(folder: Path, names: Sequence[str], rounds: int) -> list[Verdict]:
    verdicts = list[Verdict]()
    with (
        running_stack(folder) as stack,
        (folder / "logs").open("w") as logs,
        redirect_stdout(logs),
    ):
        for name in names:
            found = _measure(stack, name, rounds)
            _append(found)
            verdicts += found
    return verdicts


def _measure(stack: Stack, name: str, rounds: int) -> list[Verdict]:
    """Return the verdicts of one measurement; an error ends it but not the others."""
    done = list[Sequence[Figure]]()
    try:
        for number in range(1, rounds + 1):
            began = time.monotonic()
            _tell(f"{name}: round {number} of {rounds}")
            done.append(asyncio.run(_counted(LINES[name], stack)))
            _tell(f"{name}: round {number} took {time.monotonic() - began:.0f} s")
    except Exception as error:  # noqa: BLE001 the error is its result
        _tell(f"{name}: {type(error).__name__}: {error}")
        return [failed(name, error)]
    return judge(name, done)


async def _counted(line: Measurement, stack: Stack) -> Sequence[Figure]:
    """Repeat a round until enough was in flight when its fault began."""
    for _ in range(REPEATS):
        try:
            return await line(stack)
        except* TooFewInFlight as errors:
            _tell(f"does not count: {errors.exceptions[0]}")
    raise TooFewInFlight(f"in {REPEATS} rounds")


def _append(verdicts: Sequence[Verdict]) -> None:
    """Save after each measurement, so that a later error loses nothing."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        for one in verdicts:
            verdict = "met" if one.is_met else "missed"
            file.write(f"{one.line}\t{one.name}\t{one.target}\t{one.measured}\t{verdict}\n")
            _tell(f"{verdict:6}  {one.name}: {one.measured}, target {one.target}")


def _save(verdicts: Sequence[Verdict]) -> None:
    at = commit()
    promises.save(
        [
            promises.Row(one.line, one.name, one.target, one.measured, _verdict(one), at)
            for one in verdicts
        ]
    )


def _verdict(one: Verdict) -> str:
    if one.target == "-":
        return ""
    return "met" if one.is_met else "missed"


def _show(verdicts: Sequence[Verdict]) -> None:
    table = Table("line", "figure", "target", "measured", "")
    for one in verdicts:
        verdict = "[green]met[/]" if one.is_met else "[red]missed[/]"
        table.add_row(*map(escape, (one.line, one.name, one.target, one.measured)), verdict)
    Console(width=160).print(table)


def _tell(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
