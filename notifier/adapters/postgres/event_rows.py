"""Turns rows of `event_batches` into events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from notifier.adapters.postgres.queue_names import channel_of, mode_of
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import Mode
from notifier.domain.events import (
    NOTIFICATION_PREFIX,
    Event,
    EventResult,
    EventType,
    NotificationState,
    event_id,
)
from notifier.domain.notification import EndReason, NotificationId
from notifier.domain.tenants import TenantId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.domain.events import EventFilter

_OF_RECEIPTS: Final = frozenset({EventType.DELIVERED, EventType.UNDELIVERED, EventType.COMPLAINED})
_OF_ATTEMPTS: Final = _OF_RECEIPTS | {EventType.SENT, EventType.FAILED, EventType.RETRYING}
"""Events that show what the provider answered."""
_OF_ENDS: Final = frozenset(
    {EventType.DELIVERED, EventType.UNDELIVERED, EventType.FAILED, EventType.EXPIRED}
)
_TTL: Final = "ttl"


class EventRow(NamedTuple):
    """What is stored of one event. `claim` None: it is not of a notification."""

    xid: int
    at: datetime
    type: str
    reason: str
    id: UUID
    claim: int | None
    tries: int
    tenant: str | None
    mode: str | None
    document: str | None

    def may_match(self, selection: EventFilter) -> bool:
        """Whether a filter may select it, as far as this can say it."""
        if selection.types and self.type not in selection.types:
            return False
        if self.claim is None:
            return not selection.selects_notifications
        return not selection.notifications or self.id in selection.notifications


def event_rows(batch: Record) -> Sequence[EventRow]:
    """Return the events of a row of `event_batches`, in their order."""
    xid, at, type_, reason = batch["xid"], batch["at"], batch["type"], batch["reason"]
    if batch["claims"] is not None:
        numbered = zip(batch["ids"], batch["claims"], batch["tries"], strict=True)
        return [
            EventRow(xid, at, type_, reason, id_, claim, tries, None, None, None)
            for id_, claim, tries in numbered
        ]
    documents = zip(batch["ids"], batch["documents"], strict=True)
    tenant, mode = batch["tenant"], batch["mode"]
    return [
        EventRow(xid, at, type_, reason, id_, None, 0, tenant, mode, document)
        for id_, document in documents
    ]


class ShownRows:
    """Makes events of rows whose notifications were read together."""

    def __init__(self, found: Mapping[EventRow, Record], recipients: Mapping[UUID, str]) -> None:
        self._found = found
        self._recipients = recipients

    @classmethod
    async def read(cls, connection: Connection[Record], rows: Sequence[EventRow]) -> ShownRows:
        """Read what the events of these rows show."""
        created = [row.id for row in rows if row.type == EventType.SUPPRESSION_CREATED]
        recipients: dict[UUID, str] = {}
        if created:
            stored = await connection.fetch(statement("event_recipients"), created)
            recipients = {record["id"]: record["recipient"] for record in stored}
        by_type: dict[str, list[EventRow]] = {}
        for row in rows:
            if row.claim is not None:
                by_type.setdefault(row.type, []).append(row)
        found: dict[EventRow, Record] = {}
        for type_, of_type in by_type.items():
            records = await connection.fetch(
                statement("events_notifications"),
                [row.id for row in of_type],
                [row.claim for row in of_type],
                type_ in _OF_ATTEMPTS,
                _end_status(type_),
                type_ in _OF_RECEIPTS,
            )
            found |= {of_type[record["number"] - 1]: record for record in records}
        return cls(found, recipients)

    def event(self, row: EventRow) -> Event | None:
        """Return the event of a row; None if its notification was not read, or is dropped."""
        if row.claim is None:
            return Event(
                id=event_id(row.type, NotificationId(row.id), row.xid, row.at),
                type=row.type,
                at=row.at,
                tenant=None if row.tenant is None else TenantId(row.tenant),
                mode=None if row.mode is None else Mode(row.mode),
                document=self._document(row),
            )
        record = self._found.get(row)
        if record is None:
            return None
        state = _state(row, record)
        return Event(
            id=event_id(row.type, state.id, row.claim, row.at),
            type=row.type,
            at=row.at,
            tenant=TenantId(record["tenant"]),
            mode=state.mode,
            notification=state,
        )

    def _document(self, row: EventRow) -> bytes:
        document = (row.document or "{}").encode()
        if row.type != EventType.SUPPRESSION_CREATED:
            return document
        shown = msgspec.json.decode(document, type=dict[str, dict[str, object]])
        for fields in shown.values():
            fields["recipient"] = self._recipients.get(row.id)
        return msgspec.json.encode(shown)


def _end_status(type_: str) -> str | None:
    """Return the status that an event of this type gave a notification at its end, if it did."""
    return type_.removeprefix(NOTIFICATION_PREFIX) if type_ in _OF_ENDS else None


def _state(row: EventRow, record: Record) -> NotificationState:
    status, reason = row.type.removeprefix(NOTIFICATION_PREFIX), row.reason or None
    if row.type == EventType.EXPIRED:
        reason = reason or _TTL
    elif row.type == EventType.COMPLAINED:  # the status stays, and stands in place of a reason
        status, reason = row.reason, EndReason.COMPLAINT
    return NotificationState(
        id=NotificationId(row.id),
        mode=mode_of(record),
        status=status,
        channel=channel_of(record),
        priority=record["queue"].rpartition(".")[2],
        recipient=record["recipient"],
        tag=record["tag"],
        topic=record["topic"],
        tries=row.tries,
        reference=record["reference"] or None,
        metadata=record["metadata"],
        result=EventResult(
            reason=reason,
            provider=record["provider"] or None,
            code=record["code"] or None,
            detail=record["detail"] or None,
            at=record["result_at"] or row.at,
        ),
    )
