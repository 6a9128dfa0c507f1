"""Options that several commands share."""

from __future__ import annotations

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
