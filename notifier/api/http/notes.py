"""Reads the note that a person adds to what they do."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request

from notifier.api.http.body import BodyLimit, read_optional_body
from notifier.api.http.decoding import BodyDecoder
from notifier.api.requests import NoteRequest
from notifier.domain.one_line import checked_note

_REQUEST: Final = BodyDecoder(NoteRequest)


async def read_note(request: Request[Any, Any, Any], limit: BodyLimit) -> str:
    """Returns the note of a request, "" if it has none.

    Raises InvalidNotification for a wrong body, and as `read_json_body`.
    """
    return checked_note(_REQUEST.decode(await read_optional_body(request, limit)).note or "")
