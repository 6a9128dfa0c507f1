"""Documents of suppressions. The command line decodes them, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from notifier.api.requests import Instant, Note, TenantName, TopicName
from notifier.api.responses import Problem
from notifier.domain import suppressions

GivenReason = Literal["manual", "bounce", "complaint", "unsubscribe", "gone"]


class SuppressionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A recipient to whom nothing more may be sent on a channel."""

    channel: str
    recipient: Annotated[str, Meta(min_length=1, max_length=4096)]
    topic: Annotated[
        TopicName | None,
        Meta(description="Only notifications of this topic. Absent: all, also transactional ones."),
    ] = None
    reason: Annotated[GivenReason, Meta(description="Why. If absent, manual.")] = "manual"
    note: Annotated[Note, Meta(description="One line, without control characters.")] = ""
    expires_at: Annotated[Instant | None, Meta(description="Absent: never.")] = None
    tenant: Annotated[
        TenantName | None, Meta(description="Whose suppression it is, with a deployment key.")
    ] = None


class Suppression(msgspec.Struct):
    """A suppressed recipient.

    `recipient` is in its normal form, null if it was erased. `topic` is null if all notifications
    are suppressed. `notification` is the one by which it was asked for.
    """

    id: UUID
    channel: str
    recipient: str | None
    topic: str | None
    reason: str
    note: str | None
    notification: UUID | None
    created_at: Instant
    expires_at: Instant | None

    @classmethod
    def of(cls, stored: suppressions.Suppression) -> Suppression:
        """Builds the document of a suppression."""
        return cls(
            id=stored.id,
            channel=stored.channel,
            recipient=stored.recipient,
            topic=stored.topic,
            reason=stored.reason,
            note=stored.note or None,
            notification=stored.notification,
            created_at=stored.created_at,
            expires_at=stored.expires_at,
        )


class SuppressionPage(msgspec.Struct):
    """Suppressions, newest first. `next_cursor` is null on the last page; others may be empty."""

    items: Sequence[Suppression]
    next_cursor: str | None


class RowProblem(msgspec.Struct):
    """The problem of one row of a CSV file that was not stored. The first line is 1."""

    line: int
    problem: Problem


class ImportedSuppressions(msgspec.Struct):
    """How many rows of a CSV file were added, how many existed, and what is wrong with others."""

    added: int
    existing: int
    problems: Sequence[RowProblem]
