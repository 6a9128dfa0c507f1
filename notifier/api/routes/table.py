"""What the API offers, as data: the OpenAPI document and the reference page are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from notifier.api.http.problems import Kind
from notifier.api.routes.health import LIVE, METRICS, READY
from notifier.api.routes.pauses import PATHS
from notifier.api.routes.reading import (
    FAILURE_FILTERS,
    FAILURES,
    NOTIFICATION_FILTERS,
    ONE,
    PAUSES,
    PROVIDERS,
    QUEUES,
)
from notifier.api.routes.submit import BATCH, NOTIFICATIONS
from notifier.domain.controls import ScopeKind

PAGING: Final = ("cursor", "limit")
_BODY_PROBLEMS: Final = (
    Kind.INVALID,
    Kind.TOO_SLOW,
    Kind.TOO_LARGE,
    Kind.WRONG_TYPE,
    Kind.STORE_AWAY,
)
_READ_PROBLEMS: Final = (Kind.INVALID, Kind.STORE_AWAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path. `answer` and `takes` name a schema; None is plain text or nothing.

    `is_body_optional` says that what it takes may be left out.
    """

    id: str
    method: str
    path: str
    summary: str
    status: int = 200
    takes: str | None = None
    is_body_optional: bool = False
    answer: str | None = None
    is_list: bool = False
    parameters: tuple[str, ...] = ()
    problems: tuple[Kind, ...] = ()

    @property
    def shown_path(self) -> str:
        """The path as OpenAPI writes it."""
        return self.path.replace(":str}", "}")


def _pausing(kind: ScopeKind) -> tuple[Route, Route]:
    """Both operations on one kind of what can be paused."""
    return (
        Route(
            id=f"pause{kind.capitalize()}",
            method="post",
            path=f"{PATHS[kind]}/pause",
            summary=f"Send nothing of this {kind}, on every worker within a second. Rows wait.",
            takes="PauseRequest",
            is_body_optional=True,
            answer="PauseState",
            parameters=(kind,),
            problems=(*_BODY_PROBLEMS, Kind.NOT_FOUND),
        ),
        Route(
            id=f"resume{kind.capitalize()}",
            method="post",
            path=f"{PATHS[kind]}/resume",
            summary=f"Send of this {kind} again. Other pauses that cover it stay.",
            answer="Resumed",
            parameters=(kind,),
            problems=(Kind.NOT_FOUND, Kind.STORE_AWAY),
        ),
    )


ROUTES: Final = (
    Route(
        id="submit",
        method="post",
        path=NOTIFICATIONS,
        summary="Submit one notification. The answer means that it is committed.",
        status=202,
        takes="Submit",
        answer="Accepted",
        problems=_BODY_PROBLEMS,
    ),
    Route(
        id="submitBatch",
        method="post",
        path=BATCH,
        summary=(
            "Submit many. A result per item, in order: a bad one harms no other. "
            "What cannot be parsed as a whole (cut, no JSON, nested without end) is refused whole."
        ),
        status=202,
        takes="Batch",
        answer="BatchResponse",
        problems=_BODY_PROBLEMS,
    ),
    Route(
        id="getNotification",
        method="get",
        path=ONE,
        summary="One notification, with every attempt.",
        answer="Notification",
        parameters=("id",),
        problems=(Kind.NOT_FOUND, Kind.STORE_AWAY),
    ),
    Route(
        id="listNotifications",
        method="get",
        path=NOTIFICATIONS,
        summary="Notifications, newest first.",
        answer="NotificationPage",
        parameters=(*NOTIFICATION_FILTERS, *PAGING),
        problems=_READ_PROBLEMS,
    ),
    Route(
        id="listFailures",
        method="get",
        path=FAILURES,
        summary="The log of failures, newest first.",
        answer="FailurePage",
        parameters=(*FAILURE_FILTERS, *PAGING),
        problems=_READ_PROBLEMS,
    ),
    Route(
        id="listQueues",
        method="get",
        path=QUEUES,
        summary="Every queue: what waits, who works there, and what limits it.",
        answer="Queue",
        is_list=True,
        problems=(Kind.STORE_AWAY,),
    ),
    Route(
        id="listProviders",
        method="get",
        path=PROVIDERS,
        summary="Every provider: its breaker, and its calls and failures of the last 10 s.",
        answer="ProviderHealth",
        is_list=True,
        problems=(Kind.STORE_AWAY,),
    ),
    Route(
        id="listPauses",
        method="get",
        path=PAUSES,
        summary="What is paused, why and for how long.",
        answer="PauseState",
        is_list=True,
        problems=(Kind.STORE_AWAY,),
    ),
    *(operation for kind in ScopeKind for operation in _pausing(kind)),
    Route(
        id="live",
        method="get",
        path=LIVE,
        summary="Whether the process lives.",
        answer="Health",
    ),
    Route(
        id="ready",
        method="get",
        path=READY,
        summary="Whether it can do its work; if not, `reasons` say why not.",
        answer="Health",
        problems=(Kind.NOT_READY,),
    ),
    Route(id="metrics", method="get", path=METRICS, summary="Metrics for Prometheus."),
)
