"""Webhooks: where they are kept, what calls them, and what their calls result in.

Stores raise StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from notifier.domain.events import Event
from notifier.domain.notification import NewNotification, NotificationId
from notifier.domain.tenants import TenantId
from notifier.domain.webhooks import (
    DisabledReason,
    Webhook,
    WebhookScope,
    WebhookStatus,
    WebhookTarget,
)
from notifier.ports.keys import Author
from notifier.ports.store import NO_TURNS


class WebhookRefusal(StrEnum):
    """Why a webhook was not stored."""

    UNKNOWN_TENANT = "unknown tenant"
    TOO_MANY = "too many webhooks"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """What a person decides of a webhook."""

    url: str
    events: Sequence[str]
    note: str = ""
    status: WebhookStatus = WebhookStatus.ENABLED


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookChange:
    """What a person changes of a webhook. None: it stays as it is."""

    url: str | None = None
    events: Sequence[str] | None = None
    note: str | None = None
    status: WebhookStatus | None = None


class WebhookStore(Protocol):
    """Keeps webhooks. Every change of a person is stored with its entry of the audit."""

    async def create(
        self, scope: WebhookScope, new: NewWebhook, secret: bytes, author: Author
    ) -> Webhook | WebhookRefusal:
        """Store a webhook. A scope has at most MAX_WEBHOOKS."""
        ...

    async def webhooks(self, scope: WebhookScope) -> Sequence[Webhook]:
        """Return all webhooks of a scope, the oldest first."""
        ...

    async def webhook(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the field's word
    ) -> Webhook | None:
        """Return a webhook, None if the scope has none with this id."""
        ...

    async def change(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the field's word
        change: WebhookChange,
        author: Author,
    ) -> Webhook | None:
        """Change a webhook; None if the scope has none with this id.

        Enabled again, or with another URL, it counts as not failing.
        """
        ...

    async def rotate(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the field's word
        secret: bytes,
        overlap_s: float,
        author: Author,
    ) -> Webhook | None:
        """Replace the secret. For `overlap_s` seconds the one before signs, too."""
        ...

    async def delete(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the field's word
        author: Author,
    ) -> bool:
        """Delete a webhook; False if the scope has none with this id."""
        ...


class FanoutState(NamedTuple):
    """That this process may turn events into calls.

    `cursor` is the text of the cursor up to which this is done. None: not begun; then the events
    since `since` are to be read. `since` None: there is no webhook. `is_shared`: several tenants
    have webhooks.
    """

    cursor: str | None
    since: datetime | None
    is_shared: bool


class FanoutStore(Protocol):
    """What one process at a time needs to turn events into calls of webhooks."""

    async def take(self, hold_s: float) -> FanoutState | None:
        """Take, or keep, the right to do it for this many seconds.

        None: nothing is to be done, or another process has it. Without a webhook `since` is None.
        """
        ...

    async def release(self) -> None:
        """Give the right back."""
        ...

    async def enabled(self, tenants: Collection[TenantId | None]) -> Sequence[Webhook]:
        """Return the webhooks of these tenants that are enabled; None: of the deployment."""
        ...

    async def advance(
        self,
        before: str | None,
        after: str,
        calls: Sequence[NewNotification],
        *,
        turns: Mapping[NotificationId, int] = NO_TURNS,
        named: Collection[NotificationId] = (),
    ) -> int | None:
        """Store calls and move the cursor on, in one transaction; returns how many were new.

        Calls that are not in `turns` are stored in turn 0. `named` are the notifications whose
        recipients the calls name. None, and nothing is stored, if one of them was erased
        meanwhile, this process has lost the right, or the cursor is not `before`. A call that is
        stored already is left out.
        """
        ...

    async def expire_surplus(self, most: int) -> int:
        """Count the calls that wait, and let the oldest ones beyond `most` of a webhook expire.

        With very many webhooks fewer wait for each. Returns how many expire.
        """
        ...


class EventEncoder(Protocol):
    """Encodes events as callers read them; implemented by api/events/encoding.py."""

    def encode(self, event: Event) -> bytes:
        """Return the JSON document of an event."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSummary:
    """What the calls of one webhook at one URL resulted in, in seconds before now.

    `succeeded_s` is of the last success, `failed_s` of the last failure, `failing_s` of the first
    failure since the last success; None: there was none.
    """

    url: str
    succeeded_s: float | None = None
    failed_s: float | None = None
    failing_s: float | None = None


class Disabled(NamedTuple):
    """A webhook that was disabled because of its calls."""

    id: UUID
    reason: DisabledReason


class CallStore(Protocol):
    """What the calls of webhooks read and write."""

    async def target(
        self,
        id: UUID,  # noqa: A002 the field's word
    ) -> WebhookTarget | None:
        """Return where a webhook is called, None if it was deleted."""
        ...

    async def note_calls(
        self, summaries: Mapping[UUID, CallSummary], disable_after_s: float
    ) -> Sequence[Disabled]:
        """Note what calls resulted in, and disable the webhooks that have failed for so long.

        A summary for another URL than that of the webhook is left out. Each webhook that is
        disabled has an event.
        """
        ...

    async def disable_gone(
        self,
        id: UUID,  # noqa: A002 the field's word
        url: str,
    ) -> bool:
        """Disable a webhook whose URL answered 410, unless it is or has another URL by now."""
        ...


class Answered(NamedTuple):
    """The HTTP status of an answer. `retry_after_s` is what it asks for, in seconds."""

    status: int
    retry_after_s: float | None = None


class Unanswered(NamedTuple):
    """A call without an answer: `code` says why, `detail` how far it got. No address is in it."""

    code: str
    detail: str = ""


class WebhookTransport(Protocol):
    """Makes the HTTP requests."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> Answered | Unanswered:
        """Post a body to a URL, at a public or allowed address, and read no more than the status.

        Follows no redirect. Cancelled, it closes the connection.
        """
        ...
