"""Documents of groups of failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from notifier.api.requests import Instant
from notifier.domain import failures
from notifier.domain.failures import HOURS


class FailureGroup(msgspec.Struct):
    """Failures with the same reason, provider and code, which are null without one.

    `reason` is refused, exhausted, ambiguous, poison or render; later versions may have more.
    `first_at` and `last_at` are when the first and the last one failed. `hours` has the number of
    each hour of UTC, from `begin_at` of the page on, the last being the present one. `sample` is
    the newest notification of the group. The list of notifications and an operation take `reason`,
    `provider` and `code` as filters.
    """

    reason: str
    provider: str | None
    code: str | None
    queues: Sequence[str]
    count: int
    first_at: Instant
    last_at: Instant
    hours: Annotated[Sequence[int], Meta(min_length=HOURS, max_length=HOURS)]
    sample: UUID

    @classmethod
    def of(cls, group: failures.FailureGroup) -> FailureGroup:
        """Builds the document of a group."""
        return cls(
            reason=group.reason,
            provider=group.provider or None,
            code=group.code or None,
            queues=group.queues,
            count=group.count,
            first_at=group.first_at,
            last_at=group.last_at,
            hours=group.hours,
            sample=group.sample,
        )


class FailureGroupPage(msgspec.Struct):
    """The groups with the most failures, always in one page.

    `begin_at` is when the first of the hours began. `is_exact` is false if there are more failures
    than were read: each count is then a minimum, and older notifications are left out.
    """

    items: Sequence[FailureGroup]
    begin_at: Instant
    is_exact: bool
    next_cursor: str | None = None

    @classmethod
    def of(cls, found: failures.FailureGroups) -> FailureGroupPage:
        """Builds the document of groups."""
        return cls(list(map(FailureGroup.of, found.groups)), found.begin_at, found.is_exact)
