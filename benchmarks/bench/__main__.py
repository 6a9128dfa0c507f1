"""`make bench`: measures Notifier and its peers in turn on the same private servers.

`python -m benchmarks.bench [workload ...] [--rounds N] [--quick]`. The results go into
benchmarks/results/<time>.json and docs/performance.md. With --quick nothing is written: the ratios
are compared with the committed results, and the exit code is 1 if one is below 80 % of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bench import page
from benchmarks.bench.curve import Figures
from benchmarks.bench.judge import Verdict, judge
from benchmarks.bench.limits import NotHere
from benchmarks.bench.machine import machine, versions
from benchmarks.bench.place import Servers, running_servers
from benchmarks.bench.results import Results, Round, load, save
from benchmarks.bench.workloads import (
    QUICK,
    QUICK_SIZE,
    QUICK_WORKLOADS,
    WORKLOADS,
    Size,
)

ROUNDS, QUICK_ROUNDS = 5, 2


def main() -> int:
    wanted = _arguments()
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # a Postgres that root starts runs as another user
        with running_servers(folder) as servers:
            return _quick(servers, wanted) if wanted.quick else _full(servers, wanted)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench")
    parser.add_argument("workloads", nargs="*", help=f"all by default: {', '.join(WORKLOADS)}")
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"per system; {ROUNDS}, or {QUICK_ROUNDS}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="compare ratios with the committed ones"
    )
    parser.add_argument("--systems", nargs="*", default=[], help="only these systems")
    parser.add_argument("--no-save", action="store_true", help="print the figures, write nothing")
    parser.add_argument("--sends", type=int, help="a trial with so many sends; writes nothing")
    parser.add_argument(
        "--past-rows", type=int, help="a trial of `past` with so many rows; writes nothing"
    )
    wanted = parser.parse_args()
    if unknown := sorted(set(wanted.workloads) - set(WORKLOADS)):
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    there = sorted({system for one in WORKLOADS.values() for system in one.measures})
    if unknown := sorted(set(wanted.systems) - set(there)):
        parser.error(f"no system {', '.join(unknown)}; there are {', '.join(there)}")
    wanted.rounds = wanted.rounds or (QUICK_ROUNDS if wanted.quick else ROUNDS)
    return wanted


def _size(wanted: argparse.Namespace) -> Size:
    size = Size()
    if sends := wanted.sends:
        size = replace(size, sends=sends, peer_sends=sends, http_sends=sends, real_sends=sends)
    return replace(size, past_rows=wanted.past_rows) if wanted.past_rows else size


def _full(servers: Servers, wanted: argparse.Namespace) -> int:
    measuring = Measuring(servers, _size(wanted), wanted.rounds, wanted.systems)
    measuring.run(wanted.workloads or list(WORKLOADS))
    if not (wanted.no_save or wanted.sends or wanted.past_rows):
        results = Results(
            date=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            machine=machine(),
            versions=versions(servers),
            rounds=measuring.rounds,
            left_out=measuring.left_out,
        )
        _tell(f"wrote {save(results)}")
        page.write(load())
    return 1 if any(one.error for one in measuring.rounds) else 0


def _quick(servers: Servers, wanted: argparse.Namespace) -> int:
    measuring = Measuring(servers, QUICK_SIZE, wanted.rounds, wanted.systems or QUICK)
    measuring.run(wanted.workloads or QUICK_WORKLOADS)
    verdicts = judge(measuring.rounds, [one for run in load() for one in run.rounds])
    for one in verdicts:
        _say(one)
    is_whole = not any(one.error for one in measuring.rounds)
    return 0 if is_whole and all(one.is_met for one in verdicts) else 1


def _say(one: Verdict) -> None:
    then = "not measured" if one.then is None else f"{one.then:.2f}"
    verdict = "" if one.is_met else "  fallen below 80 %"
    print(f"{one.workload:10} Notifier / {one.peer:10} {one.now:6.2f}  committed {then}{verdict}")


@dataclass(slots=True)
class Measuring:
    """Run the rounds; each round measures every system once."""

    servers: Servers
    size: Size
    count: int
    systems: Sequence[str]
    rounds: list[Round] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def run(self, workloads: Sequence[str]) -> None:
        for workload in workloads:
            if systems := self._systems(workload):
                self._workload(workload, systems)

    def _systems(self, workload: str) -> Sequence[str]:
        there = WORKLOADS[workload].measures
        return [system for system in there if not self.systems or system in self.systems]

    def _workload(self, workload: str, systems: Sequence[str]) -> None:
        with ExitStack() as stack:
            setting = WORKLOADS[workload].setting(self.servers, self.size)
            try:
                servers = stack.enter_context(setting)
            except Exception as error:  # noqa: BLE001 the error is the result of the workload
                failure = f"{type(error).__name__}: {error}"
                _tell(f"{workload}: {failure}")
                self.rounds += [
                    Round(workload=workload, system=system, number=1, error=failure)
                    for system in systems
                ]
                return
            for number in range(1, self.count + 1):
                self._round(servers, workload, systems, number)

    def _round(self, servers: Servers, workload: str, systems: Sequence[str], number: int) -> None:
        for system in systems:
            measure = WORKLOADS[workload].measures[system]
            began, failure = time.monotonic(), ""
            figures: Figures = {}
            try:
                figures = measure(servers, self.size)
            except NotHere as reason:
                self._leave_out(f"{workload} of {system}: {reason}")
                continue
            except Exception as error:  # noqa: BLE001 the error is the result of the round
                failure = f"{type(error).__name__}: {error}"
            self.rounds.append(
                Round(
                    workload=workload, system=system, number=number, figures=figures, error=failure
                )
            )
            took_s = time.monotonic() - began
            _tell(f"{workload} {number} {system}: {failure or _shown(figures)} ({took_s:.0f} s)")

    def _leave_out(self, reason: str) -> None:
        if reason not in self.left_out:
            self.left_out.append(reason)
            _tell(f"left out: {reason}")


def _shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.1f}" for name, value in figures.items())


def _tell(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
