"""Collapse keys: a newer notification replaces an older one that waits.

The scope of a key is the tenant, the mode, the channel and the recipient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.domain.idempotency import digest

if TYPE_CHECKING:
    from uuid import UUID


def collapse_digest(tenant: str, mode: str, channel: str, recipient: str, key: str) -> UUID:
    """Return the digest of a collapse key in its scope. No part of it contains NUL."""
    return digest(f"{tenant}\0{mode}\0{channel}\0{recipient}\0{key}".encode())
