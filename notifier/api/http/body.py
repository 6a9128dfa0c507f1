"""Reading a request's body: its type, its size and its time are bounded while it arrives.

A request may be answered before its body has come. The server then reads on and throws away what
comes, so that a client that writes before it reads still gets its answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from litestar import Request
from litestar.types import Receive

from notifier.api.http.problems import Kind, Refusal
from notifier.api.requests import WHOLE_BODY

CLOSE: Final = {"Connection": "close"}
"""A connection whose body stopped cannot carry another request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How much of a body is taken, for how long, and what a caller who sends more is told."""

    most: int
    within_s: float
    detail: str

    def too_large(self) -> Refusal:
        """Make the 413."""
        expected = f"at most {self.most:,} bytes"
        return Refusal(Kind.TOO_LARGE.problem(self.detail, field=WHOLE_BODY, expected=expected))


async def read_json(request: Request[Any, Any, Any], bound: Bound) -> bytes:
    """Return the whole body of a request that says it is JSON. Raises Refusal."""
    _refuse_by_head(request, bound)
    try:
        async with asyncio.timeout(bound.within_s):
            return await _read(request.receive, bound)
    except TimeoutError as error:
        expected = f"the whole body within {bound.within_s:g} seconds"
        problem = Kind.TOO_SLOW.problem("Send it again.", field=WHOLE_BODY, expected=expected)
        raise Refusal(problem, CLOSE) from error


def _refuse_by_head(request: Request[Any, Any, Any], bound: Bound) -> None:
    is_json = False
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            is_json = value.partition(b";")[0].strip().lower() == b"application/json"
        elif name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise _wrong_type("Send the body as it is.", "Content-Encoding", "identity, or none")
        elif name == b"content-length" and int(value) > bound.most:
            raise bound.too_large()
    if not is_json:
        raise _wrong_type("Say what the body is.", "Content-Type", "application/json")


def _wrong_type(detail: str, header: str, expected: str) -> Refusal:
    return Refusal(Kind.WRONG_TYPE.problem(detail, field=header, expected=expected))


async def _read(receive: Receive, bound: Bound) -> bytes:
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
        if size > bound.most:
            raise bound.too_large()
        if not message["more_body"]:
            return part if not parts else b"".join([*parts, part])
        parts.append(part)
