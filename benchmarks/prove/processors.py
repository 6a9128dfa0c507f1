"""Processor time: the share that the whole machine uses, and what one process has used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Ticks:
    """Processor time of the machine since its start, from /proc/stat (see proc(5))."""

    idle: int
    total: int

    @classmethod
    def now(cls) -> Self:
        """Read the times. Raises OSError where there is no /proc."""
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
        user, nice, system, idle, iowait, *others = map(int, first.split()[1:9])
        return cls(idle + iowait, user + nice + system + idle + iowait + sum(others))

    def busy_since(self, before: Ticks) -> float:
        """Return the busy share since an earlier reading, 0 to 1."""
        return 1 - (self.idle - before.idle) / (self.total - before.total)


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, from /proc (see proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
