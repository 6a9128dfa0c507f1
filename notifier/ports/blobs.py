"""The store of blobs, one Protocol for each user.

All methods raise StoreUnavailable and StoreRejected, as those of ports/store.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from notifier.domain.blobs import BlobId, StoredBlob
from notifier.domain.notification import NotificationId
from notifier.domain.tenants import TenantId


class BlobStore(Protocol):
    """Stores the blobs of a tenant. Another tenant's blobs do not exist for it."""

    async def keep(self, tenant: TenantId, ids: Collection[BlobId]) -> Mapping[BlobId, StoredBlob]:
        """Return those of the blobs that exist.

        They are kept as long as the notifications of today, so that one may be stored that refers
        to them.
        """
        ...

    async def put(
        self,
        tenant: TenantId,
        id: BlobId,  # noqa: A002 the word for it
        data: bytes,
        *,
        is_mail: bool,
        senders: Sequence[str] = (),
    ) -> bool:
        """Store a blob, to be kept as `keep` does; returns whether it is new.

        One that exists becomes a mail if `is_mail`, and never ceases to be one. `senders` are the
        addresses in From of a mail.
        """
        ...


class BlobReader(Protocol):
    """Reads the blobs of one notification."""

    async def sizes(
        self, notification: NotificationId, ids: Collection[BlobId]
    ) -> Mapping[BlobId, int]:
        """Return the sizes in bytes of those that exist."""
        ...

    async def read(self, notification: NotificationId, id: BlobId) -> bytes | None:  # noqa: A002 the word for it
        """Return the bytes of a blob; None if it does not exist."""
        ...
