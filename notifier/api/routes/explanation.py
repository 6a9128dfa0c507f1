"""`/v1/notifications/{id}/explain`: why a notification waits."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import principal_of, view_of
from notifier.api.http.deadline import deadline
from notifier.api.http.raw_response import json_response
from notifier.api.responses import Explanation
from notifier.api.routes.notifications import NOTIFICATIONS, parse_id
from notifier.api.rules import ApiRules
from notifier.domain.errors import NotFound
from notifier.ports.queries import Explainer

EXPLANATION: Final = f"{NOTIFICATIONS}/{{id:str}}/explain"


class ExplanationRoutes:
    """Handlers of `/v1/notifications/{id}/explain`."""

    def __init__(self, *, explainer: Explainer, rules: ApiRules) -> None:
        self._explainer = explainer
        self._deadline_s = rules.request_deadline_s

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        notification_id = parse_id(request.path_params["id"])
        view = view_of(principal_of(request.scope))
        async with deadline(self._deadline_s):
            explanation = await self._explainer.explain(notification_id, view)
        if explanation is None:
            raise NotFound
        return json_response(Explanation.of(explanation))
