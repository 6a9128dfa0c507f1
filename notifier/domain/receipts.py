"""Receipts: what a provider reports later about a message that it accepted.

What receipts make of a notification depends on the set of its receipts alone, not on the order of
their arrival.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from notifier.domain.notification import Status
from notifier.domain.suppressions import SuppressionReason

MAX_RECEIPTS: Final = 1_000
"""How many receipts one request may have."""


class ReceiptEvent(StrEnum):
    """What happened to a message. The provider itself still tries what it has DEFERRED."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    REJECTED = "rejected"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"


class UndeliveredReason(StrEnum):
    """Why a message did not reach its recipient; also the reason of the notification's result."""

    BOUNCED = "bounced"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


_DEFAULT_REASONS: Final = {
    ReceiptEvent.BOUNCED: UndeliveredReason.BOUNCED,
    ReceiptEvent.REJECTED: UndeliveredReason.REJECTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReceipt:
    """A verified receipt whose texts are safe to store.

    `key` is the same for each copy of a receipt of one provider, and for no other one. `reference`
    is the provider's id of the message. `provider_at` is None if the provider does not say when it
    happened. `recipient` is None if it does not say to whom. `reason` None: that of the event.
    """

    key: UUID
    event: ReceiptEvent
    reference: str
    provider_at: datetime | None = None
    recipient: str | None = None
    reason: UndeliveredReason | None = None
    code: str = ""
    detail: str = ""

    @property
    def undelivered_reason(self) -> UndeliveredReason | None:
        """Why the message did not arrive; None if the event does not say that it did not."""
        default = _DEFAULT_REASONS.get(self.event)
        return None if default is None else self.reason or default


class Standing(NamedTuple):
    """What a receipt says about the delivery. Of several the greatest one counts.

    That is the one of the greatest provider time, then a delivery; the rest makes the order total.
    """

    at: datetime
    is_delivered: bool
    reason: str
    code: str

    @property
    def status(self) -> Status:
        """The status of a notification in which it is the greatest."""
        return Status.DELIVERED if self.is_delivered else Status.UNDELIVERED


def standing_of(
    event: ReceiptEvent, at: datetime, reason: UndeliveredReason | None, code: str
) -> Standing | None:
    """Return what a receipt says about the delivery, None if nothing.

    `reason` is None for all events but `bounced` and `rejected`.
    """
    if event is ReceiptEvent.DELIVERED:
        return Standing(at, is_delivered=True, reason="", code=code)
    if reason is None:
        return None
    return Standing(at, is_delivered=False, reason=reason, code=code)


def suppression_reason(
    event: ReceiptEvent, reason: UndeliveredReason | None
) -> SuppressionReason | None:
    """Return why the recipient must get nothing more; None if a receipt is no reason for that.

    A mailbox that does not exist bounces. One that is unreachable may be there tomorrow.
    """
    match event:
        case ReceiptEvent.COMPLAINED:
            return SuppressionReason.COMPLAINT
        case ReceiptEvent.UNSUBSCRIBED:
            return SuppressionReason.UNSUBSCRIBE
        case ReceiptEvent.BOUNCED if reason is UndeliveredReason.BOUNCED:
            return SuppressionReason.BOUNCE
        case _:
            return None


class ReceiptResult(StrEnum):
    """What became of a receipt.

    MATCHED: it is kept with its notification, and counted if it was the greatest. LATE: it is kept,
    but the notification was sent again since, which it does not concern. UNMATCHED: no notification
    was found for it in time.
    """

    MATCHED = "matched"
    LATE = "late"
    UNMATCHED = "unmatched"
