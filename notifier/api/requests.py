"""The documents of a submit, of a pause and of a refusal, as msgspec reads and writes them.

The OpenAPI document is made from these, so what they say is what is enforced.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from notifier.domain.notification import (
    NotificationId,
    Priority,
    Status,
)

MAX_SUBJECT_LENGTH: Final = 998
"""Characters: as the longest line of a mail (RFC 5322, section 2.1.1)."""
LONGEST_PAUSE_S: Final = 30 * 86_400.0
WHOLE: Final = "$"
"""The name of the whole body, where a field is named."""
_ANY_OBJECT = Meta(extra_json_schema={"type": "object"})
JsonObject = Annotated[msgspec.Raw, _ANY_OBJECT]
OptionalObject = Annotated[
    msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"], "default": None})
]
"""Absent is empty, and a null is kept as such: msgspec knows no `Raw | None`."""
Instant = Annotated[datetime, Meta(tz=True, description="RFC 3339, with an offset.")]


class Content(msgspec.Struct, forbid_unknown_fields=True):
    """What the person gets to see.

    An email needs a subject, body or html; a text message a body; a push a subject, body or data.
    """

    subject: Annotated[str, Meta(max_length=MAX_SUBJECT_LENGTH)] | None = None
    body: str | None = None
    html: str | None = None
    data: OptionalObject = msgspec.field(default_factory=msgspec.Raw)


class Submit(msgspec.Struct, forbid_unknown_fields=True):
    """One notification to one recipient."""

    channel: str
    recipient: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="An email address, an E.164 phone number or a token, as the channel needs.",
        ),
    ]
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

    notifications: msgspec.Raw


class AskPause(msgspec.Struct, forbid_unknown_fields=True):
    """Why, and for how long. All of it may be left out, the body too."""

    reason: Annotated[
        str, Meta(max_length=300, description="One line, without control characters.")
    ] = ""
    for_s: Annotated[
        Annotated[float, Meta(gt=0, le=LONGEST_PAUSE_S)] | None,
        Meta(description="Seconds. Absent: until resumed."),
    ] = msgspec.field(name="for", default=None)


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


class BatchResponse(msgspec.Struct):
    """A result per item, in the order of the items: Accepted or BatchRefusal."""

    results: Sequence[Annotated[object, Meta(extra_json_schema={"oneOf": _RESULTS})]]
