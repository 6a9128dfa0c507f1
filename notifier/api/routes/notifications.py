"""`/v1/notifications`: submit one, submit a batch, read one, list. A 202 means committed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import Principal, principal_of, scope_missing, seen_by, view_of
from notifier.api.auth.gate import Gate
from notifier.api.http.body import read_json_body, submit_body_limit
from notifier.api.http.deadline import Deadline, deadline
from notifier.api.http.held_bytes import HeldBytes
from notifier.api.http.in_flight_limit import InFlightLimit
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused, as_refusal, batch_refusal
from notifier.api.http.public_address import PublicAddress
from notifier.api.http.query import ListQuery, next_cursor, parse_include
from notifier.api.http.raw_response import json_response
from notifier.api.http.tenant_names import KNOWN_TENANT_EXPECTED
from notifier.api.http.turns import in_turns
from notifier.api.http.uuids import canonical_uuid
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
from notifier.api.submission.preparing import SubmitPreparation, check_mode
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.api.submission.validation import Sender, SubmitValidator
from notifier.api.templating.filling import Found, TemplateFilling, Unfilled
from notifier.domain.errors import (
    DomainError,
    FeatureUnavailable,
    IdempotencyKeyReused,
    InvalidNotification,
    NotFound,
    NotifierError,
    RendererUnavailable,
    StoreUnavailable,
)
from notifier.domain.keys import KeyScope
from notifier.domain.notification import (
    NewNotification,
    NotificationId,
    Status,
)
from notifier.domain.tenants import KnownTenants, TenantId, unknown_tenants
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
NOTIFICATION_FILTERS: Final = ("status", "tenant", "mode", *FAILURE_FILTERS)
LOOKUP_FILTERS: Final = ("tag", "recipient", "reference", "metadata", "webhook", "q")
_CONTENT: Final = "content"
_RECEIPTS: Final = "receipts"
INCLUDED: Final = (_CONTENT, _RECEIPTS)
_INCLUDE: Final = parse_include(*INCLUDED)
REPLAYED: Final = (b"idempotent-replayed", b"true")
"""The header of a response to a request that stored nothing because earlier ones had."""


class _Repeated(NamedTuple):
    """A submit that cannot be filled any more, and the answer to an earlier one with its key."""

    new: NewNotification
    reply: Replayed | IdempotencyKeyReused


_Valid = NewNotification | BatchRefusal | Unfilled
"""An item whose own fields are checked."""
_Item = NewNotification | BatchRefusal | _Repeated


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
        filling: TemplateFilling,
        preparation: SubmitPreparation,
    ) -> None:
        self._preparation = preparation
        self._acceptor = acceptor
        self._gate = gate
        self._blobs = blobs
        self._held = held
        self._filling = filling
        self._reader = reader
        self._address = address
        self._deadline_s = rules.request_deadline_s
        self._validator = SubmitValidator(rules)
        self._rules = rules
        self._splitter = BatchSplitter(rules)
        self._query = ListQuery(
            *NOTIFICATION_FILTERS, channels=rules.listed_channels, lookups=rules.lookups
        )
        self._submits_in_flight = InFlightLimit(rules.max_in_flight)
        self._batches_in_flight = InFlightLimit(rules.max_batches_in_flight)
        self._large_bodies = asyncio.Semaphore(1)
        self._submit_limit = submit_body_limit(rules, rules.max_body_bytes)
        self._request_limit = replace(
            submit_body_limit(rules, rules.max_single_bytes), free_bytes=rules.max_body_bytes
        )
        self._batch_limit = submit_body_limit(rules, rules.max_batch_bytes)

    async def submit(self, request: Request[Any, Any, Any]) -> ASGIApp:
        sender = self._sender(request)
        with self._submits_in_flight, self._held.request() as held:
            keys = request_keys(request.scope, sender.mode)
            body = await read_json_body(request, self._request_limit, held)
            valid, tenants = await self._validate_for_tenant(body, sender, keys)
            del body  # not held while its files are stored
            new, reply = await self._submit_one(valid, tenants)
        if isinstance(reply, NotifierError):
            raise reply
        is_replay = isinstance(reply, Replayed)
        if is_replay:
            (new,) = await self._as_answered_first([(new, reply)], [valid])
        accepted = _accepted(new, reply)
        location = f"{self._address.prefix(request.scope)}{NOTIFICATIONS}/{accepted.id}".encode()
        headers = [(b"location", location)]
        if is_replay:
            headers.append(REPLAYED)
        return json_response(accepted, status=202, headers=headers)

    async def submit_batch(self, request: Request[Any, Any, Any]) -> ASGIApp:
        sender = self._sender(request)
        with self._batches_in_flight:
            keys = request_keys(request.scope, sender.mode)
            body = await read_json_body(request, self._batch_limit)
            raws = await self._paid_items(body, request, sender)
            valid, tenants = await self._validate_items(raws, sender, keys)
            items = await self._with_fallbacks(await self._fill_items(valid), tenants)
            items = await self._without_wrong_blobs(items, tenants)
            replies = await self._submit_items(items)
            return await self._batch_response(items, replies, valid)

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        notification_id = parse_id(request.path_params["id"])
        parts = _INCLUDE.parse(request).get("include", ())
        principal = principal_of(request.scope)
        if _CONTENT in parts and KeyScope.OPERATE not in principal.scopes:
            raise scope_missing(KeyScope.OPERATE)
        async with deadline(self._deadline_s):
            view = await self._reader.get(
                notification_id,
                view=view_of(principal),
                with_content=_CONTENT in parts,
                with_receipts=_RECEIPTS in parts,
            )
        if view is None:
            raise NotFound
        return json_response(Notification.of(view))

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        selection = seen_by(principal_of(request.scope), self._query.parse(request))
        async with deadline(self._deadline_s):
            page = await self._reader.notifications(selection)
        return page_response(request, notification_page(page, selection))

    async def _validate(
        self, body: bytes, sender: Sender, keys: RequestKeys
    ) -> NewNotification | Unfilled:
        """Validates a single submit. A large one does not hold up the event loop."""
        if len(body) <= self._submit_limit.max_bytes:
            return self._validator.validate(body, sender, keys)
        async with self._large_bodies:  # one at a time takes several times its size
            new = await asyncio.to_thread(self._validator.validate, body, sender, keys)
        inline = sum(len(use.data) for use in _new_of(new).blobs if use.data is not None)
        if len(body) > self._submit_limit.max_bytes + 2 * inline:
            raise self._submit_limit.too_large()
        return new

    async def _validate_for_tenant(
        self, body: bytes, sender: Principal, keys: RequestKeys
    ) -> tuple[NewNotification | Unfilled, KnownTenants]:
        """Validates a single submit by the settings of its tenant; returns the tenants, too."""
        tenants = await self._gate.tenants(sender)
        valid = await self._validate(body, Sender(sender.tenant, sender.mode, tenants), keys)
        named = {_new_of(valid).tenant}
        if not unknown_tenants(named, tenants):
            return valid, tenants
        tenants = await self._gate.tenants(sender, named)
        if unknown_tenants(named, tenants):
            raise _unknown_tenant()
        valid = await self._validate(body, Sender(sender.tenant, sender.mode, tenants), keys)
        return valid, tenants

    async def _with_kept_blobs(
        self, new: NewNotification, tenants: KnownTenants
    ) -> NewNotification:
        """Stores the files of a submit; returns it without their data."""
        faults = await self._blobs.keep([new], tenants)
        if faults:
            raise faults[new.id]
        return msgspec.structs.replace(new, blobs=())

    async def _without_wrong_blobs(self, items: list[_Item], tenants: KnownTenants) -> list[_Item]:
        faults = await self._blobs.keep(_valid(items), tenants)
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
        await self._gate.charge_submit(request.scope, sender, len(raws))
        return raws

    async def _submit_one(
        self, valid: NewNotification | Unfilled, tenants: KnownTenants
    ) -> tuple[NewNotification, Reply | Refusal]:
        if isinstance(valid, Unfilled):
            filled = await self._filled(valid, Deadline(self._deadline_s))
            if isinstance(filled, _Repeated):
                return filled
            valid = filled
        if valid.fallback is not None:
            ready = await self._with_fallback(valid, tenants, Deadline(self._deadline_s))
            if isinstance(ready, _Repeated):
                return ready
            valid = ready
        if valid.blobs:
            valid = await self._with_kept_blobs(valid, tenants)
        (reply,) = await self._acceptor.submit([valid])
        return valid, reply

    async def _filled(
        self, unfilled: Unfilled, until: Deadline, found: Found | None = None
    ) -> NewNotification | _Repeated:
        """Returns the notification with its content, or the answer to an earlier submit.

        With its key it is answered as before, also if the newest version of its template needs
        other variables now.
        """
        try:
            return (await self._filling.filled(unfilled, until, found)).new
        except InvalidNotification:
            earlier = await self._earlier(unfilled.new, until)
            if earlier is None:
                raise
            return _Repeated(
                msgspec.structs.replace(unfilled.new, template=str(unfilled.ref)), earlier
            )

    async def _with_fallback(
        self, new: NewNotification, tenants: KnownTenants, until: Deadline
    ) -> NewNotification | _Repeated:
        """Returns the notification with its fallback, or the answer to an earlier submit.

        Raises InvalidNotification for fields of the fallback.
        """
        try:
            return await self._preparation.with_fallback(new, tenants, until)
        except InvalidNotification:
            earlier = await self._earlier(new, until)
            if earlier is None:
                raise
            return _Repeated(new, earlier)

    async def _with_fallbacks(self, items: Sequence[_Item], tenants: KnownTenants) -> list[_Item]:
        until = Deadline(self._deadline_s)
        return [
            await self._with_item_fallback(item, tenants, until)
            if isinstance(item, NewNotification) and item.fallback is not None
            else item
            for item in items
        ]

    async def _with_item_fallback(
        self, new: NewNotification, tenants: KnownTenants, until: Deadline
    ) -> _Item:
        try:
            return await self._with_fallback(new, tenants, until)
        except InvalidNotification as error:
            return batch_refusal(error)

    async def _earlier(
        self, new: NewNotification, until: Deadline
    ) -> Replayed | IdempotencyKeyReused | None:
        """Returns the answer to an earlier submit with its key, None if there is none."""
        async with until.of_store():
            return None if new.key is None else await self._acceptor.earlier(new.key)

    async def _fill_items(self, valid: Sequence[_Valid]) -> list[_Item]:
        templated = [item for item in valid if isinstance(item, Unfilled)]
        if not templated:
            return [item for item in valid if not isinstance(item, Unfilled)]
        until = Deadline(self._deadline_s)
        async with until.of_store():
            found = await self._filling.find(templated)
        return [
            await self._fill_item(item, until, found) if isinstance(item, Unfilled) else item
            for item in valid
        ]

    async def _fill_item(self, unfilled: Unfilled, until: Deadline, found: Found) -> _Item:
        try:
            return await self._filled(unfilled, until, found)
        except InvalidNotification as error:
            return batch_refusal(error)

    async def _validate_items(
        self, raws: Sequence[bytes], sender: Principal, keys: RequestKeys
    ) -> tuple[list[_Valid], KnownTenants]:
        """Validates each item by the settings of its tenant; returns the tenants, too."""
        tenants = await self._gate.tenants(sender)
        items = await self._validated_items(raws, sender, keys, tenants)
        unknown = _unknown(items, tenants)
        if not unknown:
            return items, tenants
        tenants = await self._gate.tenants(sender, unknown)
        if _unknown(items, tenants) != unknown:
            items = await self._validated_items(raws, sender, keys, tenants)
        unknown = _unknown(items, tenants)
        known = [
            batch_refusal(_unknown_tenant()) if _tenant_of(item) in unknown else item
            for item in items
        ]
        return known, tenants

    async def _validated_items(
        self, raws: Sequence[bytes], sender: Principal, keys: RequestKeys, tenants: KnownTenants
    ) -> list[_Valid]:
        by = Sender(sender.tenant, sender.mode, tenants)
        return [
            self._validate_item(raw, by, keys, number)
            async for number, raw in in_turns(enumerate(raws))
        ]

    def _validate_item(self, raw: bytes, sender: Sender, keys: RequestKeys, number: int) -> _Valid:
        try:
            if len(raw) > self._submit_limit.max_bytes:
                raise self._submit_limit.too_large()
            return self._validator.validate(raw, sender, keys, number)
        except (InvalidNotification, RequestRefused) as error:
            return batch_refusal(error)

    def _sender(self, request: Request[Any, Any, Any]) -> Principal:
        """Returns who submits. Raises RequestRefused for a test key without a place for tests."""
        principal = principal_of(request.scope)
        check_mode(principal.mode, self._rules)
        return principal

    async def _submit_items(self, items: Sequence[_Item]) -> Sequence[Reply | Refusal]:
        valid = _valid(items)
        return await self._acceptor.submit(valid) if valid else ()

    async def _as_answered_first(
        self, answered: Sequence[tuple[NewNotification, Reply | Refusal]], valid: Sequence[_Valid]
    ) -> Sequence[NewNotification]:
        """Returns the notifications, replayed ones with the template and segments of the first.

        That may have another version of its template. `valid` are the submits.
        """
        replays = {
            new.id: reply.id
            for new, reply in answered
            if isinstance(reply, Replayed) and new.template is not None
        }
        if not replays:
            return [new for new, _ in answered]
        unfilled = {item.new.id: item for item in valid if isinstance(item, Unfilled)}
        until = Deadline(self._deadline_s)
        try:
            async with until.of_store():
                templates = await self._reader.templates_of(set(replays.values()))
        except StoreUnavailable:  # others of a batch are stored already: it is no failure
            return [new for new, _ in answered]
        return [
            await self._of_version(new, unfilled[new.id], until, templates.get(replays[new.id]))
            if new.id in replays
            else new
            for new, _ in answered
        ]

    async def _of_version(
        self, new: NewNotification, unfilled: Unfilled, until: Deadline, template: str | None
    ) -> NewNotification:
        """Returns a notification as this version of its template fills it; None: as it is."""
        if template in {None, new.template}:
            return new
        try:
            return await self._filling.filled_with(unfilled, until, template)
        except (InvalidNotification, RendererUnavailable, StoreUnavailable):
            # It is stored already: nothing may be answered that makes the caller repeat it.
            return msgspec.structs.replace(new, template=template, segments=None)

    async def _batch_response(
        self, items: Sequence[_Item], stored: Sequence[Reply | Refusal], valid: Sequence[_Valid]
    ) -> ASGIApp:
        """Makes the response. `stored` has the replies to the items that were submitted."""
        reply = iter(stored)
        answers = [
            item if isinstance(item, BatchRefusal | _Repeated) else (item, next(reply))
            for item in items
        ]
        answered = [answer for answer in answers if not isinstance(answer, BatchRefusal)]
        first = iter(await self._as_answered_first(answered, valid))
        results = [
            answer if isinstance(answer, BatchRefusal) else _result(next(first), answer[1])
            for answer in answers
        ]
        replies = [reply for _, reply in answered]
        refused = [result for result in results if isinstance(result, BatchRefusal)]
        if len(refused) < len(results):
            is_replay = not any(isinstance(answer, Status | Suppressed) for answer in replies)
            headers = [REPLAYED] if is_replay else []
            return json_response(BatchResponse(results), status=202, headers=headers)
        refusal = _refusal(replies, are_all=len(replies) == len(items))
        refusal.problem = msgspec.structs.replace(refusal.problem, results=refused)
        raise refusal


def notification_page(page: Page, selection: Filter) -> NotificationPage:
    """Builds the document of a page."""
    cursor = next_cursor(selection, page.next_before)
    return NotificationPage([Summary.of(view) for view in page.views], cursor)


def _valid(items: Sequence[_Item]) -> list[NewNotification]:
    return [item for item in items if isinstance(item, NewNotification)]


def _new_of(valid: NewNotification | Unfilled) -> NewNotification:
    return valid.new if isinstance(valid, Unfilled) else valid


def _tenant_of(item: _Valid) -> TenantId | None:
    """Returns whose an item is, None for one that was refused."""
    return None if isinstance(item, BatchRefusal) else _new_of(item).tenant


def _unknown(items: Sequence[_Valid], tenants: KnownTenants) -> Collection[TenantId]:
    """Returns the tenants of items that are not among the known ones."""
    named = {tenant for item in items if (tenant := _tenant_of(item)) is not None}
    return unknown_tenants(named, tenants)


def _unknown_tenant() -> InvalidNotification:
    return InvalidNotification("tenant", KNOWN_TENANT_EXPECTED)


def parse_id(text: str) -> NotificationId:
    """Returns the id in a path. Raises NotFound for what is none."""
    id_ = canonical_uuid(text)
    if id_ is None:
        raise NotFound
    return NotificationId(id_)


def _result(new: NewNotification, reply: Reply | Refusal) -> Accepted | BatchRefusal:
    return batch_refusal(reply) if isinstance(reply, NotifierError) else _accepted(new, reply)


def _accepted(new: NewNotification, reply: Status | Suppressed | Replayed) -> Accepted:
    reason: str | None = None
    match reply:
        case Replayed(id=id_, status=status, reason=reason):
            pass
        case Suppressed(reason=reason):
            id_, status = new.id, Status.SUPPRESSED
        case status:
            id_ = new.id
    return Accepted(
        id=id_,
        status=status,
        queue=str(new.queue),
        segments=msgspec.UNSET if new.segments is None else new.segments,
        reason=msgspec.UNSET if reason is None else reason,
        template=msgspec.UNSET if new.template is None else new.template,
    )


def _refusal(replies: Sequence[Reply | Refusal], *, are_all: bool) -> RequestRefused:
    """Returns the refusal of a batch of which nothing was stored: one to be repeated if all are."""
    unavailable = [reply for reply in replies if isinstance(reply, FeatureUnavailable)]
    if are_all and len(unavailable) == len(replies):
        return as_refusal(unavailable[0])
    detail = "`results` holds the problem of every item."
    return RequestRefused(ProblemType.NOTHING_ACCEPTED.problem(detail))
