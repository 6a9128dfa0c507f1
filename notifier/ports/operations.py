"""Cancels and retries notifications, one by one or as an operation on many.

Every change of a person is stored with its entry of the audit. All calls raise StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol
from uuid import UUID

from notifier.domain.idempotency import IdempotencyKey
from notifier.domain.notification import NotificationId, NotificationView
from notifier.domain.operations import Operation, OperationKind, OperationStatus
from notifier.ports.keys import Author
from notifier.ports.queries import ALL_LIVE, Filter, View
from notifier.ports.store import ExpiredRow


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOperation:
    """An operation to store. `ids` are its notifications, or else the `selection` finds them.

    `shown` is the same in the words of the API. A repeat with the same `key` stores no other one.
    """

    kind: OperationKind
    selection: Filter
    ids: Sequence[NotificationId] = ()
    shown: Mapping[str, object]
    rate_per_s: float | None
    note: str
    key: IdempotencyKey | None = None


class Counted(NamedTuple):
    """What an operation would find: how many notifications at least, and a few of them."""

    matched: int
    is_exact: bool
    sample: Sequence[NotificationId]


class OperationRefusal(Enum):
    """Why an operation was not stored."""

    TOO_MANY = auto()
    KEY_REUSED = auto()


class Replay(NamedTuple):
    """An earlier operation with the same key and the same request."""

    operation: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFilter:
    """Selects operations that a view may see, newest first, older than the id `before`."""

    view: View = ALL_LIVE
    kind: tuple[OperationKind, ...] = ()
    status: tuple[OperationStatus, ...] = ()
    before: UUID | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationPage:
    """Operations, newest first; `next_before` is the cursor of the next page, if there is one."""

    operations: Sequence[Operation]
    next_before: UUID | None


class Retried(Enum):
    """What became of the wish to send one notification again."""

    DONE = auto()
    WRONG_STATUS = auto()
    SUPPRESSED = auto()
    CONTENT_GONE = auto()


class NotificationControl(Protocol):
    """Cancels or retries one notification."""

    async def cancel(
        self, notification: NotificationView, note: str, author: Author
    ) -> ExpiredRow | None:
        """End a notification that waits as cancelled; None if it does not wait now."""
        ...

    async def retry(self, notification: NotificationView, note: str, author: Author) -> Retried:
        """Let a notification wait again that has ended, and is not sent."""
        ...


class OperationStore(Protocol):
    """Keeps operations."""

    async def create(
        self, new: NewOperation, author: Author
    ) -> Operation | Replay | OperationRefusal:
        """Store an operation of the tenant and mode that its selection views.

        It begins within a second.
        """
        ...

    async def count(self, new: NewOperation) -> Counted:
        """Return what an operation would find now. It reads a bounded number of rows."""
        ...

    async def operation(
        self,
        id: UUID,  # noqa: A002 the field's word
        view: View,
    ) -> Operation | None:
        """Return an operation; None if the view has none with this id."""
        ...

    async def operations(self, selection: OperationFilter) -> OperationPage:
        """Return a page of at most `selection.limit`."""
        ...

    async def stop(
        self,
        id: UUID,  # noqa: A002 the field's word
        view: View,
        note: str,
        author: Author,
    ) -> Operation | None:
        """Stop a running operation: once this returns it changes nothing more.

        Returns it; one that has ended stays as it is. None if the view has none with this id.
        """
        ...


class Step(NamedTuple):
    """One step: the operation after it, what it ended, and how many notifications wait again."""

    operation: Operation
    ended: Sequence[ExpiredRow]
    retried: int


class OperationSteps(Protocol):
    """Carries operations out, by whichever process takes the next step."""

    async def step(self) -> Step | None:
        """Take one step of one operation that is due; None if none is.

        No two processes work on one operation at once. What a step changes and how far it came is
        stored together.
        """
        ...
