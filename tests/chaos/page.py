"""`python -m tests.chaos.page`: docs/reliability.md, from what was played on the present commit."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.prove.run import IN_FLIGHT_LEAST
from tests.chaos.faults import FAULTS
from tests.chaos.load import FATES
from tests.chaos.results import Result, present_commit, read
from tests.chaos.round import LATENCY_MS, PACE, RATE
from tests.chaos.table import HEADS, line
from tests.chaos.trials import TRIALS

PAGE: Final = Path("docs/reliability.md")
TEMPLATE: Final = Path(__file__).with_suffix(".md")


def text(found: Mapping[str, Sequence[Result]], commit: str) -> str:
    """The page."""
    faults = {name: rounds for name, rounds in found.items() if name in FAULTS}
    rows = [HEADS, ["---"] * len(HEADS), *(line(rounds) for rounds in faults.values())]
    return TEMPLATE.read_text().format(
        commit=commit,
        rate=RATE,
        before=PACE.before_s,
        after=PACE.after_s,
        latency=LATENCY_MS,
        fates=", ".join(f"{count} `{fate}`" for fate, count in FATES.items()),
        least=IN_FLIGHT_LEAST,
        table="".join(f"| {' | '.join(row)} |\n" for row in rows),
        faults="".join(f"| `{name}` | {FAULTS[name].says} |\n" for name in faults),
        loads="".join(_load(rounds[-1]) for rounds in found.values() if rounds[-1].figures),
    )


def _load(result: Result) -> str:
    says = TRIALS[result.fault].says
    return f"| `{result.fault}` | {says} | {'<br>'.join(result.figures)} |\n"


def main() -> int:
    commit = present_commit()
    found = read(commit)
    if not found:
        sys.stderr.write(f"nothing was played on {commit}: make chaos\n")
        return 1
    PAGE.write_text(text(found, commit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
