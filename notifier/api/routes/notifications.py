"""`/v1/notifications`: submit one, submit a batch, read one, list. A 202 means committed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.http.body import BodyLimit, read_json_body
from notifier.api.http.deadline import deadline
from notifier.api.http.in_flight_limit import InFlightLimit
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused, as_refusal, batch_refusal
from notifier.api.http.public_address import PublicAddress
from notifier.api.http.query import ListQuery, next_cursor, parse_include
from notifier.api.http.raw_response import json_response
from notifier.api.responses import (
    Accepted,
    BatchRefusal,
    BatchResponse,
    Notification,
    NotificationPage,
    Summary,
)
from notifier.api.rules import ApiRules
from notifier.api.submission.batch_split import BatchSplitter
from notifier.api.submission.idempotency import RequestKeys, request_keys
from notifier.api.submission.validation import SubmitValidator
from notifier.domain.errors import (
    FeatureUnavailable,
    InvalidNotification,
    NotFound,
    NotifierError,
)
from notifier.domain.notification import NewNotification, NotificationId, Status
from notifier.ports.acceptor import Acceptor, Refusal, Replayed, Reply
from notifier.ports.queries import Filter, Page, Reader

NOTIFICATIONS: Final = "/v1/notifications"
FAILURE_FILTERS: Final = (
    "channel",
    "priority",
    "reason",
    "provider",
    "code",
    "created_from",
    "created_to",
)
NOTIFICATION_FILTERS: Final = ("status", *FAILURE_FILTERS)
_CONTENT: Final = "content"
_INCLUDE: Final = parse_include(_CONTENT)
_CANONICAL_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
REPLAYED: Final = (b"idempotent-replayed", b"true")
"""The header of a response to a request that stored nothing because earlier ones had."""
_MAX_TURN_S: Final = 0.01
"""How long items of a batch are validated before other requests get a turn on the loop."""

_Item = NewNotification | BatchRefusal


class NotificationRoutes:
    """Handlers of `/v1/notifications`."""

    def __init__(
        self, *, acceptor: Acceptor, reader: Reader, rules: ApiRules, address: PublicAddress
    ) -> None:
        self._acceptor = acceptor
        self._reader = reader
        self._address = address
        self._deadline_s = rules.request_deadline_s
        self._validator = SubmitValidator(rules)
        self._splitter = BatchSplitter(rules)
        self._query = ListQuery(*NOTIFICATION_FILTERS, channels=rules.channels)
        self._submits_in_flight = InFlightLimit(rules.max_in_flight)
        self._batches_in_flight = InFlightLimit(rules.max_batches_in_flight)
        self._submit_limit = _body_limit(rules, rules.max_body_bytes)
        self._batch_limit = _body_limit(rules, rules.max_batch_bytes)

    async def submit(self, request: Request[Any, Any, Any]) -> ASGIApp:
        with self._submits_in_flight:
            keys = request_keys(request.scope)
            body = await read_json_body(request, self._submit_limit)
            new = self._validator.validate(body, keys)
            (reply,) = await self._acceptor.submit([new])
        if isinstance(reply, NotifierError):
            raise reply
        accepted = _accepted(new, reply)
        location = f"{self._address.prefix(request.scope)}{NOTIFICATIONS}/{accepted.id}".encode()
        headers = [(b"location", location)]
        if isinstance(reply, Replayed):
            headers.append(REPLAYED)
        return json_response(accepted, status=202, headers=headers)

    async def submit_batch(self, request: Request[Any, Any, Any]) -> ASGIApp:
        with self._batches_in_flight:
            keys = request_keys(request.scope)
            body = await read_json_body(request, self._batch_limit)
            items = await self._validate_items(self._splitter.split(body), keys)
            replies = await self._submit_items(items)
        return _batch_response(items, replies)

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        notification_id = _parse_id(request.path_params["id"])
        parts = _INCLUDE.parse(request).get("include", ())
        async with deadline(self._deadline_s):
            view = await self._reader.get(notification_id, with_content=_CONTENT in parts)
        if view is None:
            raise NotFound
        return json_response(Notification.of(view))

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        selection = self._query.parse(request)
        async with deadline(self._deadline_s):
            page = await self._reader.notifications(selection)
        return json_response(notification_page(page, selection))

    async def _validate_items(self, raws: Sequence[bytes], keys: RequestKeys) -> list[_Item]:
        time = asyncio.get_running_loop().time
        items: list[_Item] = []
        turn_ends_at = time() + _MAX_TURN_S
        for number, raw in enumerate(raws):
            items.append(self._validate_item(raw, keys, number))
            if time() > turn_ends_at:
                await asyncio.sleep(0)
                turn_ends_at = time() + _MAX_TURN_S
        return items

    def _validate_item(self, raw: bytes, keys: RequestKeys, number: int) -> _Item:
        try:
            if len(raw) > self._submit_limit.max_bytes:
                raise self._submit_limit.too_large()
            return self._validator.validate(raw, keys, number)
        except (InvalidNotification, RequestRefused) as error:
            return batch_refusal(error)

    async def _submit_items(self, items: Sequence[_Item]) -> Sequence[Reply | Refusal]:
        valid = [item for item in items if isinstance(item, NewNotification)]
        return await self._acceptor.submit(valid) if valid else ()


def notification_page(page: Page, selection: Filter) -> NotificationPage:
    """Builds the document of a page."""
    cursor = next_cursor(selection, page.next_before)
    return NotificationPage([Summary.of(view) for view in page.views], cursor)


def _body_limit(rules: ApiRules, max_bytes: int) -> BodyLimit:
    return BodyLimit(
        max_bytes=max_bytes, timeout_s=rules.body_timeout_s, detail=rules.size_limits_text
    )


def _parse_id(text: str) -> NotificationId:
    if not _CANONICAL_UUID.fullmatch(text):
        raise NotFound
    return NotificationId(UUID(text))


def _result(new: NewNotification, reply: Reply | Refusal) -> Accepted | BatchRefusal:
    if isinstance(reply, NotifierError):
        return batch_refusal(reply)
    return _accepted(new, reply)


def _accepted(new: NewNotification, reply: Status | Replayed) -> Accepted:
    id_, status = reply if isinstance(reply, Replayed) else (new.id, reply)
    segments = msgspec.UNSET if new.segments is None else new.segments
    return Accepted(id=id_, status=status, queue=str(new.queue), segments=segments)


def _batch_response(items: Sequence[_Item], replies: Sequence[Reply | Refusal]) -> ASGIApp:
    """Makes the response. `replies` are those to the items that were valid."""
    reply = iter(replies)
    results = [
        item if isinstance(item, BatchRefusal) else _result(item, next(reply)) for item in items
    ]
    refused = [result for result in results if isinstance(result, BatchRefusal)]
    if len(refused) < len(results):
        is_replay = not any(isinstance(reply, Status) for reply in replies)
        headers = [REPLAYED] if is_replay else []
        return json_response(BatchResponse(results), status=202, headers=headers)
    refusal = _refusal(replies, are_all=len(replies) == len(items))
    refusal.problem = msgspec.structs.replace(refusal.problem, results=refused)
    raise refusal


def _refusal(replies: Sequence[Reply | Refusal], *, are_all: bool) -> RequestRefused:
    """Returns the refusal of a batch of which nothing was stored: one to be repeated if all are."""
    unavailable = [reply for reply in replies if isinstance(reply, FeatureUnavailable)]
    if are_all and len(unavailable) == len(replies):
        return as_refusal(unavailable[0])
    detail = "`results` holds the problem of every item."
    return RequestRefused(ProblemType.NOTHING_ACCEPTED.problem(detail))
