"""Results of rounds, stored with the code they ran on, so that a full run may be split."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parents[2]
ROUNDS: Final = Path(__file__).with_name("rounds.jsonl")
PLAYED: Final = (
    "notifier",
    "tests/chaos",
    *(f":!tests/chaos/{name}" for name in ("rounds.jsonl", "page.md", "page.py", "table.py")),
)
"""What a round depends on, as pathspecs of git: the product and the faults.

Left out are the page and `harness`, which starts the processes and also serves other tests.
"""
FOLDERS: Final = re.compile(r"(?<![\w.:/])/(?:[\w.@%+-]+/)+")
"""The folders of an absolute path, but not of a URL."""
DEBIAN_12: Final = "3.10.8"
"""The RabbitMQ of Debian 12, on which the rounds are played unless another one is asked for."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one round. `recovery_s` is None if the system never recovered."""

    fault: str
    round: int
    seed: int
    within_s: float
    variant: str = ""
    code: str = ""
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


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """What rounds are played on.

    `digest` is that of the files in `PLAYED`, so it is the same in every clone, whatever else was
    committed. `commit` is the last one that changed them, a name for the reader.
    """

    digest: str
    commit: str
    is_committed: bool = True


def present_code(root: Path = ROOT) -> Code:
    """Return the committed code of this clone, and whether its files are as committed."""
    return Code(
        digest=sha256(_git(root, "ls-files", "--stage", "--", *PLAYED).encode()).hexdigest()[:12],
        commit=_git(root, "log", "-1", "--format=%h", "--abbrev=12", "--", *PLAYED),
        is_committed=not _git(root, "status", "--porcelain", "--", *PLAYED),
    )


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def keep(result: Result, path: Path = ROUNDS) -> None:
    """Append a result to the file at once."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(_storable(result)) + b"\n")


def _storable(result: Result) -> Result:
    """Return the result without what JSON does not have (infinity) and the machine's folders."""
    return msgspec.structs.replace(
        result,
        recovery_s=result.recovery_s if result.recovered_s < inf else None,
        broke=FOLDERS.sub("", result.broke),
        evidence=[FOLDERS.sub("", each) for each in result.evidence],
    )


def played_on(
    code: Code, path: Path = ROUNDS, *, rabbitmq: str = DEBIAN_12
) -> Mapping[str, Sequence[Result]]:
    """Return, by fault, the recorded rounds on this code and RabbitMQ."""
    rounds = [each for each in _results(path) if each.rabbitmq == rabbitmq]
    return by_fault([each for each in rounds if each.code == code.digest])


def newest(
    code: Code, path: Path = ROUNDS, *, rabbitmq: str = DEBIAN_12
) -> Mapping[str, Sequence[Result]]:
    """Return, by fault, the rounds on this code, or if it has none, on the code recorded last."""
    found = by_fault([each for each in _results(path) if each.rabbitmq == rabbitmq])
    last = {
        fault: [each for each in rounds if _code(each) == _code(rounds[-1])]
        for fault, rounds in found.items()
    }
    return {**last, **played_on(code, path, rabbitmq=rabbitmq)}


def _code(result: Result) -> str:
    """Return the code of a result; those of earlier formats have only a commit."""
    return result.code or result.commit


def versions(path: Path = ROUNDS) -> Sequence[str]:
    """Return the versions of RabbitMQ other than Debian 12's on which rounds were played."""
    return sorted({each.rabbitmq for each in _results(path)} - {DEBIAN_12})


def _results(path: Path) -> Sequence[Result]:
    """Return what is recorded; a line that a merge of two parts repeated counts once."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Result) for line in dict.fromkeys(lines)]


def by_fault(results: Sequence[Result]) -> Mapping[str, Sequence[Result]]:
    """Group results by fault, in the order they were played."""
    faults = dict.fromkeys(each.fault for each in results)
    return {fault: [each for each in results if each.fault == fault] for fault in faults}
