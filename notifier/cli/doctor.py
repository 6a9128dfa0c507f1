"""`doctor`: checks settings, servers and processes, and prints how to fix problems."""

from __future__ import annotations

from collections.abc import Sequence

from notifier.cli.environment import read_settings, require_urls
from notifier.cli.failures import FAILED
from notifier.cli.options import AsJson
from notifier.cli.running import run_async
from notifier.cli.setup import with_provider_defaults
from notifier.cli.show import print_json, print_table
from notifier.domain.finding import CheckStatus, Finding


def doctor(*, json: AsJson = False) -> int:
    """Check settings, Postgres, RabbitMQ, providers and processes; change nothing.

    Exit code 0: nothing is wrong (there may be warnings). 1: something is wrong. 2: a setting is
    wrong.
    """
    settings = read_settings()
    with_provider_defaults(settings)  # raises ConfigError with all problems of all providers
    require_urls(settings, "database", "broker")
    from notifier.app.doctor import examine  # noqa: PLC0415 start-up time

    findings = run_async(examine(settings))
    print_json(findings) if json else _print(findings)
    return FAILED if any(finding.status is CheckStatus.WRONG for finding in findings) else 0


def _print(findings: Sequence[Finding]) -> None:
    """Print the table. Rows in sequence with the same finding show the fix once, in the last."""
    following = [*findings[1:], None]
    rows = [
        (finding.check, str(finding.status), _text(finding, has_fix=_differ(finding, next_finding)))
        for finding, next_finding in zip(findings, following, strict=True)
    ]
    print_table(["check", "status", "finding"], rows)


def _differ(finding: Finding, other: Finding | None) -> bool:
    return other is None or (finding.finding, finding.fix) != (other.finding, other.fix)


def _text(finding: Finding, *, has_fix: bool) -> str:
    if finding.fix and has_fix:
        return f"{finding.finding}\n  fix: {finding.fix}"
    return finding.finding
