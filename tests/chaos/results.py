"""Results of rounds, stored with the commit they ran on, so that a full run may be split."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Final

import msgspec

ROUNDS: Final = Path(__file__).with_name("rounds.jsonl")
PRODUCT: Final = "notifier"
CHANGED: Final = "-dirty"
DEBIAN_12: Final = "3.10.8"
"""The RabbitMQ of Debian 12, on which the rounds are played unless another one is asked for."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one round. `recovery_s` is None if the system never recovered."""

    fault: str
    round: int
    seed: int
    within_s: float
    variant: str = ""
    commit: str = ""
    rabbitmq: str = DEBIAN_12
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
        """Whether nothing was lost or sent twice unmarked, and recovery was fast enough."""
        is_whole = not (self.lost or self.unmarked or self.broke)
        return is_whole and self.recovered_s <= self.within_s


def present_code() -> str:
    """Return the last commit that changed the product, with `-dirty` if it has changed since."""
    commit = _git("log", "-1", "--format=%h", "--abbrev=12", "--", PRODUCT)
    return commit + (CHANGED if _git("status", "--porcelain", "--", PRODUCT) else "")


def _git(*words: str) -> str:
    where = ["git", "-C", str(Path(__file__).parents[2])]
    return subprocess.run(
        [*where, *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def keep(result: Result, path: Path = ROUNDS) -> None:
    """Append a result to the file at once, unless the code has uncommitted changes."""
    if result.commit.endswith(CHANGED):
        return
    with path.open("ab") as file:
        file.write(msgspec.json.encode(_storable(result)) + b"\n")


def _storable(result: Result) -> Result:
    """Return the result with an infinite recovery replaced by None, since JSON has no infinity."""
    if result.recovered_s < inf:
        return result
    return msgspec.structs.replace(result, recovery_s=None)


def read(path: Path = ROUNDS, *, rabbitmq: str = DEBIAN_12) -> Mapping[str, Sequence[Result]]:
    """Return, by fault, the rounds on this RabbitMQ, of the commit it was played on last."""
    found = by_fault([each for each in _results(path) if each.rabbitmq == rabbitmq])
    return {
        fault: [each for each in rounds if each.commit == rounds[-1].commit]
        for fault, rounds in found.items()
    }


def versions(path: Path = ROUNDS) -> Sequence[str]:
    """Return the versions of RabbitMQ other than Debian 12's on which rounds were played."""
    return sorted({each.rabbitmq for each in _results(path)} - {DEBIAN_12})


def _results(path: Path) -> Sequence[Result]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Result) for line in lines]


def played_on(
    code: str, path: Path = ROUNDS, *, rabbitmq: str = DEBIAN_12
) -> Mapping[str, Sequence[Result]]:
    """Return, by fault, the rounds on this code and RabbitMQ, unless played on later code."""
    found = read(path, rabbitmq=rabbitmq)
    return {name: rounds for name, rounds in found.items() if rounds[-1].commit == code}


def by_fault(results: Sequence[Result]) -> Mapping[str, Sequence[Result]]:
    """Group results by fault, in the order they were played."""
    faults = dict.fromkeys(each.fault for each in results)
    return {fault: [each for each in results if each.fault == fault] for fault in faults}
