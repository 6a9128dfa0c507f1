"""`/v1/queues`: the state of every queue."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.http.deadline import deadline
from notifier.api.http.pages import page_response
from notifier.api.responses import Queue, QueuePage
from notifier.api.rules import ApiRules
from notifier.ports.queries import StatusReader


class QueueRoutes:
    """Handlers of `/v1/queues`."""

    def __init__(self, *, status: StatusReader, rules: ApiRules) -> None:
        self._status = status
        self._deadline_s = rules.request_deadline_s

    async def read_all(self, request: Request[Any, Any, Any]) -> ASGIApp:
        async with deadline(self._deadline_s):
            states = await self._status.queues()
        return page_response(request, QueuePage([Queue.of(state) for state in states]))
