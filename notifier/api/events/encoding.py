"""Events as text: a line for people, a frame of a stream for programs."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

import msgspec

from notifier.api.events.documents import Event
from notifier.domain.event_cursor import encode_cursor

if TYPE_CHECKING:
    from notifier.domain import events
    from notifier.ports.events import ReadEvent

COMMENT: Final = b":\n\n"
"""Keeps a stream open through proxies that close silent connections."""
_ENCODER: Final = msgspec.json.Encoder()


class JsonEvents:
    """Implements ports.webhooks.EventEncoder."""

    def encode(self, event: events.Event) -> bytes:
        """Returns the JSON document of an event, as streams and pages have it."""
        return _ENCODER.encode(Event.of(event))


def frame_of(read: ReadEvent) -> bytes:
    """Returns an event of a stream (server-sent events); its id is the cursor."""
    document = _ENCODER.encode(Event.of(read.event))
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        encode_cursor(read.cursor).encode(),
        read.event.type.encode(),
        document,
    )


def line_of(event: events.Event) -> str:
    """Returns an event as one line, such as `2026-11-28T18:40:46Z sms.high ID sent twilio SM1f`."""
    at = f"{event.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    state = event.notification
    if state is None:
        return f"{at} {event.type} {event.document.decode()}"
    words: list[str | None] = [at, f"{state.channel}.{state.priority}", str(state.id), state.status]
    if state.result is not None:
        result = state.result
        words += [result.reason, result.provider, state.reference or result.code]
    return " ".join("_".join(word.split()) for word in words if word)
