"""Writes the dashboards and their provisioning: `python -m grafana.generate`.

With `--check` it writes nothing, and the exit code is 1 if a file is not current.
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
    """Return all generated files with their text."""
    dashboards = {"overview": overview, "queue": queue, "providers": providers, "workers": workers}
    return {
        FOLDER / "provisioning/datasources/prometheus.yml": DATASOURCES,
        FOLDER / "provisioning/dashboards/notifier.yml": DASHBOARDS,
        **{
            FOLDER / f"dashboards/{name}.json": json.dumps(make(), indent=2) + "\n"
            for name, make in dashboards.items()
        },
    }


def stale() -> list[str]:
    """Return the files that are missing, that differ, or that are no longer generated."""
    generated = files()
    present = {*FOLDER.glob("dashboards/*"), *FOLDER.glob("provisioning/*/*")}
    differing = {
        path for path, text in generated.items() if path not in present or _read(path) != text
    }
    return sorted(str(path.relative_to(FOLDER)) for path in differing | present - generated.keys())


def write() -> None:
    """Write all generated files."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(*arguments: str) -> int:
    """Write the files, or only check them with `--check`; return the exit code."""
    if "--check" not in arguments:
        write()
    outdated = stale()
    if outdated:
        print(f"not current: {', '.join(outdated)}: run `python -m grafana.generate`")
    return min(len(outdated), 1)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
