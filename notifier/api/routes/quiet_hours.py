"""`/v1/tenants/{tenant}/quiet-hours`: when what is not urgent waits, also of the default tenant."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import author_of
from notifier.api.http.body import read_json_body, small_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.raw_response import json_response
from notifier.api.http.tenant_names import checked_tenant
from notifier.api.requests import QuietHoursRequest
from notifier.api.responses import DeletedQuietHours, QuietHours
from notifier.api.rules import ApiRules
from notifier.domain.errors import InvalidNotification
from notifier.domain.features import NEEDED_TO_HOLD
from notifier.domain.quiet_hours import (
    TIME_EXPECTED,
    is_time_of_day,
    quiet_hours,
)
from notifier.domain.tenants import TenantId
from notifier.domain.time_zones import TIME_ZONE_EXPECTED, is_time_zone
from notifier.ports.controls import QuietHoursStore
from notifier.ports.heartbeat import FeatureCheck

QUIET_HOURS: Final = "/v1/tenants/{tenant:str}/quiet-hours"
_REQUEST: Final = BodyDecoder(QuietHoursRequest)


class QuietHoursRoutes:
    """Handlers of `/v1/tenants/{tenant}/quiet-hours`."""

    def __init__(self, *, store: QuietHoursStore, features: FeatureCheck, rules: ApiRules) -> None:
        self._store = store
        self._features = features
        self._deadline_s = rules.request_deadline_s
        self._limit = small_body_limit(rules)

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        tenant = _tenant(request)
        async with deadline(self._deadline_s):
            hours = (await self._store.quiet_hours()).get(tenant)
        if hours is None:
            raise _not_found("The tenant has no quiet hours.")
        return json_response(QuietHours.of(tenant, hours))

    async def put(self, request: Request[Any, Any, Any]) -> ASGIApp:
        tenant = _tenant(request)
        requested = _REQUEST.decode(await read_json_body(request, self._limit))
        _check(requested)
        hours = quiet_hours(requested.start, requested.end, requested.time_zone)
        if refusal := self._features.refusal(NEEDED_TO_HOLD):
            raise refusal
        async with deadline(self._deadline_s):
            is_stored = await self._store.put_quiet_hours(tenant, hours, author_of(request.scope))
        if not is_stored:
            raise _not_found("There is no tenant with this name.")
        return json_response(QuietHours.of(tenant, hours))

    async def delete(self, request: Request[Any, Any, Any]) -> ASGIApp:
        tenant = _tenant(request)
        async with deadline(self._deadline_s):
            was_set = await self._store.delete_quiet_hours(tenant, author_of(request.scope))
        return json_response(DeletedQuietHours(was_set))


def _check(requested: QuietHoursRequest) -> None:
    """Raises InvalidNotification with all wrong fields."""
    faults = [
        InvalidNotification(field, TIME_EXPECTED)
        for field, text in (("start", requested.start), ("end", requested.end))
        if not is_time_of_day(text)
    ]
    if requested.start == requested.end:
        faults.append(InvalidNotification("end", "another time than start"))
    if not is_time_zone(requested.time_zone):
        faults.append(InvalidNotification("time_zone", TIME_ZONE_EXPECTED))
    if faults:
        raise InvalidNotification.of(faults)


def _tenant(request: Request[Any, Any, Any]) -> TenantId:
    return checked_tenant(str(request.path_params["tenant"]))


def _not_found(detail: str) -> RequestRefused:
    return RequestRefused(ProblemType.NOT_FOUND.problem(detail))
