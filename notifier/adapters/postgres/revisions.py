"""The revisions of the schema, without alembic, which a process need not load."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIGITS: Final = 4


@cache
def known_revisions() -> Sequence[str]:
    """Return all revisions of this version of Notifier, oldest first."""
    versions = files(__package__).joinpath("migrations/versions")
    scripts = (path.name for path in versions.iterdir() if path.name.endswith(".py"))
    return sorted(name[:_DIGITS] for name in scripts if name[:_DIGITS].isdigit())
