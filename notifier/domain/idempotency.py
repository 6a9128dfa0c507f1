"""Idempotency keys: a repeated submit with the same key gets the answer of the first one."""

from __future__ import annotations

from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

_BYTES: Final = 16


class IdempotencyKey(NamedTuple):
    """A key as it is stored. `digest` is of the key in its scope, `body` of the submit's JSON."""

    digest: UUID
    body: UUID


def key_digest(tenant: str, mode: str, key: str) -> UUID:
    """Return the digest of a key; the same key of another tenant or mode has another one.

    No name of a tenant or mode contains NUL.
    """
    return digest(f"{tenant}\0{mode}\0{key}".encode())


def digest(document: bytes) -> UUID:
    """Return the first 128 bits of the SHA-256."""
    return UUID(bytes=sha256(document).digest()[:_BYTES])
