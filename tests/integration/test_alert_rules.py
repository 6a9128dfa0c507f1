"""The shipped rules as promtool sees them: each fires when it should, and is silent when not."""

from __future__ import annotations

import subprocess

import pytest

from harness.prometheus import ROOT, find_prometheus

PROMETHEUS = ROOT / "deploy/prometheus"


@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "rules/notifier.yml"),
        ("test", "rules", "tests/notifier.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [find_prometheus().promtool, *words],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
