"""Every route of the API: its path, its handler and its description.

The app registers the handlers from this table, and the OpenAPI document and the reference page are
generated from it.
"""

from __future__ import annotations

from typing import Final

from notifier.api.docs.reference import OPENAPI_PATH, REFERENCE_PATH, ReferenceRoutes
from notifier.api.http.problems import ProblemType
from notifier.api.http.query import PAGING_PARAMETERS
from notifier.api.requests import Batch, PauseRequest, Submit
from notifier.api.responses import (
    Accepted,
    BatchResponse,
    FailurePage,
    Health,
    Notification,
    NotificationPage,
    PauseState,
    ProviderHealth,
    Queue,
    Resumed,
)
from notifier.api.routes.failures import FAILURE_FILTERS, FailureRoutes
from notifier.api.routes.health import HealthRoutes
from notifier.api.routes.notifications import (
    NOTIFICATION_FILTERS,
    NOTIFICATIONS,
    NotificationRoutes,
)
from notifier.api.routes.pauses import PauseRoutes
from notifier.api.routes.providers import ProviderRoutes
from notifier.api.routes.queues import QueueRoutes
from notifier.api.routes.route import Route
from notifier.domain.controls import ScopeKind

_BODY_PROBLEMS: Final = (
    ProblemType.INVALID_FIELD,
    ProblemType.BODY_TIMEOUT,
    ProblemType.BODY_TOO_LARGE,
    ProblemType.UNSUPPORTED_MEDIA_TYPE,
    ProblemType.STORE_UNAVAILABLE,
)
_PLAIN_PROBLEMS: Final = (ProblemType.INVALID_FIELD, ProblemType.STORE_UNAVAILABLE)


def _pause_and_resume(kind: ScopeKind) -> tuple[Route, Route]:
    path = f"/v1/{kind}s/{{{kind}:str}}"
    return (
        Route(
            id=f"pause{kind.capitalize()}",
            method="post",
            path=f"{path}/pause",
            handler=PauseRoutes.pause,
            summary=f"Pause a {kind} on every worker within a second. Its notifications wait.",
            body=PauseRequest,
            is_body_optional=True,
            response=PauseState,
            parameters=(kind,),
            problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND),
        ),
        Route(
            id=f"resume{kind.capitalize()}",
            method="post",
            path=f"{path}/resume",
            handler=PauseRoutes.resume,
            summary=f"Resume a {kind}. Other pauses that cover it stay.",
            response=Resumed,
            parameters=(kind,),
            problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND),
        ),
    )


ROUTES: Final = (
    Route(
        id="submit",
        method="post",
        path=NOTIFICATIONS,
        handler=NotificationRoutes.submit,
        summary="Submit one notification. A 202 means that it is committed to the database.",
        status=202,
        body=Submit,
        response=Accepted,
        problems=_BODY_PROBLEMS,
    ),
    Route(
        id="submitBatch",
        method="post",
        path=f"{NOTIFICATIONS}/batch",
        handler=NotificationRoutes.submit_batch,
        summary=(
            "Submit many notifications. The response has one result per item, in order; an invalid "
            "item affects no other. A body that cannot be parsed (cut off, not JSON, nested too "
            "deeply) is refused as a whole."
        ),
        status=202,
        body=Batch,
        response=BatchResponse,
        problems=_BODY_PROBLEMS,
    ),
    Route(
        id="getNotification",
        method="get",
        path=f"{NOTIFICATIONS}/{{id:str}}",
        handler=NotificationRoutes.read,
        summary="One notification, with all its attempts.",
        response=Notification,
        parameters=("id",),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="listNotifications",
        method="get",
        path=NOTIFICATIONS,
        handler=NotificationRoutes.read_page,
        summary="Notifications, newest first.",
        response=NotificationPage,
        parameters=(*NOTIFICATION_FILTERS, *PAGING_PARAMETERS),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listFailures",
        method="get",
        path="/v1/failures",
        handler=FailureRoutes.read_page,
        summary="The failure log, newest first.",
        response=FailurePage,
        parameters=(*FAILURE_FILTERS, *PAGING_PARAMETERS),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listQueues",
        method="get",
        path="/v1/queues",
        handler=QueueRoutes.read_all,
        summary="Every queue: how much waits, how many consumers it has, and what limits it.",
        response=Queue,
        is_list=True,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listProviders",
        method="get",
        path="/v1/providers",
        handler=ProviderRoutes.read_all,
        summary="Every provider: its breaker, and its calls and failures of the last 10 s.",
        response=ProviderHealth,
        is_list=True,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listPauses",
        method="get",
        path="/v1/pauses",
        handler=PauseRoutes.read_all,
        summary="Every active pause, with its reason and its remaining time.",
        response=PauseState,
        is_list=True,
        problems=_PLAIN_PROBLEMS,
    ),
    *(route for kind in ScopeKind for route in _pause_and_resume(kind)),
    Route(
        id="live",
        method="get",
        path="/health/live",
        handler=HealthRoutes.live,
        summary="Answers 200 while the process runs.",
        response=Health,
    ),
    Route(
        id="ready",
        method="get",
        path="/health/ready",
        handler=HealthRoutes.ready,
        summary="Answers 200 if the process can do its work; else `reasons` lists why not.",
        response=Health,
        problems=(ProblemType.NOT_READY,),
    ),
    Route(
        id="metrics",
        method="get",
        path="/metrics",
        handler=HealthRoutes.metrics,
        summary="Metrics for Prometheus.",
    ),
    Route(
        id="root",
        method="get",
        path="/",
        handler=ReferenceRoutes.redirect,
        summary="Redirects to the reference page.",
        is_documented=False,
    ),
    Route(
        id="reference",
        method="get",
        path=REFERENCE_PATH,
        handler=ReferenceRoutes.page,
        summary="This reference as HTML.",
        is_documented=False,
    ),
    Route(
        id="openapi",
        method="get",
        path=OPENAPI_PATH,
        handler=ReferenceRoutes.document,
        summary="This reference as an OpenAPI document.",
        is_documented=False,
    ),
)
