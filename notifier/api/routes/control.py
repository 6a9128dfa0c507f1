"""Cancels one notification, or has it sent again."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import author_of, principal_of, view_of
from notifier.api.http.body import small_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.notes import read_note
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.raw_response import json_response
from notifier.api.responses import Notification
from notifier.api.routes.notifications import parse_id
from notifier.api.rules import ApiRules
from notifier.domain.errors import NotFound
from notifier.domain.notification import NotificationView, Status
from notifier.ports.operations import NotificationControl, Retried
from notifier.ports.queries import Reader


class ControlRoutes:
    """Handlers of `/v1/notifications/{id}/cancel` and `/v1/notifications/{id}/retry`."""

    def __init__(self, *, reader: Reader, control: NotificationControl, rules: ApiRules) -> None:
        self._reader = reader
        self._control = control
        self._deadline_s = rules.request_deadline_s
        self._limit = small_body_limit(rules)

    async def cancel(self, request: Request[Any, Any, Any]) -> ASGIApp:
        note = await read_note(request, self._limit)
        async with deadline(self._deadline_s):
            before = await self._read(request)
            ended = await self._control.cancel(before, note, author_of(request.scope))
            after = await self._read(request)
        if ended is None and after.status is not Status.CANCELLED:
            raise _wrong_status(after, "Only what waits can be cancelled.")
        return json_response(Notification.of(after))

    async def retry(self, request: Request[Any, Any, Any]) -> ASGIApp:
        note = await read_note(request, self._limit)
        async with deadline(self._deadline_s):
            before = await self._read(request)
            retried = await self._control.retry(before, note, author_of(request.scope))
            after = await self._read(request)
        match retried:
            case Retried.DONE:
                return json_response(Notification.of(after))
            case Retried.SUPPRESSED:
                detail = "The recipient is suppressed on this channel: see /v1/suppressions."
                raise RequestRefused(ProblemType.RECIPIENT_SUPPRESSED.problem(detail))
            case Retried.CONTENT_GONE:
                detail = "Its content is not stored any more: submit it again."
                raise RequestRefused(ProblemType.CONTENT_GONE.problem(detail))
            case Retried.WRONG_STATUS:
                raise _wrong_status(after, _RETRY_DETAIL.get(after.status, _NOT_ENDED))

    async def _read(self, request: Request[Any, Any, Any]) -> NotificationView:
        """Returns the notification. Raises NotFound."""
        id_ = parse_id(request.path_params["id"])
        found = await self._reader.get(id_, view=view_of(principal_of(request.scope)))
        if found is None:
            raise NotFound
        return found


_NOT_ENDED: Final = "It has not ended: it waits, or it is being sent."
_RETRY_DETAIL: Final = {
    Status.SENT: "It was sent. To send it once more, submit it again.",
    Status.DELIVERED: "It was delivered. To send it once more, submit it again.",
}


def _wrong_status(view: NotificationView, detail: str) -> RequestRefused:
    problem = ProblemType.WRONG_STATUS.problem(f"{detail} Its status is {view.status}.")
    return RequestRefused(msgspec.structs.replace(problem, current_status=view.status))
