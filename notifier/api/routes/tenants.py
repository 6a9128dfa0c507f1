"""`/v1/tenants`: makes, lists and deletes tenants."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import author_of
from notifier.api.auth.documents import Tenant, TenantPage, TenantRequest
from notifier.api.http.body import read_optional_body, small_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.query import page_of, parse_paging
from notifier.api.http.raw_response import RawResponse, json_response
from notifier.api.http.tenant_names import checked_tenant
from notifier.api.rules import ApiRules
from notifier.api.submission.tenant_settings import checked_settings
from notifier.domain.errors import InvalidNotification
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.keys import TenantRefusal, TenantStore

TENANTS: Final = "/v1/tenants"
NAME_TAKEN: Final = (
    "A tenant with this name was deleted, and its notifications are still stored. Take another one."
)
_REQUEST: Final = BodyDecoder(TenantRequest)


class TenantRoutes:
    """Handlers of `/v1/tenants`. The default tenant always exists, and is not deleted."""

    def __init__(self, *, store: TenantStore, rules: ApiRules) -> None:
        self._store = store
        self._deadline_s = rules.request_deadline_s
        self._limit = small_body_limit(rules)

    async def read_all(self, request: Request[Any, Any, Any]) -> ASGIApp:
        paging = parse_paging(request)
        async with deadline(self._deadline_s):
            tenants = await self._store.tenants()
        page, cursor = page_of(tenants, lambda tenant: tenant.name, paging, "tenants")
        return page_response(request, TenantPage([Tenant.of(tenant) for tenant in page], cursor))

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        name = str(request.path_params["tenant"])
        async with deadline(self._deadline_s):
            tenants = await self._store.tenants()
        for tenant in tenants:
            if tenant.name == name:
                return json_response(Tenant.of(tenant))
        raise _not_found()

    async def put(self, request: Request[Any, Any, Any]) -> ASGIApp:
        tenant = checked_tenant(str(request.path_params["tenant"]))
        requested = _REQUEST.decode(await read_optional_body(request, self._limit))
        settings = checked_settings(requested)
        async with deadline(self._deadline_s):
            stored = await self._store.put_tenant(
                tenant,
                note=settings.note,
                senders=settings.senders,
                locale=settings.locale,
                topics=settings.topics,
                rate_per_s=settings.rate_per_s,
                author=author_of(request.scope),
            )
        if stored is None:
            raise RequestRefused(ProblemType.NAME_TAKEN.problem(NAME_TAKEN))
        return json_response(Tenant.of(stored))

    async def delete(self, request: Request[Any, Any, Any]) -> ASGIApp:
        tenant = _named(request)
        async with deadline(self._deadline_s):
            refusal = await self._store.delete_tenant(tenant, author_of(request.scope))
        if refusal is TenantRefusal.UNKNOWN:
            raise _not_found()
        if refusal is not None:
            raise RequestRefused(ProblemType.IN_USE.problem(f"It was not deleted: {refusal}."))
        return RawResponse(204, b"", ())


def _named(request: Request[Any, Any, Any]) -> TenantId:
    tenant = checked_tenant(str(request.path_params["tenant"]))
    if tenant == DEFAULT_TENANT:
        raise InvalidNotification("tenant", "another name: the default tenant always exists")
    return tenant


def _not_found() -> RequestRefused:
    return RequestRefused(ProblemType.NOT_FOUND.problem("There is no tenant with this name."))
