"""Groups of failures in memory, behind the port that the API needs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from notifier.domain.failures import FailureGroup, FailureGroups
from notifier.ports.queries import View


class Asked(NamedTuple):
    """What a reader was asked for."""

    begin: datetime
    channels: Collection[str]
    view: View


class MemoryFailureGroups:
    """A FailureGroupReader, which notes what it was asked."""

    def __init__(self, *groups: FailureGroup, is_exact: bool = True) -> None:
        self._groups = groups
        self._is_exact = is_exact
        self.asked: list[Asked] = []
        self.error: Exception | None = None

    async def failure_groups(
        self, begin: datetime, channels: Collection[str], view: View
    ) -> FailureGroups:
        self.asked.append(Asked(begin, channels, view))
        if self.error is not None:
            raise self.error
        return FailureGroups(groups=self._groups, begin_at=begin, is_exact=self._is_exact)
