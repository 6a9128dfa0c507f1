"""Progress of a load run, as its parts report it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Counts finished notifications, for example on a progress bar."""

    def advance(self, count: int) -> None:
        """Record that `count` more are finished."""
        ...
