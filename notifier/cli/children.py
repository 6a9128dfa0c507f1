"""The command lines of the children that `--processes N` runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Final

from cyclopts import Parameter, validators

MAX_PROCESSES: Final = 64

Processes = Annotated[
    int,
    Parameter(
        help="How many of them, kept running by a parent. Metrics ports count up.",
        validator=validators.Number(gte=1, lte=MAX_PROCESSES),
    ),
]
Sibling = Annotated[int | None, Parameter(show=False, help="Which of several this is, from 0.")]


def commands_of(
    command: str,
    processes: int,
    *,
    metrics_port: int,
    found_from: int,
    given: Mapping[str, object],
) -> list[list[str]]:
    """The command of each child: the options given (None was not), its number, its metrics port.

    Each has the port that its number says, counted from `metrics_port`; but from `found_from`,
    where nobody chose, each finds the next free one itself.
    """
    step = 0 if metrics_port == found_from else 1
    return [
        [
            *(sys.executable, "-m", "notifier", command),
            *_words(given),
            *_words({"--metrics-port": metrics_port + step * number, "--sibling": number}),
        ]
        for number in range(processes)
    ]


def _words(options: Mapping[str, object]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items() if value is not None]
