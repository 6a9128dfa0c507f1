"""`doctor`: what is wrong with what Notifier stands on, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence

from notifier.cli.configured import require_urls, settings_with
from notifier.cli.failures import FAILED
from notifier.cli.options import AsJson
from notifier.cli.running import run_briefly
from notifier.cli.setup import with_providers
from notifier.cli.show import print_json, print_table
from notifier.domain.finding import CheckStatus, Finding


def doctor(*, json: AsJson = False) -> int:
    """Check settings, Postgres, RabbitMQ, providers and processes; change nothing.

    Exit code 0 if nothing is wrong (a warning is not), 1 if something is, 2 for a wrong setting.
    """
    settings = settings_with()
    with_providers(settings)  # raises with every fault of every provider
    require_urls(settings, "database", "broker")
    from notifier.app.doctor import examine  # noqa: PLC0415 start-up time

    findings = run_briefly(examine(settings))
    print_json(findings) if json else _print(findings)
    return FAILED if any(one.status is CheckStatus.WRONG for one in findings) else 0


def _print(findings: Sequence[Finding]) -> None:
    """How to mend several in a row that need the same is said once, below the last."""
    following = [*findings[1:], None]
    rows = [
        (one.check, str(one.status), _told(one, is_last=next_one is None or _differ(one, next_one)))
        for one, next_one in zip(findings, following, strict=True)
    ]
    print_table(["check", "status", "finding"], rows)


def _differ(one: Finding, other: Finding) -> bool:
    return (one.finding, one.fix) != (other.finding, other.fix)


def _told(one: Finding, *, is_last: bool) -> str:
    return f"{one.finding}\n  mend: {one.fix}" if one.fix and is_last else one.finding
