"""A provider: sends notifications of a channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec

from notifier.domain.notification import (
    NotificationId,
    QueueKey,
)
from notifier.domain.outcome import Outcome


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One notification to be sent.

    `content` is the decoded document of the submit: `subject`, `body`, `html` and `data`, of which
    it holds those that were submitted. `id` is the same for all attempts: providers derive
    `Message-ID` and idempotency keys from it. `claim` differs between attempts.
    """

    id: NotificationId
    claim: int
    queue: QueueKey
    recipient: str
    content: Mapping[str, object]


class Provider(Protocol):
    """Sends notifications, for example over SMTP."""

    @property
    def name(self) -> str:
        """The name of the provider in the settings."""
        ...

    async def send(self, envelope: Envelope) -> Outcome:
        """Send once; every expected response, time-out and broken connection is an Outcome.

        Cancelled, it closes its connection and raises CancelledError. The caller limits the time
        and treats a cancelled send as Ambiguous.
        """
        ...


@runtime_checkable
class LimitsConnections(Protocol):
    """A provider that finds how many connections its server takes."""

    @property
    def connection_limit(self) -> int:
        """How many connections this process may have open now, at most `max_connections`."""
        ...
