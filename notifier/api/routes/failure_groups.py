"""`/v1/failures/groups`: which kinds of failures there were in the last 24 hours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import principal_of, seen_by
from notifier.api.failures.documents import FailureGroupPage
from notifier.api.http.deadline import deadline
from notifier.api.http.pages import page_response
from notifier.api.http.query import FailureGroupQuery
from notifier.api.routes.failures import FAILURES
from notifier.api.rules import ApiRules
from notifier.domain.failures import begin_of
from notifier.ports.failures import FailureGroupReader

FAILURE_GROUPS: Final = f"{FAILURES}/groups"
FAILURE_GROUP_PARAMETERS: Final = ("tenant", "mode", "channel")


class FailureGroupRoutes:
    """Handlers of `/v1/failures/groups`."""

    def __init__(self, *, reader: FailureGroupReader, rules: ApiRules) -> None:
        self._reader = reader
        self._deadline_s = rules.request_deadline_s
        self._query = FailureGroupQuery(rules.listed_channels)

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        selection = seen_by(principal_of(request.scope), self._query.parse(request))
        begin = begin_of(datetime.now(UTC))
        async with deadline(self._deadline_s):
            found = await self._reader.failure_groups(begin, selection.channel, selection.view)
        return page_response(request, FailureGroupPage.of(found))
