"""API keys: what each may do, for which tenant, and which key a text holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hmac import compare_digest
from typing import Final

from notifier.domain.credentials import KeyId, Mode, parse_credential
from notifier.domain.tenants import TenantId

MAX_KEYS: Final = 100
"""Keys of one tenant and mode that hold, and deployment keys of one mode."""


class KeyScope(StrEnum):
    """What a key may do. ADMIN includes OPERATE, which includes READ; SUBMIT stands alone."""

    SUBMIT = "submit"
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


_INCLUDED: Final[Mapping[KeyScope, frozenset[KeyScope]]] = {
    KeyScope.SUBMIT: frozenset({KeyScope.SUBMIT}),
    KeyScope.READ: frozenset({KeyScope.READ}),
    KeyScope.OPERATE: frozenset({KeyScope.READ, KeyScope.OPERATE}),
    KeyScope.ADMIN: frozenset({KeyScope.READ, KeyScope.OPERATE, KeyScope.ADMIN}),
}


def granted(scopes: Iterable[KeyScope]) -> frozenset[KeyScope]:
    """Return all that keys with these scopes may do."""
    return frozenset[KeyScope]().union(*(_INCLUDED[scope] for scope in scopes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A stored key. `digest` is the SHA-256 of its secret.

    A `tenant` of None makes it a deployment key: it sees all tenants, and the queues, providers and
    pauses of the deployment. `rate_per_s` None: no limit. `created_by` is the actor that made it.
    """

    id: KeyId
    digest: bytes = field(repr=False)
    tenant: TenantId | None
    mode: Mode
    scopes: tuple[KeyScope, ...]
    rate_per_s: float | None = None
    note: str = ""
    created_by: str = ""
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key to be stored."""

    tenant: TenantId | None
    mode: Mode
    scopes: tuple[KeyScope, ...]
    rate_per_s: float | None = None
    note: str = ""
    expires_at: datetime | None = None


_NO_DIGEST: Final = bytes(32)
"""No secret has it: a text that holds no known key is compared with it."""


def find_key(text: str, keys: Mapping[KeyId, Key]) -> Key | None:
    """Return the key whose secret a text holds; None for any other text. Raises nothing.

    Every text is hashed and compared once, in a time that depends on neither the characters of the
    secret nor on whether its id is known. Whether the key has expired is for the caller.
    """
    credential = parse_credential(text)
    key = keys.get(credential.id)
    is_right = compare_digest(credential.digest, _NO_DIGEST if key is None else key.digest)
    return key if is_right and key is not None and key.mode is credential.mode else None
