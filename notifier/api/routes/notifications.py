"""`/v1/notifications`: submit one, submit a batch, read one, list. A 202 means committed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import Principal, principal_of, scope_missing, seen_by, view_of
from notifier.api.auth.gate import Gate
from notifier.api.http.body import BodyLimit, read_json_body
from notifier.api.http.deadline import deadline
from notifier.api.http.held_bytes import HeldBytes
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
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.api.submission.validation import Sender, SubmitValidator
from notifier.domain.credentials import Mode
from notifier.domain.errors import (
    DomainError,
    FeatureUnavailable,
    InvalidNotification,
    NotFound,
    NotifierError,
)
from notifier.domain.keys import KeyScope
from notifier.domain.notification import (
    TEST_CHANNEL,
    NewNotification,
    NotificationId,
    Status,
)
from notifier.ports.acceptor import Acceptor, Refusal, Replayed, Reply, Suppressed
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
NOTIFICATION_FILTERS: Final = ("status", "tenant", *FAILURE_FILTERS)
LOOKUP_FILTERS: Final = ("tag", "recipient", "reference", "metadata", "q")
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
        self,
        *,
        acceptor: Acceptor,
        reader: Reader,
        rules: ApiRules,
        address: PublicAddress,
        gate: Gate,
        blobs: SubmitBlobs,
        held: HeldBytes,
    ) -> None:
        self._acceptor = acceptor
        self._gate = gate
        self._blobs = blobs
        self._held = held
        self._reader = reader
        self._address = address
        self._deadline_s = rules.request_deadline_s
        self._validator = SubmitValidator(rules)
        self._takes_tests = rules.test_channel != ""
        self._splitter = BatchSplitter(rules)
        self._query = ListQuery(
            *NOTIFICATION_FILTERS, channels=rules.submit_channels, lookups=rules.lookups
        )
        self._submits_in_flight = InFlightLimit(rules.max_in_flight)
        self._batches_in_flight = InFlightLimit(rules.max_batches_in_flight)
        self._large_bodies = asyncio.Semaphore(1)
        self._submit_limit = _body_limit(rules, rules.max_body_bytes)
        self._request_limit = replace(
            _body_limit(rules, rules.max_single_bytes), free_bytes=rules.max_body_bytes
        )
        self._batch_limit = _body_limit(rules, rules.max_batch_bytes)

    async def submit(self, request: Request[Any, Any, Any]) -> ASGIApp:
        sender = self._sender(request)
        with self._submits_in_flight, self._held.request() as held:
            keys = request_keys(request.scope, sender.mode)
            body = await read_json_body(request, self._request_limit, held)
            new = await self._validate(body, Sender(sender.tenant, sender.mode), keys)
            del body  # not held while its files are stored
            if await self._gate.unknown_tenants(sender, {new.tenant}):
                raise _unknown_tenant()
            if new.blobs:
                new = await self._with_kept_blobs(new)
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
        sender = self._sender(request)
        with self._batches_in_flight:
            keys = request_keys(request.scope, sender.mode)
            body = await read_json_body(request, self._batch_limit)
            raws = await self._paid_items(body, request, sender)
            items = await self._validate_items(raws, Sender(sender.tenant, sender.mode), keys)
            items = await self._without_unknown_tenants(items, sender)
            items = await self._without_wrong_blobs(items)
            replies = await self._submit_items(items)
        return _batch_response(items, replies)

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        notification_id = _parse_id(request.path_params["id"])
        parts = _INCLUDE.parse(request).get("include", ())
        principal = principal_of(request.scope)
        if _CONTENT in parts and KeyScope.OPERATE not in principal.scopes:
            raise scope_missing(KeyScope.OPERATE)
        async with deadline(self._deadline_s):
            view = await self._reader.get(
                notification_id, view=view_of(principal), with_content=_CONTENT in parts
            )
        if view is None:
            raise NotFound
        return json_response(Notification.of(view))

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        selection = seen_by(principal_of(request.scope), self._query.parse(request))
        async with deadline(self._deadline_s):
            page = await self._reader.notifications(selection)
        return json_response(notification_page(page, selection))

    async def _validate(self, body: bytes, sender: Sender, keys: RequestKeys) -> NewNotification:
        """Validates a single submit. A large one does not hold up the event loop."""
        if len(body) <= self._submit_limit.max_bytes:
            return self._validator.validate(body, sender, keys)
        async with self._large_bodies:  # one at a time takes several times its size
            new = await asyncio.to_thread(self._validator.validate, body, sender, keys)
        inline = sum(len(use.data) for use in new.blobs if use.data is not None)
        if len(body) > self._submit_limit.max_bytes + 2 * inline:
            raise self._submit_limit.too_large()
        return new

    async def _with_kept_blobs(self, new: NewNotification) -> NewNotification:
        """Stores the files of a submit; returns it without their data."""
        faults = await self._blobs.keep([new])
        if faults:
            raise faults[new.id]
        return replace(new, blobs=())

    async def _without_wrong_blobs(self, items: list[_Item]) -> list[_Item]:
        faults = await self._blobs.keep(_valid(items))
        if not faults:
            return items
        return [
            batch_refusal(faults[item.id])
            if isinstance(item, NewNotification) and item.id in faults
            else item
            for item in items
        ]

    async def _paid_items(
        self, body: bytes, request: Request[Any, Any, Any], sender: Principal
    ) -> Sequence[bytes]:
        """Return the items of a batch. Each costs a call, and so does a body that is no batch."""
        try:
            raws = self._splitter.split(body)
        except DomainError:
            await self._gate.charge(request.scope, sender, 1)
            raise
        await self._gate.charge(request.scope, sender, len(raws))
        return raws

    async def _validate_items(
        self, raws: Sequence[bytes], sender: Sender, keys: RequestKeys
    ) -> list[_Item]:
        time = asyncio.get_running_loop().time
        items: list[_Item] = []
        turn_ends_at = time() + _MAX_TURN_S
        for number, raw in enumerate(raws):
            items.append(self._validate_item(raw, sender, keys, number))
            if time() > turn_ends_at:
                await asyncio.sleep(0)
                turn_ends_at = time() + _MAX_TURN_S
        return items

    async def _without_unknown_tenants(
        self, items: Sequence[_Item], sender: Principal
    ) -> list[_Item]:
        """Return the items, with a refusal in the place of each whose tenant does not exist."""
        named = {item.tenant for item in items if isinstance(item, NewNotification)}
        unknown = await self._gate.unknown_tenants(sender, named)
        return [
            batch_refusal(_unknown_tenant())
            if isinstance(item, NewNotification) and item.tenant in unknown
            else item
            for item in items
        ]

    def _validate_item(self, raw: bytes, sender: Sender, keys: RequestKeys, number: int) -> _Item:
        try:
            if len(raw) > self._submit_limit.max_bytes:
                raise self._submit_limit.too_large()
            return self._validator.validate(raw, sender, keys, number)
        except (InvalidNotification, RequestRefused) as error:
            return batch_refusal(error)

    def _sender(self, request: Request[Any, Any, Any]) -> Principal:
        """Returns who submits. Raises RequestRefused for a test key without a place for tests."""
        principal = principal_of(request.scope)
        if principal.mode is Mode.TEST and not self._takes_tests:
            raise RequestRefused(
                ProblemType.SCOPE_MISSING.problem(
                    f"Test keys submit nothing here: the settings have no channel {TEST_CHANNEL} "
                    "with a provider of the type sandbox."
                )
            )
        return principal

    async def _submit_items(self, items: Sequence[_Item]) -> Sequence[Reply | Refusal]:
        valid = _valid(items)
        return await self._acceptor.submit(valid) if valid else ()


def notification_page(page: Page, selection: Filter) -> NotificationPage:
    """Builds the document of a page."""
    cursor = next_cursor(selection, page.next_before)
    return NotificationPage([Summary.of(view) for view in page.views], cursor)


def _valid(items: Sequence[_Item]) -> list[NewNotification]:
    return [item for item in items if isinstance(item, NewNotification)]


def _unknown_tenant() -> InvalidNotification:
    return InvalidNotification("tenant", "a tenant that exists: PUT /v1/tenants/NAME")


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


def _accepted(new: NewNotification, reply: Status | Suppressed | Replayed) -> Accepted:
    segments = msgspec.UNSET if new.segments is None else new.segments
    queue = str(new.queue)
    match reply:
        case Replayed(id=id_, status=status, reason=reason):
            shown = msgspec.UNSET if reason is None else reason
            return Accepted(id=id_, status=status, queue=queue, segments=segments, reason=shown)
        case Suppressed(reason=reason):
            status = Status.SUPPRESSED
            return Accepted(id=new.id, status=status, queue=queue, segments=segments, reason=reason)
        case status:
            return Accepted(id=new.id, status=status, queue=queue, segments=segments)


def _batch_response(items: Sequence[_Item], replies: Sequence[Reply | Refusal]) -> ASGIApp:
    """Makes the response. `replies` are those to the items that were valid."""
    reply = iter(replies)
    results = [
        item if isinstance(item, BatchRefusal) else _result(item, next(reply)) for item in items
    ]
    refused = [result for result in results if isinstance(result, BatchRefusal)]
    if len(refused) < len(results):
        is_replay = not any(isinstance(reply, Status | Suppressed) for reply in replies)
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
