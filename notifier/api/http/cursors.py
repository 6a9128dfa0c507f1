"""Cursors of lists: the id or key of the last row of a page, and a digest of what is listed."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from hashlib import blake2b
from typing import Final
from uuid import UUID

import msgspec

from notifier.domain.notification import NotificationId
from notifier.ports.keys import AuditFilter
from notifier.ports.operations import OperationFilter
from notifier.ports.queries import ALL_LIVE, Filter
from notifier.ports.suppressions import SuppressionFilter

AnyFilter = Filter | AuditFilter | SuppressionFilter | OperationFilter
_UUID_BYTES: Final = 16
_DIGEST_BYTES: Final = 8


def cursor_after(last: UUID, selection: AnyFilter) -> str:
    """Returns the cursor of the page after this id. Opaque to callers."""
    return base64.urlsafe_b64encode(last.bytes + _digest(selection)).decode()


def position_in(cursor: str, selection: AnyFilter) -> NotificationId | None:
    """Returns the id after which the page begins, None unless it is a cursor of this filter."""
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != _UUID_BYTES + _DIGEST_BYTES or raw[_UUID_BYTES:] != _digest(selection):
        return None
    return NotificationId(UUID(bytes=raw[:_UUID_BYTES]))


def cursor_after_key(last: str, listed: str) -> str:
    """Returns the cursor of the page after the row with this key. `listed` names the list."""
    raw = blake2b(listed.encode(), digest_size=_DIGEST_BYTES).digest() + last.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def key_in(cursor: str, listed: str) -> str | None:
    """Returns the key after which the page begins, None unless it is a cursor of this list."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = base64.b64decode(padded, altchars=b"-_", validate=True)[_DIGEST_BYTES:].decode()
    except (binascii.Error, ValueError):
        return None
    return key if cursor_after_key(key, listed) == cursor else None


def _digest(selection: AnyFilter) -> bytes:
    whole_list = replace(selection, before=None, limit=0)
    if isinstance(whole_list, Filter):
        whole_list = replace(whole_list, view=ALL_LIVE)  # not a part of what was asked
    return blake2b(msgspec.json.encode(whole_list), digest_size=_DIGEST_BYTES).digest()
