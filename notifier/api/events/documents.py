"""Documents of events. The command line decodes them, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from notifier.api.requests import Instant, JsonObject
from notifier.api.responses import Result
from notifier.domain import events
from notifier.domain.credentials import Mode
from notifier.domain.notification import NotificationId
from notifier.domain.tenants import tenant_name

_ENCODER = msgspec.json.Encoder()


class EventNotification(msgspec.Struct, kw_only=True):
    """A notification at the time of an event, without its content.

    `result` is of the attempt if its `reason` is null: what the provider answered.
    """

    id: NotificationId
    mode: Mode
    status: str
    channel: str
    priority: str
    recipient: str
    tag: str | None
    topic: str | None
    tries: int
    reference: str | None
    metadata: JsonObject
    result: Result | None


class NotificationData(msgspec.Struct):
    """The `data` of an event of a notification."""

    notification: EventNotification


class Event(msgspec.Struct, kw_only=True):
    """Something that happened. The same event always has the same id.

    `tenant` is null for what concerns the deployment. `data` has one member, whose name is the
    first part of the type, such as `notification`. Later versions may have more types and members.
    """

    id: UUID
    type: str
    timestamp: Instant
    tenant: str | None
    data: Annotated[
        JsonObject,
        Meta(
            description=(
                "Of the types notification.*: `notification` with id, mode, status, channel, "
                "priority, recipient, tag, topic, tries, reference, metadata and result."
            )
        ),
    ]

    @classmethod
    def of(cls, event: events.Event) -> Event:
        """Builds the document of an event."""
        return cls(
            id=event.id,
            type=event.type,
            timestamp=event.at,
            tenant=None if event.tenant is None else tenant_name(event.tenant),
            data=msgspec.Raw(_data(event)),
        )


class EventPage(msgspec.Struct):
    """Events in the order in which they were committed.

    `next_cursor` is never null: with it the next page has what happened meanwhile. A page may be
    shorter than the limit, even empty, if few events match; `has_more` says whether there may be
    more already.
    """

    items: Sequence[Event]
    next_cursor: str
    has_more: bool


def _data(event: events.Event) -> bytes:
    state = event.notification
    if state is None:
        return event.document
    shown = EventNotification(
        id=state.id,
        mode=state.mode,
        status=state.status,
        channel=state.channel,
        priority=state.priority,
        recipient=state.recipient,
        tag=state.tag,
        topic=state.topic,
        tries=state.tries,
        reference=state.reference,
        metadata=msgspec.Raw(state.metadata),
        result=None if state.result is None else _result(state.result),
    )
    return _ENCODER.encode(NotificationData(shown))


def _result(result: events.EventResult) -> Result:
    return Result(
        reason=result.reason,
        provider=result.provider,
        code=result.code,
        detail=result.detail,
        at=result.at,
    )
