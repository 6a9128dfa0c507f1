"""GET: notifications, the log of failures; queues, providers and what is paused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar
from uuid import UUID

from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from notifier.api.http.deadline import deadline
from notifier.api.http.query import ListQuery, cursor_after
from notifier.api.http.raw_response import json_response, read_route
from notifier.api.responses import (
    Failure,
    FailurePage,
    Notification,
    NotificationPage,
    PauseState,
    ProviderHealth,
    Queue,
    Summary,
)
from notifier.api.routes.submit import NOTIFICATIONS
from notifier.api.settings import ApiSettings
from notifier.api.status_reader import Board
from notifier.domain.errors import NotFound
from notifier.domain.notification import FailureView, NotificationId, NotificationView
from notifier.ports.queries import Filter, Reader

ONE: Final = NOTIFICATIONS + "/{id:str}"
FAILURES: Final = "/v1/failures"
QUEUES: Final = "/v1/queues"
PROVIDERS: Final = "/v1/providers"
PAUSES: Final = "/v1/pauses"
NOTIFICATION_FILTERS: Final = ("status", "channel", "priority", "created_from", "created_to")
FAILURE_FILTERS: Final = ("channel", "priority", "reason", "created_from", "created_to")
_CANONICAL: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_View = TypeVar("_View", NotificationView, FailureView)


def read_handlers(
    *, reader: Reader, board: Board, settings: ApiSettings
) -> Sequence[HTTPRouteHandler]:
    """Make the handlers that tell what became of notifications."""
    within_s = settings.request_deadline_s
    notification_query = ListQuery(*NOTIFICATION_FILTERS, channels=settings.channels)
    failure_query = ListQuery(*FAILURE_FILTERS, channels=settings.channels)

    @read_route(ONE)
    async def read_one(request: Request[Any, Any, Any]) -> ASGIApp:
        wanted = _id(request.path_params["id"])
        async with deadline(within_s):
            view = await reader.get(wanted)
        if view is None:
            raise NotFound
        return json_response(Notification.of(view))

    @read_route(NOTIFICATIONS)
    async def read_list(request: Request[Any, Any, Any]) -> ASGIApp:
        selection = notification_query.read(request)
        async with deadline(within_s):
            views = await reader.notifications(_one_more(selection))
        shown, cursor = _page(views, selection.limit)
        return json_response(NotificationPage([Summary.of(one) for one in shown], cursor))

    @read_route(FAILURES)
    async def read_failures(request: Request[Any, Any, Any]) -> ASGIApp:
        selection = failure_query.read(request)
        async with deadline(within_s):
            views = await reader.failures(_one_more(selection))
        shown, cursor = _page(views, selection.limit)
        return json_response(FailurePage([Failure.of(one) for one in shown], cursor))

    @read_route(QUEUES)
    async def read_queues() -> ASGIApp:
        async with deadline(within_s):
            states = await board.queues()
        return json_response([Queue.of(one) for one in states])

    @read_route(PROVIDERS)
    async def read_providers() -> ASGIApp:
        async with deadline(within_s):
            states = await board.providers()
        return json_response([ProviderHealth.of(one) for one in states])

    @read_route(PAUSES)
    async def read_pauses() -> ASGIApp:
        async with deadline(within_s):
            pauses = await board.pauses()
        return json_response([PauseState.of(one) for one in pauses])

    return [read_one, read_list, read_failures, read_queues, read_providers, read_pauses]


def _id(text: str) -> NotificationId:
    if not _CANONICAL.fullmatch(text):
        raise NotFound
    return NotificationId(UUID(text))


def _one_more(selection: Filter) -> Filter:
    """Ask for one more than wanted: it tells whether there is a next page."""
    return replace(selection, limit=selection.limit + 1)


def _page(views: Sequence[_View], limit: int) -> tuple[Sequence[_View], str | None]:
    if len(views) <= limit:
        return views, None
    return views[:limit], cursor_after(views[limit - 1].id)
