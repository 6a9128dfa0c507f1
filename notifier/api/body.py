"""Reading a request's body: its type, its size and its time are bounded while it arrives.

A request may be answered before its body has come. The server then reads on and throws away what
comes, so that a client that writes before it reads still gets its answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from litestar import Request
from litestar.types import Receive

from notifier.api.problems import WHOLE, Kind, Refusal

CLOSE: Final = {"Connection": "close"}
"""A connection whose body stopped cannot carry another request."""


async def read_json(request: Request[Any, Any, Any], *, most: int, within_s: float) -> bytes:
    """Return the whole body of a request that says it is JSON. Raises Refusal."""
    _refuse_by_head(request, most)
    try:
        async with asyncio.timeout(within_s):
            return await _read(request.receive, most)
    except TimeoutError as error:
        expected = f"the whole body within {within_s:g} seconds"
        problem = Kind.TOO_SLOW.problem("Send it again.", field=WHOLE, expected=expected)
        raise Refusal(problem, CLOSE) from error


def _refuse_by_head(request: Request[Any, Any, Any], most: int) -> None:
    is_json = False
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            is_json = value.partition(b";")[0].strip().lower() == b"application/json"
        elif name == b"content-length" and int(value) > most:
            raise _too_large(most)
    if not is_json:
        problem = Kind.WRONG_TYPE.problem(
            "Say what the body is.", field="Content-Type", expected="application/json"
        )
        raise Refusal(problem)


def _too_large(most: int) -> Refusal:
    expected = f"a body of at most {most} bytes"
    return Refusal(Kind.TOO_LARGE.problem("Send less.", field=WHOLE, expected=expected))


async def _read(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(Kind.BAD_REQUEST.problem("The body was cut."), CLOSE)
        if message["type"] != "http.request":
            continue
        part = message["body"]
        size += len(part)
        if size > most:
            raise _too_large(most)
        if not message["more_body"]:
            return part if not parts else b"".join([*parts, part])
        parts.append(part)
