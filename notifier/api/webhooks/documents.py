"""Documents of webhooks. The command line decodes them, too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, UnsetType

from notifier.api.requests import Note
from notifier.domain import webhooks
from notifier.domain.credentials import Mode
from notifier.domain.tenants import tenant_name
from notifier.domain.webhooks import (
    ALL_NOTIFICATIONS,
    MAX_OVERLAP,
    MAX_URL_LENGTH,
    WebhookStatus,
    shown_secret,
)

MAX_EVENTS = 50
Url = Annotated[
    str,
    Meta(
        max_length=MAX_URL_LENGTH,
        examples=["https://shop.example.com/hooks"],
        description=(
            "Where events are posted to: https, at a public address. The settings may allow http "
            "and private networks."
        ),
    ),
]
EventNames = Annotated[
    list[Annotated[str, Meta(max_length=64)]],
    Meta(
        min_length=1,
        max_length=MAX_EVENTS,
        examples=[[ALL_NOTIFICATIONS]],
        description=(
            "Types of events; notification.* stands for those of notifications that have ended."
        ),
    ),
]


class WebhookRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A URL that is called with events."""

    url: Url
    events: EventNames = msgspec.field(default_factory=lambda: [ALL_NOTIFICATIONS])
    note: Annotated[Note, Meta(description="One line, without control characters.")] = ""


class WebhookChangeRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What changes of a webhook. What is absent stays."""

    url: Url | UnsetType = msgspec.UNSET
    events: EventNames | UnsetType = msgspec.UNSET
    note: Annotated[Note, Meta(description="One line.")] | UnsetType = msgspec.UNSET
    status: WebhookStatus | UnsetType = msgspec.UNSET


class RotateRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """For how long the secret of before signs, too. The body itself is optional."""

    overlap_s: Annotated[float, Meta(ge=0, le=MAX_OVERLAP.total_seconds())] = 86_400.0


class Webhook(msgspec.Struct, kw_only=True):
    """A URL that is called with events.

    `reason` says why it is disabled: request, failing or gone. `tenant` is null for a webhook of
    the deployment. `failing_since` is null if the last call succeeded.
    """

    id: UUID
    tenant: str | None
    mode: Mode
    url: str
    events: Sequence[str]
    status: WebhookStatus
    reason: str | None
    note: str | None
    created_at: datetime
    last_success_at: datetime | None
    last_failure_at: datetime | None
    failing_since: datetime | None

    @classmethod
    def of(cls, stored: webhooks.Webhook) -> Webhook:
        """Builds the document of a webhook."""
        tenant = stored.scope.tenant
        return cls(
            id=stored.id,
            tenant=None if tenant is None else tenant_name(tenant),
            mode=stored.scope.mode,
            url=stored.url,
            events=stored.events,
            status=stored.status,
            reason=stored.reason,
            note=stored.note or None,
            created_at=stored.created_at,
            last_success_at=stored.last_success_at,
            last_failure_at=stored.last_failure_at,
            failing_since=stored.failing_since,
        )


class WebhookWithSecret(Webhook):
    """A webhook that was just made, or whose secret was. `secret` is shown this once."""

    secret: Annotated[
        str, Meta(pattern=r"^whsec_[A-Za-z0-9+/]{43}=$", description="Verifies the signatures.")
    ]

    @classmethod
    def of_new(cls, stored: webhooks.Webhook, secret: bytes) -> WebhookWithSecret:
        """Builds the document of a webhook with its new secret."""
        shown = msgspec.structs.asdict(Webhook.of(stored))
        return cls(**shown, secret=shown_secret(secret))


class WebhookPage(msgspec.Struct):
    """Webhooks, the oldest first. `next_cursor` is null on the last page."""

    items: Sequence[Webhook]
    next_cursor: str | None = None
