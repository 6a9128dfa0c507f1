"""A provider: sends notifications of a channel."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

import msgspec

from notifier.domain.notification import (
    NotificationId,
    QueueKey,
)
from notifier.domain.outcome import Outcome

NO_FILES: Final[Mapping[str, bytes]] = MappingProxyType({})


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One notification to be sent.

    `content` is the decoded document of the submit: `subject`, `body`, `html` and `data`, of which
    it holds those that were submitted. `id` is the same for all attempts: providers derive
    `Message-ID` and idempotency keys from it. `claim` differs between attempts. `files` are the
    bytes of the blobs that the content refers to.
    """

    id: NotificationId
    claim: int
    queue: QueueKey
    recipient: str
    content: Mapping[str, object]
    files: Mapping[str, bytes] = NO_FILES


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


@runtime_checkable
class ParksRecipients(Protocol):
    """A provider that may not call some recipients now: their rows are parked."""

    def parking_s(self, recipient: str) -> float | None:
        """Return for how many seconds a row to this recipient is parked; None: it may be sent.

        A call that may be made must begin before anything else is awaited.
        """
        ...


@runtime_checkable
class CopiesFiles(Protocol):
    """A provider whose calls hold copies of a notification's files."""

    @property
    def file_copies(self) -> int:
        """How many copies a call holds, beside the files themselves."""
        ...
