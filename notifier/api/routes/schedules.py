"""`/v1/schedules`: notifications that are submitted at the instants of a cron expression."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import author_of, principal_of, scope_missing
from notifier.api.auth.gate import Gate
from notifier.api.http.body import read_json_body, submit_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.query import named_tenant, page_of, parse_include, parse_paging
from notifier.api.http.raw_response import RawResponse, json_response
from notifier.api.http.tenant_names import KNOWN_TENANT_EXPECTED
from notifier.api.http.uuids import canonical_uuid
from notifier.api.rules import ApiRules
from notifier.api.schedules.checking import (
    NOTIFICATION,
    TENANT_FIELD,
    CheckedRequest,
    checked_request,
    of_notification,
)
from notifier.api.schedules.documents import Schedule, SchedulePage
from notifier.api.submission.preparing import SubmitPreparation, check_mode
from notifier.api.submission.validation import Sender
from notifier.domain import schedules
from notifier.domain.cron import CRON_EXPECTED
from notifier.domain.errors import InvalidNotification
from notifier.domain.keys import KeyScope
from notifier.domain.notification import NewNotification
from notifier.domain.schedules import MAX_SCHEDULES, NewSchedule, ScheduleScope
from notifier.domain.tenants import TenantId, tenant_name
from notifier.ports.schedules import ScheduleRefusal, ScheduleStore

SCHEDULES: Final = "/v1/schedules"
SCHEDULE_PARAMETERS: Final = ("tenant", "include")
MIN_TTL: Final = timedelta(minutes=1)
"""A run may be some seconds late."""
_INCLUDE: Final = parse_include(NOTIFICATION, names_tenant=True)


class ScheduleRoutes:
    """Handlers of `/v1/schedules`."""

    def __init__(
        self, *, store: ScheduleStore, preparation: SubmitPreparation, rules: ApiRules, gate: Gate
    ) -> None:
        self._store = store
        self._preparation = preparation
        self._rules = rules
        self._gate = gate
        self._deadline_s = rules.request_deadline_s
        self._limit = submit_body_limit(rules, rules.max_body_bytes)

    async def read_all(self, request: Request[Any, Any, Any]) -> ASGIApp:
        paging = parse_paging(request, names_tenant=True)
        scope = await self._scope(request, paging.get("tenant"), "?tenant")
        async with deadline(self._deadline_s):
            found = await self._store.schedules(scope)
        page, cursor = page_of(found, lambda each: str(each.id), paging, f"schedules {scope}")
        return page_response(request, SchedulePage([Schedule.of(each) for each in page], cursor))

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        values = _INCLUDE.parse(request)
        with_notification = NOTIFICATION in values.get("include", ())
        if with_notification and KeyScope.OPERATE not in principal_of(request.scope).scopes:
            raise scope_missing(KeyScope.OPERATE)
        scope = await self._scope(request, values.get("tenant"), "?tenant")
        found = await self._found(request, scope)
        return json_response(Schedule.of(found, with_notification=with_notification))

    async def create(self, request: Request[Any, Any, Any]) -> ASGIApp:
        in_query = named_tenant(request)
        checked = await self._requested(request, in_query)
        named = in_query if checked.named is None else checked.named
        scope = await self._scope(request, named, TENANT_FIELD)
        new = await self._new(request, scope, checked)
        async with deadline(self._deadline_s):
            added = await self._store.create(scope, new, author_of(request.scope))
        if isinstance(added, ScheduleRefusal):
            raise _refusal(added)
        location = f"{SCHEDULES}/{added.schedule.id}"
        if principal_of(request.scope).tenant is None:
            location += f"?tenant={tenant_name(scope.tenant)}"
        return json_response(
            Schedule.of(added.schedule),
            status=201 if added.is_new else 200,
            headers=[(b"location", location.encode())],
        )

    async def replace(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = await self._scope(request, named_tenant(request), "?tenant")
        before = await self._found(request, scope)
        checked = await self._requested(request, scope.tenant)
        new = await self._new(request, scope, checked, before)
        async with deadline(self._deadline_s):
            stored = await self._store.replace(scope, before.id, new, author_of(request.scope))
        if isinstance(stored, ScheduleRefusal):
            raise _refusal(stored)
        return json_response(Schedule.of(stored))

    async def delete(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = await self._scope(request, named_tenant(request), "?tenant")
        id_ = _id(request)
        async with deadline(self._deadline_s):
            is_gone = await self._store.delete(scope, id_, author_of(request.scope))
        if not is_gone:
            raise _not_found()
        return RawResponse(204, b"", ())

    async def _requested(
        self, request: Request[Any, Any, Any], tenant: TenantId | None
    ) -> CheckedRequest:
        """Returns what a request asks for. Its notification may name no other tenant than this."""
        checked = checked_request(await read_json_body(request, self._limit))
        if tenant is not None and checked.named not in {None, tenant}:
            raise InvalidNotification(TENANT_FIELD, "the tenant of the schedule, or none")
        return checked

    async def _new(
        self,
        request: Request[Any, Any, Any],
        scope: ScheduleScope,
        checked: CheckedRequest,
        before: schedules.Schedule | None = None,
    ) -> NewSchedule:
        """Returns the schedule. Raises InvalidNotification with all that is wrong with it.

        The notification of `before` is not checked again: a schedule whose template is gone can be
        paused.
        """
        faults = list(checked.faults)
        is_stored = before is not None and checked.would_submit(before.notification or b"")
        if checked.notification and not is_stored:
            check_mode(scope.mode, self._rules)
            tenants = await self._gate.tenants(principal_of(request.scope), {scope.tenant})
            sender = Sender(scope.tenant, scope.mode, tenants)
            try:
                prepared = await self._preparation.prepare(checked.notification, sender)
            except InvalidNotification as error:
                faults += of_notification(error)
            else:
                faults += _ttl_faults(prepared)
        if faults:
            raise InvalidNotification.of(faults)
        new = checked.schedule()
        if new.cron.next_after(datetime.now(UTC)) is None:
            raise InvalidNotification("cron", f"{CRON_EXPECTED}, with an instant in 50 years")
        return new

    async def _found(
        self, request: Request[Any, Any, Any], scope: ScheduleScope
    ) -> schedules.Schedule:
        """Returns the schedule that the path names. Raises RequestRefused (404)."""
        id_ = _id(request)
        async with deadline(self._deadline_s):
            found = await self._store.schedule(scope, id_)
        if found is None:
            raise _not_found()
        return found

    async def _scope(
        self, request: Request[Any, Any, Any], named: TenantId | None, field: str
    ) -> ScheduleScope:
        """Returns whose schedules they are. Raises InvalidNotification for the field."""
        principal = principal_of(request.scope)
        return ScheduleScope(await self._gate.tenant_of(principal, named, field), principal.mode)


def _ttl_faults(prepared: NewNotification) -> Sequence[InvalidNotification]:
    if prepared.ttl >= MIN_TTL:
        return ()
    expected = f"at least {MIN_TTL.total_seconds():g} seconds"
    return [InvalidNotification(f"{NOTIFICATION}.ttl_s", expected)]


def _id(request: Request[Any, Any, Any]) -> UUID:
    id_ = canonical_uuid(str(request.path_params["schedule"]))
    if id_ is None:
        raise _not_found()
    return id_


def _not_found() -> RequestRefused:
    return RequestRefused(ProblemType.NOT_FOUND.problem("There is no schedule with this id."))


def _refusal(refusal: ScheduleRefusal) -> Exception:
    match refusal:
        case ScheduleRefusal.UNKNOWN_TENANT:
            return InvalidNotification(TENANT_FIELD, KNOWN_TENANT_EXPECTED)
        case ScheduleRefusal.UNKNOWN:
            return _not_found()
        case ScheduleRefusal.TOO_MANY:
            detail = f"There are {MAX_SCHEDULES:,} schedules. Delete one first."
            return RequestRefused(ProblemType.IN_USE.problem(detail))
        case ScheduleRefusal.EXISTS:
            detail = "Another schedule submits the same at the same instants."
            return RequestRefused(ProblemType.IN_USE.problem(detail))
