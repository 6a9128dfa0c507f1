"""Sends a stream of server-sent events, of whatever kind, until it ends or its reader leaves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from notifier.api.http.raw_response import RawResponse, added_headers
from notifier.api.http.request_id import HEADER, request_id
from notifier.domain.errors import StoreError
from notifier.lifecycle import Clock, uptime_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from litestar.types import HTTPResponseStartEvent, Receive, Scope, Send

STREAM: Final = "text/event-stream"
COMMENT_INTERVAL_S: Final = 15.0
COMMENT: Final = b":\n\n"
"""Keeps a stream open through proxies that close silent connections."""
END_TIMEOUT_S: Final = 1.0
"""How long a stream that is closed may take to send what it sends."""
MAX_WRITE_BYTES: Final = 64 * 1024
_HEADERS: Final = (
    (b"content-type", STREAM.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


def stream_head(headers: Sequence[tuple[bytes, bytes]] = ()) -> RawResponse:
    """Returns the answer to a HEAD request for a stream."""
    return RawResponse(200, b"", (_HEADERS[0], *headers))


class ServerSentEvents:
    """The sending of one stream."""

    def __init__(self, clock: Clock = uptime_s) -> None:
        self._clock = clock
        self._sent_at = clock()

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        frames: AsyncIterator[Iterable[bytes]],
        closed: asyncio.Event,
    ) -> None:
        """Answer with frames until they end, the reader leaves, or `closed` is set.

        An error of the store ends the stream: the reader connects again.
        """
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                *_HEADERS,
                *added_headers(scope),
                (HEADER.lower().encode(), request_id(scope).encode()),
            ],
        }
        await send(start)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write(frames, send), name="event stream")
            leaving = group.create_task(_until_left(receive), name="event stream reader")
            closing = group.create_task(closed.wait(), name="event stream end")
            tasks = (writing, leaving, closing)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if closing.done() and not leaving.done():
                await asyncio.wait({writing}, timeout=END_TIMEOUT_S)
            for task in tasks:
                task.cancel()

    def quiet_s(self) -> float:
        """For how many seconds nothing was sent."""
        return self._clock() - self._sent_at

    async def _write(self, frames: AsyncIterator[Iterable[bytes]], send: Send) -> None:
        with suppress(StoreError):  # the reader resumes
            async for some in frames:
                await self._send(send, some)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, frames: Iterable[bytes]) -> None:
        """Write frames in pieces of a bounded size."""
        piece = bytearray()
        for frame in frames:
            piece += frame
            if len(piece) >= MAX_WRITE_BYTES:
                await self._send_piece(send, bytes(piece))
                piece.clear()
        if piece:
            await self._send_piece(send, bytes(piece))

    async def _send_piece(self, send: Send, piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        self._sent_at = self._clock()


async def _until_left(receive: Receive) -> None:
    """Wait until the reader has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
