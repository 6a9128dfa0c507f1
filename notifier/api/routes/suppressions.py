"""`/v1/suppressions`: recipients to whom nothing may be sent, one by one or as CSV."""

from __future__ import annotations

from codecs import BOM_UTF8
from datetime import UTC, datetime
from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import author_of, principal_of
from notifier.api.auth.gate import Gate
from notifier.api.http.body import CSV, JSON, BodyLimit, check_media_type, media_type_of, read_body
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused, problem_of
from notifier.api.http.query import (
    PAGING_PARAMETERS,
    SuppressionQuery,
    named_tenant,
    next_cursor,
)
from notifier.api.http.raw_response import RawResponse, json_response
from notifier.api.http.tenant_names import checked_tenant
from notifier.api.http.turns import in_turns
from notifier.api.http.uuids import canonical_uuid
from notifier.api.rules import ApiRules
from notifier.api.submission.email_fields import checked_address
from notifier.api.suppressions.csv_rows import read_rows
from notifier.api.suppressions.documents import (
    ImportedSuppressions,
    RowProblem,
    Suppression,
    SuppressionPage,
    SuppressionRequest,
)
from notifier.domain.errors import InvalidNotification
from notifier.domain.one_line import checked_note
from notifier.domain.recipients import recipient_identity
from notifier.domain.suppressions import (
    TOPIC_EXPECTED,
    NewSuppression,
    SuppressionReason,
    SuppressionScope,
    is_topic,
)
from notifier.domain.tenants import TenantId
from notifier.ports.keys import Author
from notifier.ports.suppressions import UNKNOWN_FOR_S, SuppressionStore, WaitingSuppressor

SUPPRESSIONS: Final = "/v1/suppressions"
SUPPRESSION_FILTERS: Final = ("channel", "recipient", "topic", "reason")
SUPPRESSION_PARAMETERS: Final = ("tenant", *SUPPRESSION_FILTERS, *PAGING_PARAMETERS)
MAX_CSV_BYTES: Final = 4 * 1024 * 1024
_REQUEST: Final = BodyDecoder(SuppressionRequest)


class SuppressionRoutes:
    """Handlers of `/v1/suppressions`."""

    def __init__(
        self,
        *,
        store: SuppressionStore,
        suppressor: WaitingSuppressor,
        rules: ApiRules,
        gate: Gate,
    ) -> None:
        self._gate = gate
        self._store = store
        self._suppressor = suppressor
        self._channels = rules.submit_channels
        # Whoever adds the first one waits: see SuppressionStore.add.
        self._deadline_s = rules.request_deadline_s + UNKNOWN_FOR_S
        self._query = SuppressionQuery(self._channels)
        self._limit = BodyLimit(
            max_bytes=MAX_CSV_BYTES,
            timeout_s=rules.body_timeout_s,
            detail="Split a larger file into several.",
        )

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        values = self._query.parse(request)
        scope = await self._scope(request, values.get("tenant"))
        selection = self._query.selection(values, scope)
        async with deadline(self._deadline_s):
            page = await self._store.suppressions(selection)
        documents = [Suppression.of(each) for each in page.suppressions]
        return page_response(
            request, SuppressionPage(documents, next_cursor(selection, page.next_before))
        )

    async def create(self, request: Request[Any, Any, Any]) -> ASGIApp:
        check_media_type(request, (JSON, CSV))
        named, author = named_tenant(request), author_of(request.scope)
        body = await read_body(request, self._limit)
        if media_type_of(request) == CSV:
            scope = await self._scope(request, named)
            return json_response(await self._import(scope, body, author))
        requested = _REQUEST.decode(body.removeprefix(BOM_UTF8))
        new = self._checked(requested)
        scope = await self._scope(request, _named(requested, named), "tenant")
        async with deadline(self._deadline_s):
            ((stored, is_new),) = await self._store.add(scope, [new], author)
            await self._suppressor.suppress([stored.id])
        return json_response(Suppression.of(stored), status=201 if is_new else 200)

    async def delete(self, request: Request[Any, Any, Any]) -> ASGIApp:
        id_ = canonical_uuid(str(request.path_params["suppression"]))
        scope = await self._scope(request, named_tenant(request))
        author = author_of(request.scope)
        async with deadline(self._deadline_s):
            is_gone = id_ is not None and await self._store.remove(scope, id_, author)
        if not is_gone:
            problem = ProblemType.NOT_FOUND.problem("There is no suppression with this id.")
            raise RequestRefused(problem)
        return RawResponse(204, b"", ())

    async def _scope(
        self, request: Request[Any, Any, Any], named: TenantId | None, field: str = "?tenant"
    ) -> SuppressionScope:
        """Returns whose suppressions they are. Raises InvalidNotification for the field."""
        principal = principal_of(request.scope)
        return SuppressionScope(await self._gate.tenant_of(principal, named, field), principal.mode)

    async def _import(
        self, scope: SuppressionScope, body: bytes, author: Author
    ) -> ImportedSuppressions:
        new: list[NewSuppression] = []
        problems: list[RowProblem] = []
        async for row in in_turns(read_rows(body)):
            try:
                if isinstance(row.request, InvalidNotification):
                    raise row.request
                new.append(self._checked(row.request))
            except InvalidNotification as error:
                problems.append(RowProblem(row.line, problem_of(error)))
        added = 0
        if new:
            async with deadline(self._deadline_s):
                stored = await self._store.add(scope, new, author)
            added = sum(is_new for _, is_new in stored)
        return ImportedSuppressions(added, len(new) - added, problems)

    def _checked(self, request: SuppressionRequest) -> NewSuppression:
        """Returns the suppression. Raises InvalidNotification."""
        rules = self._channels.get(request.channel)
        if rules is None:
            raise InvalidNotification("channel", f"one of {', '.join(self._channels)}")
        if request.topic is not None and not is_topic(request.topic):
            raise InvalidNotification("topic", TOPIC_EXPECTED)
        checked_note(request.note)
        if request.expires_at is not None and request.expires_at <= datetime.now(UTC):
            raise InvalidNotification("expires_at", "an instant in the future")
        return NewSuppression(
            channel=request.channel,
            # In the form in which submits are compared with it.
            recipient=recipient_identity(checked_address(rules.address, request.recipient).address),
            topic=request.topic,
            reason=SuppressionReason(request.reason),
            note=request.note,
            expires_at=request.expires_at,
        )


def _named(request: SuppressionRequest, in_query: TenantId | None) -> TenantId | None:
    """Returns the tenant that a body names, or else the query. Raises InvalidNotification."""
    if request.tenant is None:
        return in_query
    tenant = checked_tenant(request.tenant)
    if in_query not in {None, tenant}:
        raise InvalidNotification("tenant", "the same tenant as ?tenant, or none")
    return tenant
