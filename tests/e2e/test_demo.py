"""`make demo`: the command of the README, run to its end."""

from __future__ import annotations

import subprocess
import sys


def test_the_demo_ends_and_every_total_agrees_with_the_plan() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.demo"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "all totals agree" in done.stdout
