"""Events as text: a line for people, a frame of a stream for programs."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

import msgspec

from notifier.api.events.documents import Event, NotificationData
from notifier.domain.event_cursor import encode_cursor

if TYPE_CHECKING:
    from notifier.domain import events
    from notifier.domain.event_cursor import EventCursor
    from notifier.ports.events import ReadEvent

_ENCODER: Final = msgspec.json.Encoder()


class JsonEvents:
    """Implements ports.webhooks.EventEncoder."""

    def encode(self, event: events.Event) -> bytes:
        """Returns the JSON document of an event, as streams and pages have it."""
        return _ENCODER.encode(Event.of(event))


def frame_of(read: ReadEvent) -> bytes:
    """Returns an event of a stream (server-sent events); its id is the cursor."""
    document = _ENCODER.encode(Event.of(read.event))
    # In JSON a line break stands between tokens only, where a caller's metadata may have some. In a
    # frame it would begin another field.
    document = document.replace(b"\n", b" ").replace(b"\r", b" ")
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        encode_cursor(read.cursor).encode(),
        read.event.type.encode(),
        document,
    )


def comment_of(cursor: EventCursor | None) -> bytes:
    """Returns a comment, which keeps a stream open through proxies that close silent connections.

    With a cursor it is the last id that the reader has: a quiet stream resumes where it is.
    """
    return b":\n\n" if cursor is None else b":\nid: %b\n\n" % encode_cursor(cursor).encode()


def line_of(event: Event) -> str:
    """Returns an event as one line, such as `2026-11-28T18:40:46Z sms.high ID sent twilio SM1f`."""
    at = f"{event.timestamp.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    try:
        state = msgspec.json.decode(event.data, type=NotificationData).notification
    except msgspec.ValidationError:  # it is not of a notification
        return f"{at} {event.type} {bytes(event.data).decode()}"
    words: list[str | None] = [at, f"{state.channel}.{state.priority}", str(state.id), state.status]
    if state.result is not None:
        result = state.result
        words += [result.reason, result.provider, state.reference or result.code]
    return " ".join("_".join(word.split()) for word in words if word)
