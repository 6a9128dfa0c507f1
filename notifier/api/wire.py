"""The documents that come in and go out, as msgspec reads and writes them.

The OpenAPI document is made from these, so what they say is what is enforced.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from notifier.domain.notification import (
    AttemptView,
    FailureView,
    NotificationId,
    NotificationView,
    Priority,
    Status,
)
from notifier.ports import QueueState

_ANY_OBJECT = Meta(extra_json_schema={"type": "object"})
JsonObject = Annotated[msgspec.Raw, _ANY_OBJECT]
OptionalObject = Annotated[
    msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"], "default": None})
]
"""Absent is empty, and a null is kept as such: msgspec knows no `Raw | None`."""
Instant = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset.")]


class Content(msgspec.Struct, forbid_unknown_fields=True):
    """What the person gets to see. Which parts are needed depends on the channel."""

    subject: str | None = None
    body: str | None = None
    html: str | None = None
    data: OptionalObject = msgspec.field(default_factory=msgspec.Raw)


class Submit(msgspec.Struct, forbid_unknown_fields=True):
    """One notification to one recipient."""

    channel: str
    recipient: Annotated[str, Meta(min_length=1, max_length=4096)]
    content: Content
    priority: Priority = Priority.MEDIUM
    ttl: Annotated[
        Annotated[float, Meta(ge=0.001)] | None,
        Meta(description="Seconds from acceptance until it is of no use any more."),
    ] = None
    send_at: Instant | None = None
    max_tries: Annotated[int, Meta(ge=1, le=100)] | None = None
    metadata: OptionalObject = msgspec.field(default_factory=msgspec.Raw)


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """Notifications to be judged and stored one by one."""

    notifications: list[msgspec.Raw]


class Accepted(msgspec.Struct):
    """A notification that is committed."""

    id: NotificationId
    status: Status
    queue: str


class Problem(msgspec.Struct, omit_defaults=True):
    """An RFC 9457 problem. `field` is a dotted path into the request; `$` is all of it."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    expected: str | None = None
    reasons: Sequence[str] | None = None
    results: Sequence[BatchRefusal] | None = None


class BatchRefusal(msgspec.Struct):
    """One item of a batch that was not stored, and why."""

    problem: Problem


_RESULTS: Final = [{"$ref": f"#/components/schemas/{one}"} for one in ("Accepted", "BatchRefusal")]


class BatchAnswer(msgspec.Struct):
    """A result per item, in the order of the items: Accepted or BatchRefusal."""

    results: Sequence[Annotated[object, Meta(extra_json_schema={"oneOf": _RESULTS})]]


class Attempt(msgspec.Struct):
    """One claim that called a provider."""

    claim: int
    provider: str
    outcome: str
    code: str
    detail: str
    queue_wait_s: float
    started_at: Instant
    finished_at: Instant
    next_at: Instant | None
    repeats: int
    late: bool

    @classmethod
    def of(cls, view: AttemptView) -> Attempt:
        """Show an attempt."""
        return cls(**{name: getattr(view, name) for name in cls.__struct_fields__})


class Summary(msgspec.Struct):
    """A notification in a list: without content and attempts."""

    id: NotificationId
    status: Status
    channel: str
    priority: Priority
    queue: str
    recipient: str
    tries: int
    max_tries: int | None
    last_error: str | None
    metadata: JsonObject
    created_at: Instant
    updated_at: Instant
    due_at: Instant | None
    expires_at: Instant

    @classmethod
    def of(cls, view: NotificationView) -> Summary:
        """Show a notification in a list."""
        return cls(**_summary(view))


class Notification(Summary, kw_only=True):
    """A notification with all that became of it."""

    content: JsonObject
    attempts: Sequence[Attempt]

    @classmethod
    def whole(cls, view: NotificationView) -> Notification:
        """Show a notification with its content and attempts."""
        return cls(
            **_summary(view),
            content=msgspec.Raw(view.content),
            attempts=[Attempt.of(one) for one in view.attempts],
        )


def _summary(view: NotificationView) -> dict[str, Any]:
    same = (
        "id",
        "status",
        "recipient",
        "tries",
        "max_tries",
        "last_error",
        "created_at",
        "updated_at",
        "due_at",
        "expires_at",
    )
    return {
        **{name: getattr(view, name) for name in same},
        "channel": view.queue.channel,
        "priority": view.queue.priority,
        "queue": str(view.queue),
        "metadata": msgspec.Raw(view.metadata),
    }


class Failure(msgspec.Struct):
    """One row of the log of failures."""

    id: NotificationId
    channel: str
    priority: Priority
    queue: str
    provider: str
    reason: str
    code: str
    detail: str
    tries: int
    first_at: Instant
    last_at: Instant

    @classmethod
    def of(cls, view: FailureView) -> Failure:
        """Show a failure."""
        same = ("id", "provider", "reason", "code", "detail", "tries", "first_at", "last_at")
        return cls(
            **{name: getattr(view, name) for name in same},
            channel=view.queue.channel,
            priority=view.queue.priority,
            queue=str(view.queue),
        )


class NotificationPage(msgspec.Struct):
    """Notifications, newest first. `next_cursor` asks for the next page; null: there is none."""

    notifications: Sequence[Summary]
    next_cursor: str | None


class FailurePage(msgspec.Struct):
    """Failures, newest first."""

    failures: Sequence[Failure]
    next_cursor: str | None


class Queue(msgspec.Struct):
    """The state of one queue."""

    queue: str
    ready: int
    due: int
    consumers: int
    busy: int
    rate_per_s: float
    oldest_wait_s: float
    limited_by: str
    paused: bool

    @classmethod
    def of(cls, state: QueueState) -> Queue:
        """Show a queue."""
        figures = {name: getattr(state, name) for name in cls.__struct_fields__}
        return cls(**{**figures, "queue": str(state.queue)})


class Health(msgspec.Struct):
    """That all is well."""

    status: str
