"""Keys, tenants and the audit, shared by all processes.

Every change is stored together with its entry of the audit. All calls raise StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from notifier.domain.audit import AuditEntry
from notifier.domain.credentials import Credential, KeyId
from notifier.domain.keys import Key, NewKey
from notifier.domain.tenants import NO_TOPICS, Tenant, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who makes a change, and in which request (as in domain.audit.Action)."""

    actor: str
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRead:
    """All keys and tenants as of one read, expired keys included."""

    keys: Sequence[Key]
    tenants: Collection[Tenant] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysState:
    """`text` is another one after each change of keys and tenants.

    `now` is the time of Postgres's clock.
    """

    text: str
    now: datetime


class KeyReader(Protocol):
    """Reads the keys and waits for their changes."""

    async def state(self) -> KeysState:
        """Return what tells whether `read` would return anything else than before."""
        ...

    async def read(self) -> KeysRead:
        """Return all keys and all tenants."""
        ...

    async def find(self, ids: Collection[KeyId]) -> Sequence[Key]:
        """Return those that there are of a few keys."""
        ...

    async def wait_for_change(self, timeout_s: float) -> None:
        """Return when some process changed a key, or after `timeout_s`.

        As ports.controls.ControlReader.wait_for_change: raises nothing, for one caller at a time.
        """
        ...

    async def note_used(self, idle_s: Mapping[KeyId, float]) -> None:
        """Note that each key was used, and how many seconds ago."""
        ...


class KeyRefusal(StrEnum):
    """Why a key was not stored."""

    UNKNOWN_TENANT = "unknown tenant"
    TOO_MANY = "too many keys"


class KeyStore(Protocol):
    """Makes, lists and revokes keys. All processes are notified."""

    async def keys(self, tenant: TenantId | None) -> Sequence[Key]:
        """Return the keys of a tenant, with None all keys, the oldest first."""
        ...

    async def create(self, new: NewKey, credential: Credential, author: Author) -> Key | KeyRefusal:
        """Store a key. A tenant, and the deployment, have at most MAX_KEYS of a mode that hold."""
        ...

    async def revoke(
        self,
        id: KeyId,  # noqa: A002 the field's word
        author: Author,
        *,
        tenant: TenantId | None,
    ) -> bool:
        """Remove a key of this tenant, with None any key; False if there is no such key."""
        ...


class TenantRefusal(StrEnum):
    """Why a tenant was not deleted."""

    UNKNOWN = "there is no such tenant"
    HAS_KEYS = "it has keys"
    HAS_SCHEDULES = "it has schedules"
    BUSY = "notifications of it wait or are being sent"


class TenantStore(Protocol):
    """Keeps the tenants. The default tenant always exists."""

    async def tenants(self) -> Sequence[Tenant]:
        """Return all tenants by name."""
        ...

    async def put_tenant(
        self,
        tenant: TenantId,
        *,
        note: str,
        author: Author,
        senders: Sequence[str] = (),
        locale: str | None = None,
        topics: Mapping[str, str] = NO_TOPICS,
        rate_per_s: float | None = None,
    ) -> Tenant | None:
        """Make a tenant, or change all of its settings.

        Returns None for the name of a deleted tenant of which something is still stored: a new
        tenant would see it.
        """
        ...

    async def delete_tenant(self, tenant: TenantId, author: Author) -> TenantRefusal | None:
        """Delete a tenant; returns why it was not deleted, None if it was."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Selects entries of the audit; unset fields select all, but `tenant` None only with `is_all`.

    `is_all`: entries of all tenants and of the deployment. `created_from` and `created_to` are
    seconds since the epoch; only entries older than `before` are returned, newest first.
    """

    tenant: TenantId | None = None
    is_all: bool = False
    actor: str | None = None
    action: str | None = None
    target: str | None = None
    created_from: float | None = None
    created_to: float | None = None
    before: UUID | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Entries, newest first; `next_before` is the cursor of the next page, None on the last."""

    entries: Sequence[AuditEntry]
    next_before: UUID | None


class AuditReader(Protocol):
    """Reads the audit."""

    async def audit(self, selection: AuditFilter) -> AuditPage:
        """Return a page of at most `selection.limit`; it may be empty and not the last."""
        ...


class AccessStore(KeyReader, KeyStore, TenantStore, AuditReader, Protocol):
    """All that people manage of keys and tenants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """Asks for tokens of a key: at least `first`, at most `wanted` if there are so many."""

    key: KeyId
    rate_per_s: float
    first: float
    wanted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReply:
    """`granted` tokens, 0 for none, and what is `left`: below 0 it is a debt."""

    granted: float
    left: float


class KeyRateStore(Protocol):
    """Keeps how far the rates of keys are used up."""

    async def take(self, requests: Sequence[TokenRequest]) -> Mapping[KeyId, TokenReply]:
        """Take tokens of several keys, each at most once in `requests`, in one statement."""
        ...


class SecretReader(Protocol):
    """Reads the secret with which this deployment signs."""

    async def signing_secret(self) -> bytes:
        """Return the secret that the migration made."""
        ...
