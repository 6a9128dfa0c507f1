"""Suppressions, shared by all processes. All calls raise StoreUnavailable."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from notifier.domain.lookups import LookupScope
from notifier.domain.notification import NewNotification, NotificationId
from notifier.domain.recipients import recipient_identity
from notifier.domain.suppressions import (
    NewSuppression,
    SuppressedOn,
    Suppression,
    SuppressionScope,
)
from notifier.domain.unsubscribing import Unsubscribe
from notifier.ports.keys import Author
from notifier.ports.store import ExpiredRow

UNKNOWN_FOR_S: Final = 2.0
"""For how long at most a process may believe that there are no suppressions at all."""


ONE_CLICK: Final = ("List-Unsubscribe", "One-Click")
"""The field that RFC 8058 puts into the body of the POST that unsubscribes."""


class Recipient(NamedTuple):
    """A recipient in its normal form, of one tenant and mode."""

    scope: LookupScope
    recipient: str

    @classmethod
    def of(cls, item: NewNotification) -> Recipient:
        """Return the recipient of a notification."""
        return cls(item.scope, recipient_identity(item.recipient))


class SuppressionReader(Protocol):
    """What accept asks before it stores a batch."""

    async def has_suppressions(self) -> bool:
        """Return whether there is any suppression."""
        ...

    async def suppressed(
        self, recipients: Collection[Recipient]
    ) -> Mapping[Recipient, Sequence[SuppressedOn]]:
        """Return what is suppressed of those recipients of whom anything is."""
        ...


class RecipientHashes(Protocol):
    """Hashes recipients as suppressions are stored."""

    async def recipient_hashes(self, recipients: Collection[Recipient]) -> Mapping[Recipient, UUID]:
        """Return the hash of each recipient."""
        ...


class AddedSuppression(NamedTuple):
    """A suppression that is stored now, and whether it was before."""

    suppression: Suppression
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionFilter:
    """Selects suppressions of a scope. A field with several values selects any of them.

    An empty field selects all; `recipient` has normal forms; the topic "" is that of suppressions
    of all topics. Only suppressions older than the id `before` are returned, newest first.
    """

    scope: SuppressionScope
    channel: tuple[str, ...] = ()
    recipient: tuple[str, ...] = ()
    topic: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    before: UUID | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionPage:
    """Suppressions, newest first; `next_before` is the cursor of the next page, if there is one."""

    suppressions: Sequence[Suppression]
    next_before: UUID | None


class SuppressionStore(Protocol):
    """Keeps suppressions. Every change of a person is stored with its entry of the audit."""

    async def add(
        self, scope: SuppressionScope, new: Sequence[NewSuppression], author: Author
    ) -> Sequence[AddedSuppression]:
        """Store suppressions, all or none; returns them in their order.

        One that exists is prolonged, never shortened. Once this returns, every process knows that
        there are suppressions.
        """
        ...

    async def suppressions(self, selection: SuppressionFilter) -> SuppressionPage:
        """Return a page of at most `selection.limit`; it may be empty and not the last."""
        ...

    async def remove(
        self,
        scope: SuppressionScope,
        id: UUID,  # noqa: A002 the field's word
        author: Author,
    ) -> bool:
        """Remove a suppression; False if the scope has none with this id."""
        ...


class UnsubscribeReader(Protocol):
    """Reads the tokens of links; implemented by delivery/unsubscribe_links.py."""

    async def read(self, token: str) -> Unsubscribe | None:
        """Return what a token says; None for any text that this deployment has not signed."""
        ...


class UnsubscribeStore(Protocol):
    """Stores the suppressions that recipients ask for themselves."""

    async def unsubscribe(self, wish: Unsubscribe) -> UUID:
        """Store a suppression as SuppressionStore.add does, without an entry of the audit.

        Returns its id. The recipient is read from the notification, if that still exists.
        """
        ...


class SuppressionPort(SuppressionStore, UnsubscribeStore, Protocol):
    """All that people and recipients change."""


class WaitingSuppressor(Protocol):
    """Ends what waits for recipients; implemented by recovery/suppressor.py."""

    async def suppress(self, ids: Collection[UUID]) -> None:
        """End what waits for the recipients of these suppressions."""
        ...


class SuppressionPass(NamedTuple):
    """A suppression whose recipient's waiting notifications are to be looked for.

    `number` counts the passes before. `hash` stands for the recipient. `topic` "": all topics.
    """

    id: UUID
    number: int
    hash: UUID
    channel: str
    topic: str
    reason: str
    is_expired: bool


class MatchingRow(NamedTuple):
    """A notification that waits or is being sent, and the suppression that forbids it."""

    id: NotificationId
    suppression: UUID
    reason: str


class SuppressionPasses(Protocol):
    """Finds and ends what waits for suppressed recipients. Every call may be repeated."""

    async def due(self, ids: Collection[UUID] | None = None) -> Sequence[SuppressionPass]:
        """Return some suppressions whose pass is due, only of these ids if they are given."""
        ...

    async def find(self, passes: Sequence[SuppressionPass]) -> Sequence[MatchingRow]:
        """Return the notifications that lookups find."""
        ...

    async def scan(
        self, passes: Sequence[SuppressionPass], after: UUID | None
    ) -> tuple[Sequence[MatchingRow], UUID | None]:
        """Read some of the rows that may have no lookup, those after this id.

        Returns those that match, and the id after which to go on; None at the end.
        """
        ...

    async def end(self, rows: Sequence[MatchingRow]) -> Sequence[ExpiredRow]:
        """End those that wait; returns them. A row that is being sent or is locked stays."""
        ...

    async def passed(self, passes: Sequence[SuppressionPass], left: Collection[UUID]) -> None:
        """Note that the passes are done; `left` are suppressions of which a row could not end."""
        ...

    async def note_lookups(self, *, are_kept: bool) -> None:
        """Note whether this process stores lookups of recipients with notifications."""
        ...
