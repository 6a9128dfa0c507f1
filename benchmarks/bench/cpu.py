"""CPU time of process trees, from /proc/PID/task/TID/schedstat (Linux)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
Times = Mapping[tuple[int, int], int]
"""Nanoseconds on a CPU by process id and thread id."""


def times(roots: Sequence[int], proc: Path = PROC) -> Times:
    """Return the CPU time of every thread of these processes and of their descendants."""
    found, todo = dict[tuple[int, int], int](), list(roots)
    while todo:
        process = todo.pop()
        for thread in _threads(process, proc):
            folder = proc / f"{process}/task/{thread}"
            try:
                found[process, thread] = int((folder / "schedstat").read_text().split()[0])
                todo += map(int, (folder / "children").read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
    return found


def _threads(process: int, proc: Path) -> Sequence[int]:
    try:
        return [int(path.name) for path in (proc / f"{process}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


@dataclass(slots=True)
class Spent:
    """Adds up what is spent between readings of `times`, by process.

    What a thread spends between its last reading and its end is lost, so read while it runs. A
    thread that the first reading does not have began after it and counts from zero.
    """

    before: Times
    by_process: dict[int, int] = field(default_factory=dict)

    def add(self, now: Times) -> None:
        for (process, thread), spent in now.items():
            since = spent - self.before.get((process, thread), 0)
            self.by_process[process] = self.by_process.get(process, 0) + since
        self.before = now

    @property
    def total(self) -> int:
        return sum(self.by_process.values())
