"""Options that several commands share."""

from __future__ import annotations

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
