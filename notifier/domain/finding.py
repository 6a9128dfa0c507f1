"""What a check-up found of one thing we stand on, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How one thing is; `warning` lets everything run, for now or in part."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: its name, how it ended, and a line each of what was seen and what to do.

    Neither line holds a secret. `mend` is empty where all is well.
    """

    check: str
    status: Health
    finding: str
    fix: str = ""


def fine(check: str, finding: str) -> Finding:
    """All is well."""
    return Finding(check=check, status=Health.OK, finding=_line(finding))


def doubtful(check: str, finding: str, fix: str) -> Finding:
    """It works, and somebody should look at it."""
    return Finding(check=check, status=Health.WARNING, finding=_line(finding), fix=_line(fix))


def wrong(check: str, finding: str, fix: str) -> Finding:
    """It does not work, or does not keep what is promised."""
    return Finding(check=check, status=Health.WRONG, finding=_line(finding), fix=_line(fix))


def unchecked(check: str, because: str, fix: str = "put that right first") -> Finding:
    """It could not be looked at."""
    return doubtful(check, f"not checked: {because}", fix)


def _line(text: str) -> str:
    return " ".join(text.split())
