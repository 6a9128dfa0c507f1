"""`python -m tests.chaos.page` writes docs/reliability.md from the recorded rounds."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from harness.run import MIN_IN_FLIGHT
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE
from tests.chaos.backlog import MANY
from tests.chaos.faults import FAULTS
from tests.chaos.load import FATES
from tests.chaos.messages import LEAST_MS, LONG_MS
from tests.chaos.results import Result, newest, present_code, versions
from tests.chaos.round import LATENCY_MS, PACE, RATE
from tests.chaos.table import HEADS, line
from tests.chaos.traced import FULL
from tests.chaos.trials import TRIALS

PAGE: Final = Path("docs/reliability.md")
TEMPLATE: Final = Path(__file__).with_suffix(".md")


def text(
    found: Mapping[str, Sequence[Result]],
    others: Mapping[str, Mapping[str, Sequence[Result]]] = MappingProxyType({}),
) -> str:
    """Return the page as Markdown; `others` are rounds by fault on other versions of RabbitMQ."""
    faults = {name: found[name] for name in FAULTS if name in found}
    return TEMPLATE.read_text().format(
        rate=RATE,
        before=PACE.before_s,
        after=PACE.after_s,
        latency=LATENCY_MS,
        fates=", ".join(f"{count} `{fate}`" for fate, count in FATES.items()),
        least=MIN_IN_FLIGHT,
        full=FULL,
        most=MAX_POINTERS_PER_MESSAGE,
        many=MANY,
        short=LEAST_MS,
        long=LONG_MS,
        table=_table(faults),
        others="".join(
            f"\nRabbitMQ {version}: {_table(rounds)}" for version, rounds in others.items()
        ),
        faults="".join(f"| `{name}` | {FAULTS[name].text} |\n" for name in faults),
        loads="".join(_load(found[name][-1]) for name in TRIALS if name in found),
    )


def _table(found: Mapping[str, Sequence[Result]]) -> str:
    """Return from how many rounds on which code the table is, and the table."""
    heads = [*HEADS, "commit"]
    played = [found[name] for name in FAULTS if name in found]
    rounds, faults = Counter[str](), Counter[str]()
    for each in played:
        code = f"`{each[-1].commit}`" + f" (files `{each[-1].code}`)" * bool(each[-1].code)
        rounds[code] += len(each)
        faults[code] += 1
    counts = [
        f"{_count(rounds[code], 'round')} of {_count(faults[code], 'fault')} on commit {code}"
        for code in faults
    ]
    rows = [heads, ["---"] * len(heads), *map(_row, played)]
    return f"{'; '.join(counts)}.\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _row(rounds: Sequence[Result]) -> Sequence[str]:
    return [*line(rounds), f"`{rounds[-1].commit}`"]


def _load(result: Result) -> str:
    text = TRIALS[result.fault].text
    figures = "<br>".join(result.figures)
    return f"| `{result.fault}` | {text} | {figures} | `{result.commit}` |\n"


def main() -> int:
    code = present_code()
    found = newest(code)
    if not found:
        sys.stderr.write("nothing was played: make chaos\n")
        return 1
    others = {version: newest(code, rabbitmq=version) for version in versions()}
    PAGE.write_text(text(found, others))
    return 0


if __name__ == "__main__":
    sys.exit(main())
