"""`/v1/queues`: the state of every queue."""

from __future__ import annotations

from litestar.types import ASGIApp

from notifier.api.http.deadline import deadline
from notifier.api.http.raw_response import json_response
from notifier.api.responses import Queue, QueuePage
from notifier.api.rules import ApiRules
from notifier.ports.queries import StatusReader


class QueueRoutes:
    """Handlers of `/v1/queues`."""

    def __init__(self, *, status: StatusReader, rules: ApiRules) -> None:
        self._status = status
        self._deadline_s = rules.request_deadline_s

    async def read_all(self) -> ASGIApp:
        async with deadline(self._deadline_s):
            states = await self._status.queues()
        return json_response(QueuePage([Queue.of(state) for state in states]))
