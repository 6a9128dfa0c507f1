"""Reads request bodies, with limits on type, size and time that hold while the body arrives.

A request may be answered before its whole body has arrived. The server then reads and discards
the rest, so that a client that writes its request before it reads still gets the response.
"""

from __future__ import annotations

import asyncio
from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from litestar import Request
from litestar.types import Receive

from notifier.api.http.held_bytes import HeldBody
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.requests import WHOLE_BODY
from notifier.api.rules import ApiRules

MAX_SMALL_BODY_BYTES: Final = 8192
_EMPTY_REQUEST: Final = b"{}"
JSON: Final = "application/json"
CSV: Final = "text/csv"
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
CLOSE_CONNECTION: Final = {"Connection": "close"}
"""A connection whose body was cut off cannot carry another request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimit:
    """The maximum size and duration of a body, and the `detail` of the 413 for a larger one.

    A body of more than `free_bytes` counts for what this process may hold.
    """

    max_bytes: int
    timeout_s: float
    detail: str
    free_bytes: int = 64 * 1024 * 1024

    def too_large(self) -> RequestRefused:
        """Makes the 413."""
        expected = f"at most {self.max_bytes:,} bytes"
        return RequestRefused(
            ProblemType.BODY_TOO_LARGE.problem(self.detail, field=WHOLE_BODY, expected=expected)
        )


async def read_json_body(
    request: Request[Any, Any, Any], limit: BodyLimit, held: HeldBody | None = None
) -> bytes:
    """Returns the whole body of a request that declares JSON. The JSON itself is not checked.

    A byte order mark, which some clients on Windows write before the JSON, is removed. Raises
    RequestRefused: 400 for a body that is cut off, 408, 413 or 415; 503 before a large body is
    read, if `held` refuses it.
    """
    if media_type_of(request) != JSON:
        raise _unsupported("Send JSON and declare it.", "Content-Type", JSON)
    return (await read_body(request, limit, held)).removeprefix(BOM_UTF8)


async def read_body(
    request: Request[Any, Any, Any], limit: BodyLimit, held: HeldBody | None = None
) -> bytes:
    """Returns the whole body of a request, of whatever type. Raises as `read_json_body`."""
    _check_headers(request, limit, held)
    try:
        async with asyncio.timeout(limit.timeout_s):
            return await _read(request.receive, limit, held)
    except TimeoutError as error:
        expected = f"the whole body within {limit.timeout_s:g} seconds"
        problem = ProblemType.BODY_TIMEOUT.problem(
            "Send the request again.", field=WHOLE_BODY, expected=expected
        )
        raise RequestRefused(problem, CLOSE_CONNECTION) from error


async def read_optional_body(request: Request[Any, Any, Any], limit: BodyLimit) -> bytes:
    """Returns the body of a request as `read_json_body`, or an empty object if it has none."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return _EMPTY_REQUEST
    return await read_json_body(request, limit) or _EMPTY_REQUEST


def check_media_type(request: Request[Any, Any, Any], media_types: Sequence[str]) -> None:
    """Raises RequestRefused (415) unless a request declares one of these types."""
    if media_type_of(request) not in media_types:
        expected = " or ".join(media_types)
        raise _unsupported("Send one of these types and declare it.", "Content-Type", expected)


def small_body_limit(rules: ApiRules) -> BodyLimit:
    """Returns the limit of bodies of a few fields."""
    return BodyLimit(
        max_bytes=MAX_SMALL_BODY_BYTES,
        timeout_s=rules.body_timeout_s,
        detail="A few short fields need no more.",
    )


def submit_body_limit(rules: ApiRules, max_bytes: int) -> BodyLimit:
    """Returns the limit of bodies with notifications or their files."""
    return BodyLimit(
        max_bytes=max_bytes, timeout_s=rules.body_timeout_s, detail=rules.size_limits_text
    )


def media_type_of(request: Request[Any, Any, Any]) -> str:
    """Returns the media type that a request declares, in lower case and without parameters."""
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            return str(value.partition(b";")[0].strip().lower(), "latin-1")
    return ""


def _check_headers(
    request: Request[Any, Any, Any], limit: BodyLimit, held: HeldBody | None
) -> None:
    for name, value in request.scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise _unsupported(
                "Send the body uncompressed.", "Content-Encoding", "identity, or none"
            )
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise _unsupported(
                "Send the body uncompressed.", "Transfer-Encoding", "chunked, or none"
            )
        if name == b"content-length":
            size = int(value)
            if size > limit.max_bytes:
                raise limit.too_large()
            if held is not None and size > limit.free_bytes:
                held.take(size)


def _unsupported(detail: str, header: str, expected: str) -> RequestRefused:
    return RequestRefused(
        ProblemType.UNSUPPORTED_MEDIA_TYPE.problem(detail, field=header, expected=expected)
    )


async def _read(receive: Receive, limit: BodyLimit, held: HeldBody | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestRefused(
                ProblemType.BAD_REQUEST.problem("The connection closed before the body ended."),
                CLOSE_CONNECTION,
            )
        if message["type"] != "http.request":
            continue
        part = message["body"]
        size += len(part)
        if size > limit.max_bytes:
            raise limit.too_large()
        if size > limit.free_bytes and held is not None and held.is_empty:
            held.take(limit.max_bytes)  # its length was not declared
        if not message["more_body"]:
            return part if not parts else b"".join([*parts, part])
        parts.append(part)
