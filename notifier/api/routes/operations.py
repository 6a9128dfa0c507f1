"""`/v1/operations`: cancels many notifications, has them sent again, or erases a recipient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import (
    Principal,
    author_of,
    principal_of,
    scope_missing,
    seen_by,
    view_of,
)
from notifier.api.http.body import BodyLimit, read_json_body, small_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.notes import read_note
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.public_address import PublicAddress
from notifier.api.http.query import (
    OF_FILTER,
    ErasureFilters,
    OperationFilters,
    OperationQuery,
    next_cursor,
)
from notifier.api.http.raw_response import json_response
from notifier.api.http.uuids import canonical_uuid
from notifier.api.requests import (
    DEFAULT_RETRY_RATE,
    MAX_OPERATION_IDS,
    OperationRequest,
)
from notifier.api.responses import Operation, OperationPage
from notifier.api.routes.notifications import NOTIFICATION_FILTERS, REPLAYED
from notifier.api.rules import ApiRules
from notifier.api.submission.idempotency import operation_key
from notifier.domain.errors import IdempotencyKeyReused, InvalidNotification
from notifier.domain.features import NEEDED_TO_ERASE
from notifier.domain.keys import KeyScope
from notifier.domain.lookups import LookupKind
from notifier.domain.notification import FINAL, EndReason, NotificationId, Status
from notifier.domain.one_line import checked_note
from notifier.domain.operations import OperationKind, OperationStatus
from notifier.domain.tenants import tenant_name
from notifier.ports.heartbeat import FeatureCheck
from notifier.ports.operations import (
    Counted,
    NewOperation,
    OperationRefusal,
    OperationStore,
    Replay,
)
from notifier.ports.queries import Filter

OPERATIONS: Final = "/v1/operations"
OPERATION_FILTERS: Final = ("kind", "status")
MAX_BYTES: Final = 256 * 1024
_IDS: Final = "ids"
BESIDE_IDS: Final = ("status", "tenant", "mode")
"""The fields of a filter that may stand beside ids."""
_REQUEST: Final = BodyDecoder(OperationRequest)
_WHOSE: Final = frozenset({"tenant", "mode"})
_RETRIED_REASONS: Final = tuple(
    sorted({"", *EndReason} - {EndReason.AMBIGUOUS, EndReason.COLLAPSED})
)
"""Of what is retried although no reason was named: not what was perhaps sent, nor what a newer one
has replaced. Rows of before 0.2 may have none."""
_VALUES_EXPECTED: Final = "a text or an array of texts"


class OperationRoutes:
    """Handlers of `/v1/operations`."""

    def __init__(
        self,
        *,
        store: OperationStore,
        features: FeatureCheck,
        rules: ApiRules,
        address: PublicAddress,
    ) -> None:
        self._store = store
        self._features = features
        self._address = address
        self._deadline_s = rules.request_deadline_s
        self._filters = OperationFilters(NOTIFICATION_FILTERS, rules.submit_channels, rules.lookups)
        self._erasure_filters = ErasureFilters(rules.submit_channels)
        self._query = OperationQuery()
        self._small_limit = small_body_limit(rules)
        self._limit = BodyLimit(
            max_bytes=MAX_BYTES,
            timeout_s=rules.body_timeout_s,
            detail=f"At most {MAX_OPERATION_IDS:,} ids: make several operations of more.",
        )

    async def create(self, request: Request[Any, Any, Any]) -> ASGIApp:
        principal = principal_of(request.scope)
        body = await read_json_body(request, self._limit)
        requested = _REQUEST.decode(body)
        if requested.kind is OperationKind.ERASE and KeyScope.ADMIN not in principal.scopes:
            raise scope_missing(KeyScope.ADMIN)
        new = self._new(requested, principal)
        if requested.dry_run:
            async with deadline(self._deadline_s):
                counted = await self._store.count(new)
            return json_response(_dry_run(new, principal, counted))
        if new.kind is OperationKind.ERASE and (refusal := self._features.refusal(NEEDED_TO_ERASE)):
            raise refusal
        new = replace(new, key=operation_key(request.scope, principal.tenant, principal.mode, body))
        async with deadline(self._deadline_s):
            stored = await self._store.create(new, author_of(request.scope))
        match stored:
            case OperationRefusal.TOO_MANY:
                detail = "As many operations are running as may: wait for one, or stop it."
                raise RequestRefused(ProblemType.IN_USE.problem(detail))
            case OperationRefusal.KEY_REUSED:
                raise IdempotencyKeyReused
            case Replay(operation):
                headers = [REPLAYED]
            case operation:
                headers = []
        location = f"{self._address.prefix(request.scope)}{OPERATIONS}/{operation.id}".encode()
        return json_response(
            Operation.of(operation), status=202, headers=[(b"location", location), *headers]
        )

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        selection = self._query.parse(request, view_of(principal_of(request.scope)))
        async with deadline(self._deadline_s):
            page = await self._store.operations(selection)
        documents = list(map(Operation.of, page.operations))
        cursor = next_cursor(selection, page.next_before)
        return page_response(request, OperationPage(documents, cursor))

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        id_ = canonical_uuid(str(request.path_params["operation"]))
        view = view_of(principal_of(request.scope))
        async with deadline(self._deadline_s):
            found = None if id_ is None else await self._store.operation(id_, view)
        if found is None:
            raise _not_found()
        return json_response(Operation.of(found))

    async def stop(self, request: Request[Any, Any, Any]) -> ASGIApp:
        id_ = canonical_uuid(str(request.path_params["operation"]))
        note = await read_note(request, self._small_limit)
        view, author = view_of(principal_of(request.scope)), author_of(request.scope)
        async with deadline(self._deadline_s):
            found = None if id_ is None else await self._store.stop(id_, view, note, author)
        if found is None:
            raise _not_found()
        return json_response(Operation.of(found))

    def _new(self, requested: OperationRequest, principal: Principal) -> NewOperation:
        """Returns the operation. Raises InvalidNotification for its filter."""
        note = checked_note(requested.note).strip()
        if not note:
            raise InvalidNotification("note", "why, in one line")
        document = _filter_document(requested.filter)
        if requested.kind is OperationKind.ERASE:
            return self._new_erasure(requested, document, note, principal)
        ids = _ids(document.pop(_IDS, ()))
        if not ids and not set(document) - _WHOSE:
            raise InvalidNotification("filter", "at least one field besides tenant and mode")
        if ids and not set(document).issubset(BESIDE_IDS):
            expected = f"no other fields beside it than {', '.join(BESIDE_IDS)}"
            raise InvalidNotification(OF_FILTER + _IDS, expected)
        selection = self._filters.read(document)
        selection = _with_statuses(requested.kind, selection, are_named=bool(ids))
        rate = requested.rate_per_s
        if rate is None and requested.kind is OperationKind.RETRY:
            rate = DEFAULT_RETRY_RATE
        return NewOperation(
            kind=requested.kind,
            selection=seen_by(principal, selection, OF_FILTER),
            ids=ids,
            shown=msgspec.json.decode(requested.filter, type=dict[str, object]),
            rate_per_s=rate,
            note=note,
        )

    def _new_erasure(
        self,
        requested: OperationRequest,
        document: Mapping[str, Sequence[str]],
        note: str,
        principal: Principal,
    ) -> NewOperation:
        """Returns the erasure of a recipient. Raises InvalidNotification for its filter."""
        if requested.rate_per_s is not None:
            raise InvalidNotification("rate_per_s", "none: an erasure has no rate")
        selection = seen_by(principal, self._erasure_filters.read(document), OF_FILTER)
        (recipient,) = selection.recipient
        if recipient in note.lower():
            raise InvalidNotification("note", "why, without the recipient: notes are kept")
        shown = msgspec.json.decode(requested.filter, type=dict[str, object])
        return NewOperation(
            kind=requested.kind,
            selection=selection,
            shown={**shown, LookupKind.RECIPIENT.value: None},
            rate_per_s=None,
            note=note,
        )


def _filter_document(raw: msgspec.Raw) -> dict[str, Sequence[str]]:
    """Returns the values of each field. Raises InvalidNotification."""
    try:
        document = msgspec.json.decode(raw, type=dict[str, str | list[str]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidNotification("filter", f"an object, each field {_VALUES_EXPECTED}") from error
    for name, values in document.items():
        if not values:
            raise InvalidNotification(OF_FILTER + name, f"{_VALUES_EXPECTED}, at least one")
    return {
        name: [values] if isinstance(values, str) else values for name, values in document.items()
    }


def _ids(texts: Sequence[str]) -> Sequence[NotificationId]:
    if len(texts) > MAX_OPERATION_IDS:
        raise InvalidNotification(OF_FILTER + _IDS, f"at most {MAX_OPERATION_IDS:,} ids")
    ids = {canonical_uuid(text) for text in texts}
    if None in ids:
        raise InvalidNotification(OF_FILTER + _IDS, "ids of notifications")
    return [NotificationId(id_) for id_ in ids if id_ is not None]


def _with_statuses(kind: OperationKind, selection: Filter, *, are_named: bool) -> Filter:
    """Returns a filter of what the operation is to change. Raises InvalidNotification.

    `are_named`: by their ids, so that none is taken by mistake.
    """
    accepted = kind.accepts
    if not accepted.issuperset(selection.status):
        names = ", ".join(status for status in Status if status in accepted)
        raise InvalidNotification(f"{OF_FILTER}status", f"some of {names} for a {kind}")
    takes_all = kind is OperationKind.CANCEL or are_named
    statuses = tuple(sorted(selection.status or (accepted if takes_all else {Status.FAILED})))
    if selection.is_of_results and not FINAL.issuperset(statuses):
        raise InvalidNotification(
            f"{OF_FILTER}status", "final statuses beside reason, provider and code"
        )
    is_broad = kind is OperationKind.RETRY and not are_named and not selection.reason
    return replace(
        selection, status=statuses, reason=_RETRIED_REASONS if is_broad else selection.reason
    )


def _dry_run(new: NewOperation, principal: Principal, counted: Counted) -> Operation:
    now = datetime.now(UTC)
    return Operation(
        id=None,
        tenant=None if principal.tenant is None else tenant_name(principal.tenant),
        mode=new.selection.view.mode,
        kind=new.kind,
        filter=_raw(new.shown),
        dry_run=True,
        rate_per_s=new.rate_per_s,
        note=new.note,
        actor=principal.actor,
        status=OperationStatus.FINISHED,
        matched=counted.matched,
        matched_is_exact=counted.is_exact,
        done=0,
        skipped=0,
        failed=0,
        sample=counted.sample,
        created_at=now,
        updated_at=now,
        finished_at=now,
    )


def _raw(document: Mapping[str, object]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(document))


def _not_found() -> RequestRefused:
    return RequestRefused(ProblemType.NOT_FOUND.problem("There is no operation with this id."))
