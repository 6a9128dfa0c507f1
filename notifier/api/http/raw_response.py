"""A ready answer: the least an ASGI server needs. Litestar's Response costs ten times as much."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
from litestar import HttpMethod, route
from litestar.types import Receive, Scope, Send

_JSON: Final = (b"content-type", b"application/json")
read_route: Final = partial(route, http_method=[HttpMethod.GET, HttpMethod.HEAD])
"""GET, and HEAD as some health checks ask; the server leaves the body of a HEAD out."""
_ENCODER: Final = msgspec.json.Encoder()


class RawResponse:
    """An ASGI app that says one thing."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(
        self, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = (_JSON,)
    ) -> None:
        self._status = status
        self._body = body
        self._headers = [*headers, (b"content-length", b"%d" % len(body))]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self._status, "headers": self._headers}
        )
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def json_response(
    value: msgspec.Struct | Sequence[msgspec.Struct],
    *,
    status: int = 200,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> RawResponse:
    """Answer with a document."""
    return RawResponse(status, _ENCODER.encode(value), (_JSON, *headers))
