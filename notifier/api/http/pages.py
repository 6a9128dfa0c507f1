"""Answers with a page of a list: as JSON, or as CSV where a request asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, get_args, get_type_hints

import msgspec
from litestar import Request

from notifier.api.http.body import CSV, JSON
from notifier.api.http.csv_text import csv_text
from notifier.api.http.raw_response import RawResponse, json_response

NEXT_CURSOR: Final = "Next-Cursor"
_CSV_TYPE: Final = (b"content-type", b"text/csv; charset=utf-8; header=present")
_VARY: Final = (b"vary", b"Accept")


def page_response(
    request: Request[Any, Any, Any],
    page: msgspec.Struct,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> RawResponse:
    """Makes the response that carries a page, which has `items` and `next_cursor`.

    In CSV the rows are the same, and the header Next-Cursor has the cursor, if there is one.
    """
    if not _wants_csv(request.headers.get("accept", "")):
        return json_response(page, headers=(_VARY, *headers))
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(page))
    body = csv_text(document["items"], item_type(type(page))).encode()
    if cursor := document["next_cursor"]:
        headers = (*headers, (NEXT_CURSOR.lower().encode(), cursor.encode()))
    return RawResponse(200, body, (_CSV_TYPE, _VARY, *headers))


@cache
def item_type(page: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Returns the type of the rows of a page."""
    (item,) = get_args(get_type_hints(page)["items"])
    struct: type[msgspec.Struct] = item
    return struct


def _wants_csv(accept: str) -> bool:
    """Returns whether a request prefers CSV, by the weights of both types (RFC 9110, 12.5.1)."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (text.strip().lower() for text in part.split(";"))
        given = [text[2:] for text in parameters if text.startswith("q=")]
        try:
            weights[name] = float(given[0]) if given else 1.0
        except ValueError:
            weights[name] = 0.0
    json_names = (JSON, "application/*", "*/*")
    json_weight = next((weights[name] for name in json_names if name in weights), 0.0)
    return weights.get(CSV, 0.0) > json_weight
