"""The command lines of the child processes that `--processes N` runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Final

from cyclopts import Parameter, validators

MAX_PROCESSES: Final = 64

Processes = Annotated[
    int,
    Parameter(
        help="Number of processes, restarted by a parent. Each has the next metrics port.",
        validator=validators.Number(gte=1, lte=MAX_PROCESSES),
    ),
]
ProcessNumber = Annotated[
    int | None, Parameter(show=False, help="Number of this child process, from 0.")
]


def child_commands(
    command: str,
    processes: int,
    *,
    metrics_port: int,
    default_metrics_port: int,
    options: Mapping[str, object],
) -> list[list[str]]:
    """Return the command line of each child: its options, metrics port and process number.

    Options that are None are left out. The metrics ports count up from `metrics_port`. If that is
    the default, every child gets the same port and takes the next free one from there.
    """
    step = 0 if metrics_port == default_metrics_port else 1
    return [
        [
            *(sys.executable, "-m", "notifier", command),
            *_arguments(options),
            *_arguments(
                {"--metrics-port": metrics_port + step * number, "--process-number": number}
            ),
        ]
        for number in range(processes)
    ]


def _arguments(options: Mapping[str, object]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items() if value is not None]
