"""`/v1/workers`: the live processes."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.http.deadline import deadline
from notifier.api.http.pages import page_response
from notifier.api.responses import Worker, WorkerPage
from notifier.api.rules import ApiRules
from notifier.ports.queries import Reader


class WorkerRoutes:
    """Handlers of `/v1/workers`."""

    def __init__(self, *, reader: Reader, rules: ApiRules) -> None:
        self._reader = reader
        self._deadline_s = rules.request_deadline_s

    async def read_all(self, request: Request[Any, Any, Any]) -> ASGIApp:
        async with deadline(self._deadline_s):
            states = await self._reader.workers()
        return page_response(request, WorkerPage([Worker.of(state) for state in states]))
