"""`/v1/failures`: the failure log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.http.deadline import deadline
from notifier.api.http.query import ListQuery, cursor_after
from notifier.api.http.raw_response import json_response
from notifier.api.responses import Failure, FailurePage
from notifier.api.rules import ApiRules
from notifier.ports.queries import Reader

FAILURE_FILTERS: Final = ("channel", "priority", "reason", "created_from", "created_to")


class FailureRoutes:
    """Handlers of `/v1/failures`."""

    def __init__(self, *, reader: Reader, rules: ApiRules) -> None:
        self._reader = reader
        self._deadline_s = rules.request_deadline_s
        self._query = ListQuery(*FAILURE_FILTERS, channels=rules.channels)

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        selection = self._query.parse(request)
        async with deadline(self._deadline_s):
            # The extra row shows that a page follows.
            views = await self._reader.failures(replace(selection, limit=selection.limit + 1))
        shown = views[: selection.limit]
        cursor = cursor_after(shown[-1].id) if len(views) > selection.limit else None
        return json_response(FailurePage([Failure.of(view) for view in shown], cursor))
