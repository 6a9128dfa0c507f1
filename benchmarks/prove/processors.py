"""How busy the processors of the machine are, whoever uses them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Ticks:
    """What all processors together have spent since the machine started; proc(5), /proc/stat."""

    idle: int
    total: int

    @classmethod
    def now(cls) -> Self:
        """Raises OSError where there is no /proc."""
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
        user, nice, system, idle, iowait, *others = map(int, first.split()[1:9])
        return cls(idle + iowait, user + nice + system + idle + iowait + sum(others))

    def busy_since(self, before: Ticks) -> float:
        """Their share of the span since then, 0 to 1."""
        return 1 - (self.idle - before.idle) / (self.total - before.total)
