"""Every route of the API: its path, its handler and its description.

The app registers the handlers from this table, and the OpenAPI document and the reference page are
generated from it.
"""

from __future__ import annotations

from typing import Final

from notifier.api.docs.problem_page import PROBLEMS_PATH
from notifier.api.docs.reference import OPENAPI_PATH, REFERENCE_PATH, ReferenceRoutes
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.query import PAGING_PARAMETERS
from notifier.api.requests import Batch, PauseRequest, Submit
from notifier.api.responses import (
    Accepted,
    BatchResponse,
    DeletedPause,
    Health,
    Notification,
    NotificationPage,
    Pause,
    PausePage,
    ProviderPage,
    QueuePage,
    WorkerPage,
)
from notifier.api.routes.failures import FAILURES, FailureRoutes
from notifier.api.routes.health import HealthRoutes
from notifier.api.routes.notifications import (
    FAILURE_FILTERS,
    NOTIFICATION_FILTERS,
    NOTIFICATIONS,
    NotificationRoutes,
)
from notifier.api.routes.pauses import PauseRoutes
from notifier.api.routes.providers import ProviderRoutes
from notifier.api.routes.queues import QueueRoutes
from notifier.api.routes.route import Route
from notifier.api.routes.workers import WorkerRoutes

_BODY_PROBLEMS: Final = (
    ProblemType.INVALID_FIELD,
    ProblemType.BODY_TIMEOUT,
    ProblemType.BODY_TOO_LARGE,
    ProblemType.UNSUPPORTED_MEDIA_TYPE,
    ProblemType.STORE_UNAVAILABLE,
)
_KEY_PROBLEMS: Final = (ProblemType.KEY_IN_FLIGHT, ProblemType.KEY_REUSED)
PAUSE: Final = "/v1/pauses/{kind:str}/{name:str}"
_SUBMIT_EXAMPLE: Final = {
    "channel": "email",
    "priority": "high",
    "recipient": "ada@example.com",
    "content": {"subject": "Your code", "body": "Your code is 123456."},
}
_PLAIN_PROBLEMS: Final = (ProblemType.INVALID_FIELD, ProblemType.STORE_UNAVAILABLE)


ROUTES: Final = (
    Route(
        id="submit",
        tag="notifications",
        method="post",
        path=NOTIFICATIONS,
        handler=NotificationRoutes.submit,
        summary="Submit one notification. A 202 means that it is committed to the database.",
        status=202,
        body=Submit,
        example=_SUBMIT_EXAMPLE,
        response=Accepted,
        takes_key=True,
        problems=(*_BODY_PROBLEMS, ProblemType.FEATURE_UNAVAILABLE, *_KEY_PROBLEMS),
    ),
    Route(
        id="submitBatch",
        tag="notifications",
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
        example={"notifications": [_SUBMIT_EXAMPLE]},
        response=BatchResponse,
        takes_key=True,
        problems=(*_BODY_PROBLEMS, ProblemType.FEATURE_UNAVAILABLE, ProblemType.KEY_IN_FLIGHT),
    ),
    Route(
        id="getNotification",
        tag="notifications",
        method="get",
        path=f"{NOTIFICATIONS}/{{id:str}}",
        handler=NotificationRoutes.read,
        summary="One notification, with all its attempts.",
        response=Notification,
        parameters=("id", "include"),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="listNotifications",
        tag="notifications",
        method="get",
        path=NOTIFICATIONS,
        handler=NotificationRoutes.read_page,
        summary=(
            "Notifications, newest first. A parameter takes several values with commas between "
            "them; `reason`, `provider` and `code` need final values of `status`."
        ),
        response=NotificationPage,
        parameters=(*NOTIFICATION_FILTERS, *PAGING_PARAMETERS),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listFailures",
        tag="notifications",
        method="get",
        path=FAILURES,
        handler=FailureRoutes.read_page,
        summary="The same as `GET /v1/notifications?status=failed`.",
        is_deprecated=True,
        response=NotificationPage,
        parameters=(*FAILURE_FILTERS, *PAGING_PARAMETERS),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listQueues",
        tag="deployment",
        method="get",
        path="/v1/queues",
        handler=QueueRoutes.read_all,
        summary="Every queue: how much waits, how many consumers it has, and what limits it.",
        response=QueuePage,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listProviders",
        tag="deployment",
        method="get",
        path="/v1/providers",
        handler=ProviderRoutes.read_all,
        summary="Every provider: its breaker, and its calls and failures of the last 10 s.",
        response=ProviderPage,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listWorkers",
        tag="deployment",
        method="get",
        path="/v1/workers",
        handler=WorkerRoutes.read_all,
        summary="Every live process: its kind, host, version and consumers.",
        response=WorkerPage,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listPauses",
        tag="pauses",
        method="get",
        path="/v1/pauses",
        handler=PauseRoutes.read_all,
        summary="Every active pause, with its note and its end.",
        response=PausePage,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="putPause",
        tag="pauses",
        method="put",
        path=PAUSE,
        handler=PauseRoutes.put,
        summary=(
            "Pause a queue, a channel or a provider on every worker within a second. Its "
            "notifications wait. An existing pause gets the new note and end."
        ),
        body=PauseRequest,
        is_body_optional=True,
        example={"for_s": 600, "note": "maintenance"},
        response=Pause,
        parameters=("kind", "name"),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="deletePause",
        tag="pauses",
        method="delete",
        path=PAUSE,
        handler=PauseRoutes.delete,
        summary="Resume a queue, a channel or a provider. Other pauses that cover it stay.",
        response=DeletedPause,
        parameters=("kind", "name"),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="live",
        tag="health",
        method="get",
        path="/health/live",
        handler=HealthRoutes.live,
        summary="Answers 200 while the process runs.",
        response=Health,
    ),
    Route(
        id="ready",
        tag="health",
        method="get",
        path="/health/ready",
        handler=HealthRoutes.ready,
        summary="Answers 200 if the process can do its work; else `reasons` lists why not.",
        response=Health,
        problems=(ProblemType.NOT_READY,),
    ),
    Route(
        id="health",
        tag="health",
        method="get",
        path="/health",
        handler=HealthRoutes.ready,
        summary="The same as `/health/ready`.",
        response=Health,
        problems=(ProblemType.NOT_READY,),
    ),
    Route(
        id="metrics",
        tag="health",
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
        id="problems",
        method="get",
        path=PROBLEMS_PATH,
        handler=ReferenceRoutes.problems,
        summary="Every problem type as HTML.",
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
