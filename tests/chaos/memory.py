"""How much memory a process has."""

from __future__ import annotations

from pathlib import Path


def resident_mb(pid: int) -> float:
    """VmRSS of a living process, in MiB (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024
