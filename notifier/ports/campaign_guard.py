"""What the campaign guard needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from notifier.domain.campaign_guard import GuardRule, TagResults


class JudgedTag(NamedTuple):
    """A tag whose results are too bad, and whether it is paused now because of it."""

    results: TagResults
    is_paused: bool


class TagGuard(Protocol):
    """Judges tags by their results, one process at a time. Raises StoreUnavailable."""

    async def judge(self, rule: GuardRule) -> Sequence[JudgedTag]:
        """Pause the tags whose results are too bad, and return them.

        A tag that is paused already is left alone. One that other tenants use, too, is returned and
        not paused. Each is judged once; then its results are counted anew. May be repeated.
        """
        ...
