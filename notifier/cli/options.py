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
        help="URL of the API.",
        show_default=lambda _: "the address of [api] in the settings",
    ),
]


def _require_positive(_: object, seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError("Expected a number of seconds above 0.")


Seconds = Annotated[float, Parameter(validator=_require_positive)]
"""A duration in seconds: a finite number above 0."""
