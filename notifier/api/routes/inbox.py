"""`/v1/inbox/{user}`: the inbox of one user, for backends with a key and for the user's own page.

A backend makes a token for its user; with it a page reads and marks that inbox, and nothing else.
"""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode
from binascii import Error
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple
from uuid import UUID

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import principal_of
from notifier.api.auth.gate import TOKEN, Gate
from notifier.api.auth.user_tokens import UserTokens
from notifier.api.http.body import read_json_body, read_optional_body, small_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.query import DEFAULT_LIMIT, InboxQuery, wrong_cursor
from notifier.api.http.raw_response import json_response
from notifier.api.http.server_sent_events import stream_head
from notifier.api.http.user_paths import INBOXES, decoded_user
from notifier.api.inbox.documents import (
    InboxItem,
    InboxPage,
    InboxReadRequest,
    InboxToken,
    InboxTokenRequest,
    InboxUnread,
)
from notifier.api.inbox.feed import InboxFeed
from notifier.api.inbox.stream import InboxStream
from notifier.api.rules import ApiRules
from notifier.domain.errors import InvalidNotification
from notifier.domain.inbox import USER_EXPECTED, Inbox, is_user_id
from notifier.domain.notification import NotificationId
from notifier.domain.tenants import TenantId
from notifier.ports.inbox import EntryPosition, InboxStore

INBOX_OF_USER: Final = f"{INBOXES}/{{user:str}}"
INBOX_PARAMETERS: Final = ("user", "tenant", "unread", "cursor", "limit")
_PAGE: Final = InboxQuery("unread", "cursor", "limit")
_TENANT: Final = InboxQuery()
_STREAM: Final = InboxQuery(TOKEN)
_READ: Final = BodyDecoder(InboxReadRequest)
_TOKEN_REQUEST: Final = BodyDecoder(InboxTokenRequest)
_NO_STORE: Final = (b"cache-control", b"no-store")
_POSITION: Final = Struct(">q16s8s")
_DIGEST_BYTES: Final = 8
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class InboxSources(NamedTuple):
    """Where inboxes are read and marked, what streams share, and the tokens of users."""

    store: InboxStore
    feed: InboxFeed
    tokens: UserTokens


class InboxRoutes:
    """Handlers of `/v1/inbox/{user}`."""

    def __init__(self, *, sources: InboxSources, rules: ApiRules, gate: Gate) -> None:
        self._store, self._feed, self._tokens = sources
        self._gate = gate
        self._deadline_s = rules.request_deadline_s
        self._limit = small_body_limit(rules)

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        values = _PAGE.parse(request)
        async with deadline(self._deadline_s):
            inbox = await self._inbox(request, values.get("tenant"))
            is_unread = values.get("unread", False)
            before = None
            if "cursor" in values:
                before = _position_in(values["cursor"], inbox, is_unread=is_unread)
            page = await self._store.page(
                inbox,
                before=before,
                limit=values.get("limit", DEFAULT_LIMIT),
                is_unread=is_unread,
            )
        following = page.following
        cursor = None if following is None else _cursor(following, inbox, is_unread=is_unread)
        items = [InboxItem.of(entry) for entry in page.entries]
        return page_response(request, InboxPage(items, cursor, page.unread), (_NO_STORE,))

    async def mark_read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        values = _TENANT.parse(request)
        requested = _READ.decode(await read_json_body(request, self._limit))
        if (requested.ids is None) == (requested.until_at is None):
            raise InvalidNotification("$", "either ids or until_at")
        async with deadline(self._deadline_s):
            inbox = await self._inbox(request, values.get("tenant"))
            if requested.until_at is not None:
                unread = await self._store.mark_read_until(inbox, _storable(requested.until_at))
            else:
                ids = {NotificationId(id_) for id_ in requested.ids or ()}
                unread = await self._store.mark_read(inbox, ids)
        return json_response(InboxUnread(unread), headers=(_NO_STORE,))

    async def stream(self, request: Request[Any, Any, Any]) -> ASGIApp:
        values = _STREAM.parse(request)
        async with deadline(self._deadline_s):
            inbox = await self._inbox(request, values.get("tenant"))
        if request.method == "HEAD":
            return stream_head()
        return InboxStream(
            feed=self._feed,
            gate=self._gate,
            principal=principal_of(request.scope),
            inbox=inbox,
            deadline_s=self._deadline_s,
        )

    async def create_token(self, request: Request[Any, Any, Any]) -> ASGIApp:
        values = _TENANT.parse(request)
        requested = _TOKEN_REQUEST.decode(await read_optional_body(request, self._limit))
        async with deadline(self._deadline_s):
            inbox = await self._inbox(request, values.get("tenant"))
            text, token = await self._tokens.make(inbox, requested.ttl_s)
        document = InboxToken(text, datetime.fromtimestamp(token.expires_at, UTC))
        return json_response(document, status=201, headers=(_NO_STORE,))

    async def _inbox(self, request: Request[Any, Any, Any], named: TenantId | None) -> Inbox:
        """Returns the inbox that a request is about.

        Raises RequestRefused (403) if a user asks for the inbox of another one, InvalidNotification
        for what is no id of a user, and as `Gate.tenant_of`.
        """
        user = decoded_user(str(request.path_params["user"]))
        if user is None or not is_user_id(user):
            raise InvalidNotification("user", USER_EXPECTED)
        principal = principal_of(request.scope)
        if principal.token is not None and principal.token.inbox.user != user:
            raise RequestRefused(
                ProblemType.SCOPE_MISSING.problem("The token is for the inbox of another user.")
            )
        tenant = await self._gate.tenant_of(principal, named, "?tenant")
        return Inbox(tenant, principal.mode, user)


def _storable(at: datetime) -> datetime:
    """Returns an instant in UTC that Postgres can store; one too far away is cut."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return _FIRST if at.year == _FIRST.year else _LAST


def _cursor(position: EntryPosition, inbox: Inbox, *, is_unread: bool) -> str:
    """Returns the cursor of the page after an entry. Opaque to callers."""
    micros = (position.created_at - _EPOCH) // _MICROSECOND
    digest = _digest(inbox, is_unread=is_unread)
    return urlsafe_b64encode(_POSITION.pack(micros, position.id.bytes, digest)).decode().rstrip("=")


def _position_in(cursor: str, inbox: Inbox, *, is_unread: bool) -> EntryPosition:
    """Returns the place in the list that a cursor names. Raises InvalidNotification."""
    try:
        raw = b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        micros, id_, digest = _POSITION.unpack(raw.ljust(_POSITION.size, b"\0")[: _POSITION.size])
        at = _EPOCH + micros * _MICROSECOND
    except (Error, ValueError, OverflowError) as error:
        raise wrong_cursor() from error
    if len(raw) != _POSITION.size or digest != _digest(inbox, is_unread=is_unread):
        raise wrong_cursor()
    return EntryPosition(at, NotificationId(UUID(bytes=id_)))


def _digest(inbox: Inbox, *, is_unread: bool) -> bytes:
    listed = "\0".join((*inbox, str(is_unread)))
    return blake2b(listed.encode(), digest_size=_DIGEST_BYTES).digest()
