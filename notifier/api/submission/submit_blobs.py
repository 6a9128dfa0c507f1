"""The blobs of submits: stores inline files, and finds the blobs that submits refer to.

A blob is kept before the notification that needs it is stored: the day until which it is kept is
raised first, and only reached weeks later.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from notifier.api.http.deadline import deadline
from notifier.api.rules import ApiRules
from notifier.domain.blobs import BLOB_ID_EXPECTED, BlobId, BlobUse, StoredBlob, blob_id
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import NewNotification, NotificationId
from notifier.domain.senders import Senders
from notifier.domain.tenants import KnownTenants, Tenant, TenantId
from notifier.ports.blobs import BlobStore

REMEMBER_S: Final = 60.0
"""How long a blob is known without a question to the store. A newsletter with one file asks once a
minute."""
MAX_REMEMBERED: Final = 10_000
MIME_EXPECTED: Final = "the id of a blob that was uploaded with Content-Type: message/rfc822"


class _Known(NamedTuple):
    blob: StoredBlob
    until: float


class SubmitBlobs:
    """Stores and finds blobs; remembers for a minute which ones exist."""

    def __init__(self, store: BlobStore, rules: ApiRules) -> None:
        self._store = store
        self._deadline_s = rules.request_deadline_s
        self._max_bytes = rules.max_attachment_bytes
        self._known: dict[tuple[TenantId, BlobId], _Known] = {}

    async def keep(
        self,
        items: Sequence[NewNotification],
        tenants: KnownTenants = None,
    ) -> Mapping[NotificationId, InvalidNotification]:
        """Store the inline files of the items; returns the items with wrong blobs, and why.

        A whole mail must be from a sender of its tenant, if `tenants` are known. All other items
        may be stored. Raises the errors of the store.
        """
        wanted = defaultdict[TenantId, dict[BlobId, BlobUse]](dict)
        for item in items:
            uses = wanted[item.tenant]
            for use in item.blobs:
                before = uses.get(use.id)
                if before is None or (before.data is None and use.data is not None):
                    uses[use.id] = use
        if not wanted:
            return {}
        async with deadline(self._deadline_s):
            stored = {tenant: await self._stored(tenant, uses) for tenant, uses in wanted.items()}
        wrong = {
            item.id: self._fault(item, stored[item.tenant], (tenants or {}).get(item.tenant))
            for item in items
            if item.blobs
        }
        return {id_: fault for id_, fault in wrong.items() if fault is not None}

    async def put(
        self, tenant: TenantId, data: bytes, *, is_mail: bool, senders: Sequence[str] = ()
    ) -> tuple[BlobId, bool]:
        """Store a blob; returns its id, and whether it is new. `senders` are those of a mail."""
        id_ = await asyncio.to_thread(blob_id, data)
        async with deadline(self._deadline_s):
            blob = (await self._stored(tenant, {id_: BlobUse(id_, "")})).get(id_)
            if blob is not None and (not is_mail or (blob.is_mail and blob.senders)):
                return id_, False
            is_new = await self._put(tenant, id_, data, is_mail=is_mail, senders=senders)
        return id_, is_new

    async def _stored(
        self, tenant: TenantId, uses: Mapping[BlobId, BlobUse]
    ) -> Mapping[BlobId, StoredBlob]:
        """Returns those that exist, after those of which we have the data are stored."""
        now = time.monotonic()
        found = {
            id_: known.blob
            for id_, use in uses.items()
            if (known := self._known.get((tenant, id_))) is not None
            and known.until > now
            # Another process may have stored it as a mail since, or with its senders.
            and (not use.is_mail or (known.blob.is_mail and known.blob.senders))
        }
        if unknown := [id_ for id_ in uses if id_ not in found]:
            kept = await self._store.keep(tenant, unknown)
            for id_, blob in kept.items():
                self._remember(tenant, id_, blob)
            found |= kept
        for id_, use in uses.items():
            if id_ not in found and use.data is not None:
                await self._put(tenant, id_, use.data, is_mail=False)
                found[id_] = StoredBlob(len(use.data))
        return found

    async def _put(
        self,
        tenant: TenantId,
        id_: BlobId,
        data: bytes,
        *,
        is_mail: bool,
        senders: Sequence[str] = (),
    ) -> bool:
        is_new = await self._store.put(tenant, id_, data, is_mail=is_mail, senders=senders)
        self._remember(tenant, id_, StoredBlob(len(data), is_mail, tuple(senders)))
        return is_new

    def _remember(self, tenant: TenantId, id_: BlobId, blob: StoredBlob) -> None:
        self._known.pop((tenant, id_), None)
        if len(self._known) >= MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[tenant, id_] = _Known(blob, time.monotonic() + REMEMBER_S)

    def _fault(
        self,
        item: NewNotification,
        stored: Mapping[BlobId, StoredBlob],
        tenant: Tenant | None,
    ) -> InvalidNotification | None:
        for use in item.blobs:
            blob = stored.get(use.id)
            if blob is None:
                return InvalidNotification(use.field, BLOB_ID_EXPECTED)
            if use.is_mail and not blob.is_mail:
                return InvalidNotification(use.field, MIME_EXPECTED)
            if use.is_mail and tenant is not None and not _is_from(tenant.senders, blob):
                expected = f"a mail whose From is {tenant.senders.expected}"
                return InvalidNotification(use.field, expected)
        return files_fault(sum(stored[use.id].size for use in item.blobs), self._max_bytes)


def _is_from(senders: Senders, mail: StoredBlob) -> bool:
    """Whether these may be the senders of a mail. They are not known of one of an older version."""
    return senders.allows_all or (
        bool(mail.senders) and all(map(senders.allows_address, mail.senders))
    )


def files_fault(size: int, max_bytes: int) -> InvalidNotification | None:
    """Returns what is wrong with files of so many bytes together; None if nothing is."""
    if size <= max_bytes:
        return None
    return InvalidNotification("content.attachments", f"at most {max_bytes:,} bytes of files")
