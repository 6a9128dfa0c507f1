"""`/v1/templates`: saves and reads versions of templates."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import author_of, principal_of
from notifier.api.auth.gate import Gate
from notifier.api.http.body import BodyLimit, read_json_body
from notifier.api.http.deadline import Deadline, deadline
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.query import named_tenant, page_of, parse_paging
from notifier.api.http.raw_response import RawResponse, json_response
from notifier.api.rules import ApiRules
from notifier.api.templating.checking import checked_template, fault_as_field
from notifier.api.templating.documents import Template, TemplatePage
from notifier.domain.errors import InvalidNotification
from notifier.domain.templates import (
    MAX_TEMPLATE_BYTES,
    MAX_TEMPLATES,
    TEMPLATE_NAME_EXPECTED,
    is_template_name,
)
from notifier.domain.tenants import TenantId, tenant_name
from notifier.ports.templates import NewTemplate, TemplateRenderer, TemplateStore

TEMPLATES: Final = "/v1/templates"
_MAX_DIGITS: Final = 9


class TemplateRoutes:
    """Handlers of `/v1/templates`."""

    def __init__(
        self, *, store: TemplateStore, renderer: TemplateRenderer, rules: ApiRules, gate: Gate
    ) -> None:
        self._gate = gate
        self._store = store
        self._renderer = renderer
        self._channels = rules.channels
        self._deadline_s = rules.request_deadline_s
        self._limit = BodyLimit(
            max_bytes=MAX_TEMPLATE_BYTES,
            timeout_s=rules.body_timeout_s,
            detail=f"A version of a template takes at most {MAX_TEMPLATE_BYTES:,} bytes.",
        )

    async def read_all(self, request: Request[Any, Any, Any]) -> ASGIApp:
        paging = parse_paging(request, names_tenant=True)
        principal = principal_of(request.scope)
        tenant = await self._gate.tenant_of(principal, paging.get("tenant"), "?tenant")
        async with deadline(self._deadline_s):
            found = await self._store.templates(tenant)
        page, cursor = page_of(found, lambda each: each.name, paging, f"templates {tenant}")
        return page_response(request, TemplatePage([Template.of(each) for each in page], cursor))

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        name, tenant = str(request.path_params["template"]), await self._tenant(request)
        async with deadline(self._deadline_s):
            found = await self._store.template(tenant, name)
        if found is None:
            raise _not_found()
        return json_response(Template.of(found))

    async def read_version(self, request: Request[Any, Any, Any]) -> ASGIApp:
        name, version = str(request.path_params["template"]), _version(request)
        tenant = await self._tenant(request)
        async with deadline(self._deadline_s):
            document = await self._store.document(tenant, name, version)
        if document is None:
            raise _not_found()
        return RawResponse(200, document)

    async def save(self, request: Request[Any, Any, Any]) -> ASGIApp:
        name = str(request.path_params["template"])
        if not is_template_name(name):
            raise InvalidNotification("template", TEMPLATE_NAME_EXPECTED)
        checked = checked_template(await read_json_body(request, self._limit), self._channels)
        tenant = await self._gate.tenant_of(principal_of(request.scope), checked.tenant, "tenant")
        until = Deadline(self._deadline_s)
        async with until.of_renderer():
            compiled = await self._renderer.compile(tenant, checked.document)
        if not isinstance(compiled, bytes):
            raise InvalidNotification.of([fault_as_field(fault) for fault in compiled])
        new = NewTemplate(
            name=name,
            channels=checked.channels,
            document=checked.document,
            compiled=compiled,
        )
        async with until.of_store():
            saved = await self._store.save(tenant, new, author_of(request.scope))
        if saved is None:
            raise InvalidNotification("template", f"at most {MAX_TEMPLATES:,} templates")
        location = f"{TEMPLATES}/{name}/versions/{saved.summary.version}"
        if checked.tenant is not None:
            location += f"?tenant={tenant_name(tenant)}"
        return json_response(
            Template.of(saved.summary),
            status=201 if saved.is_new else 200,
            headers=[(b"location", location.encode())],
        )

    async def _tenant(self, request: Request[Any, Any, Any]) -> TenantId:
        """Returns whose templates are read. Raises InvalidNotification for `?tenant`."""
        named = named_tenant(request)
        return await self._gate.tenant_of(principal_of(request.scope), named, "?tenant")


def _version(request: Request[Any, Any, Any]) -> int:
    text = str(request.path_params["version"])
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise _not_found()
    return int(text)


def _not_found() -> RequestRefused:
    return RequestRefused(
        ProblemType.NOT_FOUND.problem("There is no template with this name and version.")
    )
