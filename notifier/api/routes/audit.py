"""`/v1/audit`: what people did."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import principal_of
from notifier.api.auth.documents import AuditEntry, AuditPage
from notifier.api.http.deadline import deadline
from notifier.api.http.pages import page_response
from notifier.api.http.query import AuditQuery, next_cursor
from notifier.api.rules import ApiRules
from notifier.ports.keys import AuditReader

AUDIT: Final = "/v1/audit"


class AuditRoutes:
    """Handlers of `/v1/audit`. A deployment key sees the entries of all tenants."""

    def __init__(self, *, store: AuditReader, rules: ApiRules) -> None:
        self._store = store
        self._query = AuditQuery()
        self._deadline_s = rules.request_deadline_s

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        selection = self._query.parse(request, principal_of(request.scope).tenant)
        async with deadline(self._deadline_s):
            page = await self._store.audit(selection)
        entries = [AuditEntry.of(entry) for entry in page.entries]
        cursor = next_cursor(selection, page.next_before)
        return page_response(request, AuditPage(entries, cursor))
