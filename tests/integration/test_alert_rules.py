"""The shipped alert rules, checked and tested by promtool."""

from __future__ import annotations

import subprocess

import pytest

from harness.prometheus import ROOT, find_prometheus

PROMETHEUS = ROOT / "deploy/prometheus"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules/notifier.yml"),
        ("test", "rules", "tests/notifier.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_promtool_reports_no_error(arguments: tuple[str, ...]) -> None:
    completed = subprocess.run(
        [find_prometheus().promtool, *arguments],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
