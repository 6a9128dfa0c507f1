"""A provider: one way to send on a channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from notifier.domain.notification import (
    NotificationId,
    QueueKey,
)
from notifier.domain.outcome import Outcome


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider needs to send one notification.

    `content` is the decoded document of the submit: `subject`, `body`, `html`, `data`; absent keys
    are absent. `id` is stable per notification: providers derive `Message-ID` and idempotency keys
    from it. `claim` tells attempts apart.
    """

    id: NotificationId
    claim: int
    queue: QueueKey
    recipient: str
    content: Mapping[str, object]


class Provider(Protocol):
    """One way to send on a channel."""

    @property
    def name(self) -> str:
        """The name it has in the settings."""
        ...

    async def send(self, envelope: Envelope) -> Outcome:
        """One attempt. Every expected answer is an Outcome, also time-outs and cut connections.

        When cancelled it lets the connection go and re-raises. The caller bounds it by a timeout
        and takes a cancelled send for Ambiguous.
        """
        ...
