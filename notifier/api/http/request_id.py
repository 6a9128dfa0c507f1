"""The id of a request: in the answer, in the log, and in `instance` of a problem."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from litestar.types import Scope
from uuid_utils import uuid7

HEADER: Final = "Request-Id"
_NAME: Final = b"request-id"
_ALLOWED: Final = re.compile(rb"[ -~]{1,64}")


def request_id(scope: Scope) -> str:
    """Returns the caller's Request-Id if it is 1 to 64 printable ASCII characters, else a new id.

    The same for every call with the same scope.
    """
    state = scope["state"]
    known: str | None = state.get(HEADER)
    if known is None:
        known = state[HEADER] = _of_caller(scope) or new_request_id()
    return known


def new_request_id() -> str:
    """Returns an id for a request without one."""
    return str(uuid7())


def request_urn(id_: str) -> str:
    """Returns the id as a URN. What may not stand in one is percent-encoded."""
    return f"urn:notifier:request:{quote(id_, safe='')}"


def _of_caller(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == _NAME:
            return value.decode() if _ALLOWED.fullmatch(value) else None
    return None
