"""`doctor`: checks settings, servers and processes, and prints how to fix problems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from notifier.cli.environment import read_settings, require_urls
from notifier.cli.failures import FAILED
from notifier.cli.options import AsJson
from notifier.cli.running import run_async
from notifier.cli.setup import with_provider_defaults
from notifier.cli.show import print_json, print_table
from notifier.domain.finding import CheckStatus, Finding
from notifier.settings import Settings


def doctor(
    *,
    data: Annotated[Path, Parameter(help="Data folder of a running `notifier dev`.")] = Path(
        ".notifier"
    ),
    json: AsJson = False,
) -> int:
    """Check settings, Postgres, RabbitMQ, providers and processes; change nothing.

    Where no URL of Postgres is set, a `notifier dev` that runs with the data folder is checked.

    Exit code 0: nothing is wrong (there may be warnings). 1: something is wrong. 2: a setting is
    wrong.
    """
    settings = read_settings()
    with_provider_defaults(settings)  # raises ConfigError with all problems of all providers
    findings = run_async(_examine(settings, data))
    print_json(findings) if json else _print(findings)
    return FAILED if any(finding.status is CheckStatus.WRONG for finding in findings) else 0


async def _examine(settings: Settings, data: Path) -> list[Finding]:
    from notifier.app.doctor import examine  # noqa: PLC0415 start-up time

    if not settings.database.url:
        from notifier.app.dev_file import running_dev  # noqa: PLC0415

        dev = running_dev(data)
        if dev is not None:
            from notifier.app.dev import settings_of_dev  # noqa: PLC0415

            settings, providers = settings_of_dev(settings, dev)
            return await examine(settings, providers=providers)
    require_urls(settings, "database", "broker")
    return await examine(settings)


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
