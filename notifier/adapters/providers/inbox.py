"""Type `inbox`: writes each notification into the inbox of its recipient, in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from msgspec import Meta

from notifier.adapters.providers.settings import ProviderSettings
from notifier.domain.errors import StoreRejected, StoreUnavailable
from notifier.domain.finding import Finding, ok
from notifier.domain.inbox import INBOX, MAX_ENTRY_BYTES
from notifier.domain.outcome import TIMEOUT, Accepted, Outcome, Refused, Unavailable
from notifier.ports.inbox import InboxWriter, NewEntry
from notifier.ports.provider import Envelope, Provider

_DAY_S = 86_400


class InboxSettings(ProviderSettings, frozen=True, kw_only=True, tag_field="type", tag=INBOX):
    """`[providers.<name>]` with `type = "inbox"`. An entry expires after `keep_days`."""

    keep_days: Annotated[int, Meta(ge=1, le=3650)] = 90

    @property
    def keep_s(self) -> float:
        """For how many seconds an entry is kept."""
        return float(self.keep_days * _DAY_S)


class InboxProvider:
    """Implements ports.provider.Provider.

    The key of an entry is the id of its notification, so sending it again changes nothing, and no
    outcome is ambiguous.
    """

    def __init__(self, name: str, writer: InboxWriter, timeout_s: float) -> None:
        self.name = name
        self._writer = writer
        self._timeout_s = timeout_s

    async def send(self, envelope: Envelope) -> Outcome:
        """Store the entry. Waits for Postgres up to the time-out."""
        entry = _entry(envelope)
        if entry is None:
            return Refused(code="content_unusable", detail="no body", is_local=True)
        if _bytes(entry) > MAX_ENTRY_BYTES:
            detail = f"subject, body and data have more than {MAX_ENTRY_BYTES} bytes"
            return Refused(code="too_large", detail=detail, is_local=True)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._writer.add(entry)
        except StoreRejected:
            return Refused(code="content_unusable", detail="Postgres cannot store it")
        except StoreUnavailable:
            return Unavailable(code="store_unavailable", detail="Postgres did not store it")
        except TimeoutError:
            return Unavailable(code=TIMEOUT, detail=f"not stored in {self._timeout_s:g} s")
        return Accepted(reference=str(envelope.id))


class SandboxWithInbox:
    """Implements ports.provider.Provider for test keys, whose inboxes are in Postgres, too.

    What the sandbox accepts is handed to the writer, which keeps it if it was submitted to the
    channel of inboxes.
    """

    def __init__(self, sandbox: Provider, inbox: InboxProvider) -> None:
        self.name = sandbox.name
        self._sandbox = sandbox
        self._inbox = inbox

    async def send(self, envelope: Envelope) -> Outcome:
        """Send to the sandbox; what it accepts and could be an entry also to the inbox."""
        outcome = await self._sandbox.send(envelope)
        entry = _entry(envelope)
        if not isinstance(outcome, Accepted) or entry is None or _bytes(entry) > MAX_ENTRY_BYTES:
            return outcome
        stored = await self._inbox.send(envelope)
        return outcome if isinstance(stored, Accepted) else stored


class NoWriter:
    """Implements ports.inbox.InboxWriter for a provider that is opened to check its settings."""

    async def add(self, entry: NewEntry) -> None:
        """Refuse it."""
        raise StoreUnavailable(f"no database for the entry {entry.id}")


def _entry(envelope: Envelope) -> NewEntry | None:
    """Return the entry of a notification; None if it has no body."""
    subject, body, data = (envelope.content.get(name) for name in ("subject", "body", "data"))
    if not isinstance(body, str) or not body:
        return None
    return NewEntry(
        id=envelope.id,
        subject=subject if isinstance(subject, str) and subject else None,
        body=body,
        data=msgspec.json.encode(data).decode() if isinstance(data, dict) else None,
    )


def _bytes(entry: NewEntry) -> int:
    return sum(len(part.encode()) for part in (entry.subject, entry.body, entry.data) if part)


@asynccontextmanager
async def open_inbox(name: str, settings: InboxSettings) -> AsyncIterator[InboxProvider]:
    """Yield the provider without a database. See app/providers.py for the one of a worker."""
    yield InboxProvider(name, NoWriter(), settings.timeout_s)


async def check_inbox(name: str, _: InboxSettings) -> Finding:
    """Return the finding of a provider that needs nothing but the database."""
    return ok(f"provider {name}", "the inboxes in Postgres")


def no_receipts(_name: str, _settings: InboxSettings) -> None:
    """Return no verifier: an inbox sends no receipts."""
