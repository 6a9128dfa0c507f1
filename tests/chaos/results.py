"""What rounds measured, kept with the commit they were played on: a full run may come in parts."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Final

import msgspec

RESULTS: Final = Path(".cache/chaos.jsonl")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One round. `recovery_s` is None if it never recovered."""

    fault: str
    round: int
    seed: int
    within_s: float
    variant: str = ""
    commit: str = ""
    accepted: int = 0
    unanswered: int = 0
    in_flight: int = 0
    final: int = 0
    lost: int = 0
    doubled: int = 0
    unmarked: int = 0
    ambiguous: int = 0
    recovery_s: float | None = None
    broke: str = ""
    evidence: Sequence[str] = ()
    figures: Sequence[str] = ()

    @property
    def recovered_s(self) -> float:
        return inf if self.recovery_s is None else self.recovery_s

    @property
    def is_kept(self) -> bool:
        """Whether the round kept what is promised."""
        is_whole = not (self.lost or self.unmarked or self.broke)
        return is_whole and self.recovered_s <= self.within_s


def present_commit() -> str:
    """The commit of the checkout; with `-dirty` if something is not committed."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--match", "no tag"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def keep(result: Result, path: Path = RESULTS) -> None:
    """Append one: what was found so far outlives what may come."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(_storable(result)) + b"\n")


def _storable(result: Result) -> Result:
    """JSON has no infinity."""
    if result.recovered_s < inf:
        return result
    return msgspec.structs.replace(result, recovery_s=None)


def read(commit: str, path: Path = RESULTS) -> Mapping[str, Sequence[Result]]:
    """The rounds of a commit by fault, in the order in which they were played."""
    if not path.exists():
        return {}
    lines = path.read_bytes().splitlines()
    found = [msgspec.json.decode(line, type=Result) for line in lines]
    faults = dict.fromkeys(each.fault for each in found if each.commit == commit)
    return {
        fault: [each for each in found if each.commit == commit and each.fault == fault]
        for fault in faults
    }
