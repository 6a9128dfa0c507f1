"""Paths with the id of a user, which may contain a slash or any other character."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, unquote_to_bytes

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

INBOXES: Final = "/v1/inbox"
_PREFIX: Final = f"{INBOXES}/"
_RAW_PREFIX: Final = _PREFIX.encode()


class UserPaths:
    """An ASGI app that gives another one the paths of inboxes with the user still encoded.

    A server decodes a path before it is split: a user `a/read` would be taken for another route.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(_PREFIX):
            scope["path"] = _path_of(scope["raw_path"])
        await self._app(scope, receive, send)


def decoded_user(encoded: str) -> str | None:
    """Returns the user of a path parameter; None if it is not UTF-8."""
    try:
        return unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        return None


def _path_of(raw: bytes) -> str:
    if not raw.startswith(_RAW_PREFIX):  # another part is encoded: no path that we write
        return raw.decode("latin-1")
    user, slash, rest = raw[len(_RAW_PREFIX) :].partition(b"/")
    if not user:
        return INBOXES
    encoded = quote(unquote_to_bytes(user), safe="")
    return f"{_PREFIX}{encoded}{(slash + rest).decode('latin-1')}"
