"""Options that several commands share."""

from __future__ import annotations

import math
from typing import Annotated

from cyclopts import Parameter

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]
Url = Annotated[
    str | None,
    Parameter(
        name="--url",
        help="The API to talk to.",
        show_default=lambda _: "where the settings say it listens",
    ),
]


def _require_span(_: object, seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError("Expected a number of seconds above 0.")


Seconds = Annotated[float, Parameter(validator=_require_span)]
"""A span: a finite number above 0."""
