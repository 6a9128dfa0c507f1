"""Suppressions: recipients to whom nothing may be sent on a channel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from notifier.domain.credentials import Mode
from notifier.domain.notification import NotificationId
from notifier.domain.tenants import TenantId

TOPIC_EXPECTED: Final = "a name like newsletter: a-z, 0-9, _ and -, a letter first, at most 64"
TOPIC: Final = r"[a-z][a-z0-9_-]{0,63}"
_TOPIC: Final = re.compile(TOPIC)


class SuppressionReason(StrEnum):
    """Why a recipient is suppressed; also the reason of the notifications that it ends."""

    MANUAL = "manual"
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    GONE = "gone"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class SuppressionScope:
    """Whose suppressions: those of one tenant, for live or for test notifications."""

    tenant: TenantId
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSuppression:
    """A suppression to add. `recipient` is in its normal form; `topic` None: of all topics."""

    channel: str
    recipient: str
    topic: str | None = None
    reason: SuppressionReason = SuppressionReason.MANUAL
    note: str = ""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """A stored suppression. `recipient` None: it was erased, or was known by its hash only.

    `reason` is a text: a later version may have others. `notification` is the one by which it was
    asked for.
    """

    id: UUID
    channel: str
    recipient: str | None
    topic: str | None
    reason: str
    note: str
    notification: NotificationId | None
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class SuppressedOn:
    """What is suppressed of one recipient. `topic` "": all topics."""

    channel: str
    topic: str
    reason: str

    def covers(self, channel: str, topic: str | None) -> bool:
        """Return whether a notification may not be sent."""
        return self.channel == channel and self.topic in {"", topic}


def suppression_of(
    entries: Iterable[SuppressedOn], channel: str, topic: str | None
) -> SuppressedOn | None:
    """Return the entry that forbids a notification, one of all topics before one of its topic."""
    covering = [entry for entry in entries if entry.covers(channel, topic)]
    return min(covering, key=lambda entry: entry.topic, default=None)


def is_topic(text: str) -> bool:
    """Return whether a text is the name of a topic."""
    return _TOPIC.fullmatch(text) is not None
