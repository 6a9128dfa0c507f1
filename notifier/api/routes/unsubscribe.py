"""`/v1/unsubscribe/{token}`: the page and the one-click POST (RFC 8058) of links in emails.

Anyone may call it: the signature of the token is the permission. Programs that scan mails follow
links with GET, so only POST changes anything. No answer tells anything of the recipient.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any, Final
from urllib.parse import parse_qsl

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.gate import Gate
from notifier.api.docs.html import FORM_HEADERS, html_page
from notifier.api.http.body import (
    FORM,
    MULTIPART,
    BodyLimit,
    check_media_type,
    media_type_of,
    read_body,
)
from notifier.api.http.deadline import deadline
from notifier.api.http.raw_response import RawResponse
from notifier.api.rules import ApiRules
from notifier.delivery.unsubscribe_links import UNSUBSCRIBE_PATH
from notifier.domain.errors import InvalidNotification
from notifier.domain.unsubscribing import Unsubscribe
from notifier.ports.suppressions import (
    ONE_CLICK,
    UNKNOWN_FOR_S,
    UnsubscribeReader,
    UnsubscribeStore,
    WaitingSuppressor,
)

UNSUBSCRIBE: Final = f"{UNSUBSCRIBE_PATH}/{{token:str}}"
_MAX_BODY_BYTES: Final = 8192
_HEADERS: Final = (
    *FORM_HEADERS,
    (b"cache-control", b"no-store"),
    (b"x-robots-tag", b"noindex"),
)
_PART: Final = re.compile(
    rf'name="?{ONE_CLICK[0]}"?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n{ONE_CLICK[1]}\r\n'
)
_UNKNOWN: Final = html_page(
    "Unsubscribe",
    "<h1>This link is not valid</h1><p>It may have been cut off. Use the one in the message.</p>",
)


class UnsubscribeRoutes:
    """Handlers of `/v1/unsubscribe/{token}`."""

    def __init__(
        self,
        *,
        links: UnsubscribeReader,
        store: UnsubscribeStore,
        suppressor: WaitingSuppressor,
        gate: Gate,
        rules: ApiRules,
    ) -> None:
        self._gate = gate
        self._links = links
        self._store = store
        self._suppressor = suppressor
        # As in routes/suppressions.py.
        self._deadline_s = rules.request_deadline_s + UNKNOWN_FOR_S
        self._limit = BodyLimit(
            max_bytes=_MAX_BODY_BYTES,
            timeout_s=rules.body_timeout_s,
            detail="A form of one field needs no more.",
        )

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        wish = await self._wish(request)
        if wish is None:
            return _page(404, _UNKNOWN)
        name, value = ONE_CLICK
        title = await self._title(wish)
        return _page(
            200,
            html_page(
                "Unsubscribe",
                f"<h1>Unsubscribe from {escape(title)}?</h1>"
                f'<form method="post"><input type="hidden" name="{name}" value="{value}">'
                "<button>Unsubscribe</button></form>",
            ),
        )

    async def create(self, request: Request[Any, Any, Any]) -> ASGIApp:
        check_media_type(request, (FORM, MULTIPART))
        body = await read_body(request, self._limit)
        if not _is_one_click(media_type_of(request), body.decode("latin-1")):
            raise InvalidNotification("$", f"a form with the field {'='.join(ONE_CLICK)}")
        wish = await self._wish(request)
        if wish is None:
            return _page(404, _UNKNOWN)
        title = await self._title(wish)
        async with deadline(self._deadline_s):
            await self._suppressor.suppress([await self._store.unsubscribe(wish)])
        text = f"<h1>You are unsubscribed from {escape(title)}</h1>"
        return _page(200, html_page("Unsubscribed", text))

    async def _title(self, wish: Unsubscribe) -> str:
        async with deadline(self._deadline_s):
            return await self._gate.title_of(wish.scope.tenant, wish.topic)

    async def _wish(self, request: Request[Any, Any, Any]) -> Unsubscribe | None:
        async with deadline(self._deadline_s):
            return await self._links.read(str(request.path_params["token"]))


def _is_one_click(media_type: str, body: str) -> bool:
    if media_type == MULTIPART:
        return _PART.search(body) is not None
    return ONE_CLICK in parse_qsl(body.strip())


def _page(status: int, html: str) -> ASGIApp:
    return RawResponse(status, html.encode(), _HEADERS)
