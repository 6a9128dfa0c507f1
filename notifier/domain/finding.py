"""The result of one check of a dependency, and how to fix what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CheckStatus(StrEnum):
    """The result of a check. After a `warning` Notifier works, at least for now or in part."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: its name, its status, one line about what was found, one about how to fix it.

    Neither line contains a secret. `fix` is empty if the status is `ok`.
    """

    check: str
    status: CheckStatus
    finding: str
    fix: str = ""


def ok(check: str, finding: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check=check, status=CheckStatus.OK, finding=_one_line(finding))


def warning(check: str, finding: str, fix: str) -> Finding:
    """Return a finding that somebody should look into, though Notifier works."""
    return Finding(
        check=check, status=CheckStatus.WARNING, finding=_one_line(finding), fix=_one_line(fix)
    )


def wrong(check: str, finding: str, fix: str) -> Finding:
    """Return a finding that keeps Notifier from working or from keeping its promises."""
    return Finding(
        check=check, status=CheckStatus.WRONG, finding=_one_line(finding), fix=_one_line(fix)
    )


def not_checked(check: str, reason: str, fix: str = "fix that first") -> Finding:
    """Return a warning that the check could not be made."""
    return warning(check, f"not checked: {reason}", fix)


def _one_line(text: str) -> str:
    return " ".join(text.split())
