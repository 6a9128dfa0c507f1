"""Writes the dashboards and what provisions them: `python -m grafana.generate`.

With `--check` nothing is written; the exit code says whether the files are current.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from grafana.overview import overview
from grafana.providers import providers
from grafana.provisioning import DASHBOARDS, DATASOURCES
from grafana.queue import queue
from grafana.workers import workers

FOLDER: Final = Path(__file__).resolve().parent


def files() -> Mapping[Path, str]:
    """Every file there is to write, with its text."""
    boards = {"overview": overview, "queue": queue, "providers": providers, "workers": workers}
    return {
        FOLDER / "provisioning/datasources/prometheus.yml": DATASOURCES,
        FOLDER / "provisioning/dashboards/notifier.yml": DASHBOARDS,
        **{
            FOLDER / f"dashboards/{name}.json": json.dumps(make(), indent=2) + "\n"
            for name, make in boards.items()
        },
    }


def stale() -> list[str]:
    """The files that are missing, differ, or that nothing writes any more."""
    wanted = files()
    found = {*FOLDER.glob("dashboards/*"), *FOLDER.glob("provisioning/*/*")}
    differing = {path for path, text in wanted.items() if path not in found or _read(path) != text}
    return sorted(str(path.relative_to(FOLDER)) for path in differing | found - wanted.keys())


def write() -> None:
    """Write all of them."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(*words: str) -> int:
    """Write, or check with `--check`; returns the exit code."""
    if "--check" not in words:
        write()
    old = stale()
    if old:
        print(f"not current: {', '.join(old)}: run `python -m grafana.generate`")
    return min(len(old), 1)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
