"""Webhooks in memory: for tests of the API."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from uuid_utils.compat import uuid7

from notifier.domain.webhooks import (
    MAX_WEBHOOKS,
    DisabledReason,
    Webhook,
    WebhookScope,
    WebhookStatus,
)
from notifier.ports.webhooks import WebhookRefusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from notifier.ports.keys import Author
    from notifier.ports.webhooks import NewWebhook, WebhookChange


class MemoryWebhooks:
    """Implements notifier.ports.webhooks.WebhookStore."""

    def __init__(self) -> None:
        self.stored: dict[UUID, Webhook] = {}
        self.secrets: dict[UUID, list[bytes]] = {}
        self.authors: list[Author] = []

    async def create(
        self, scope: WebhookScope, new: NewWebhook, secret: bytes, author: Author
    ) -> Webhook | WebhookRefusal:
        if len(await self.webhooks(scope)) >= MAX_WEBHOOKS:
            return WebhookRefusal.TOO_MANY
        webhook = Webhook(
            id=uuid7(),
            scope=scope,
            url=new.url,
            events=new.events,
            status=new.status,
            reason=None,
            note=new.note,
            created_at=datetime.now(UTC),
        )
        self.stored[webhook.id] = webhook
        self.secrets[webhook.id] = [secret]
        self.authors.append(author)
        return webhook

    async def webhooks(self, scope: WebhookScope) -> Sequence[Webhook]:
        return [each for each in self.stored.values() if each.scope == scope]

    async def webhook(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the port's name
    ) -> Webhook | None:
        found = self.stored.get(id)
        return found if found is not None and found.scope == scope else None

    async def change(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the port's name
        change: WebhookChange,
        author: Author,
    ) -> Webhook | None:
        found = await self.webhook(scope, id)
        if found is None:
            return None
        status = found.status if change.status is None else change.status
        changed = replace(
            found,
            url=found.url if change.url is None else change.url,
            events=found.events if change.events is None else change.events,
            note=found.note if change.note is None else change.note,
            status=status,
            reason=DisabledReason.REQUEST if status is WebhookStatus.DISABLED else None,
        )
        self.stored[id] = changed
        self.authors.append(author)
        return changed

    async def rotate(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the port's name
        secret: bytes,
        overlap_s: float,
        author: Author,
    ) -> Webhook | None:
        found = await self.webhook(scope, id)
        if found is not None:
            self.secrets[id] = [secret, *(self.secrets[id][:1] if overlap_s else ())]
            self.authors.append(author)
        return found

    async def delete(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the port's name
        author: Author,
    ) -> bool:
        found = await self.webhook(scope, id)
        if found is None:
            return False
        del self.stored[id]
        self.authors.append(author)
        return True
