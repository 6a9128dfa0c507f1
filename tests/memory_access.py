"""Keys, tenants and the audit of an API without a database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from notifier.api.auth.gate import KeyAuth
from notifier.api.auth.keyring import Keyring
from notifier.api.auth.rates import KeyRates
from notifier.api.auth.sessions import Sessions
from notifier.domain.credentials import ENTROPY_BYTES, Credential, KeyId, Mode, new_credential
from notifier.domain.keys import Key, KeyScope
from notifier.domain.tenants import Tenant, TenantId
from notifier.ports.keys import (
    AuditPage,
    KeyRefusal,
    KeysRead,
    KeysState,
    TenantRefusal,
    TokenReply,
    TokenRequest,
)


class MemoryAccess:
    """Implements ports.keys.AccessStore and SecretReader: fixed keys and tenants."""

    def __init__(self, *keys: Key, tenants: Sequence[Tenant] = ()) -> None:
        self._keys = keys
        self._tenants = tenants

    async def read(self) -> KeysRead:
        return KeysRead(keys=self._keys, tenants=self._tenants)

    async def state(self) -> KeysState:
        return KeysState(text="", now=datetime.now(UTC))

    async def find(self, ids: Collection[KeyId]) -> Sequence[Key]:
        return [key for key in self._keys if key.id in ids]

    async def keys(self, tenant: TenantId | None) -> Sequence[Key]:
        return [key for key in self._keys if tenant in {None, key.tenant}]

    async def signing_secret(self) -> bytes:
        return bytes(32)

    async def wait_for_change(self, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s)

    async def note_used(self, *_: object) -> None:
        """There are no keys."""

    async def create(self, *_: object) -> Key | KeyRefusal:
        return KeyRefusal.TOO_MANY

    async def revoke(self, *_: object, **_named: object) -> bool:
        return False

    async def tenants(self) -> Sequence[Tenant]:
        return self._tenants

    async def put_tenant(self, tenant: TenantId, *, note: str, **_: object) -> Tenant:
        return Tenant(id=tenant, note=note, created_at=datetime.now(UTC))

    async def delete_tenant(self, *_: object) -> TenantRefusal | None:
        return TenantRefusal.UNKNOWN

    async def audit(self, *_: object) -> AuditPage:
        return AuditPage(entries=[], next_before=None)


class NoRates:
    """Implements ports.keys.KeyRateStore for keys without a rate."""

    async def take(self, requests: Sequence[TokenRequest]) -> Mapping[KeyId, TokenReply]:
        raise AssertionError(f"no key has a rate, got {requests}")


def memory_auth(
    *scopes: KeyScope, tenants: Sequence[Tenant] = (), mode: Mode = Mode.LIVE
) -> tuple[KeyAuth, Credential]:
    """What an API needs to ask for keys, and its only key: a deployment key with these scopes."""
    credential = new_credential(mode, os.urandom(ENTROPY_BYTES))
    key = Key(
        id=credential.id,
        digest=credential.digest,
        tenant=None,
        mode=credential.mode,
        scopes=scopes,
        created_at=datetime.now(UTC),
    )
    access = MemoryAccess(key, tenants=tenants)
    auth = KeyAuth(
        keyring=Keyring(access),
        rates=KeyRates(NoRates(), deadline_s=1.0),
        sessions=Sessions(access, session_s=600.0),
    )
    return auth, credential
