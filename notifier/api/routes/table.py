"""Every route of the API: its path, its handler and its description.

The app registers the handlers from this table, and the OpenAPI document and the reference page are
generated from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from notifier.api.auth.access import (
    ANY_KEY,
    METRICS,
    PROVIDER,
    PUBLIC,
    deployment,
    live,
    or_user,
    tenant,
)
from notifier.api.auth.documents import (
    AuditPage,
    CreatedKey,
    KeyPage,
    KeyRequest,
    Session,
    SessionRequest,
    Tenant,
    TenantPage,
    TenantRequest,
)
from notifier.api.docs.problem_page import PROBLEMS_PATH
from notifier.api.docs.reference import OPENAPI_PATH, REFERENCE_PATH, ReferenceRoutes
from notifier.api.events.documents import EventPage
from notifier.api.failures.documents import FailureGroupPage
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.query import AUDIT_FILTERS, PAGING_PARAMETERS
from notifier.api.inbox.documents import (
    InboxPage,
    InboxReadRequest,
    InboxToken,
    InboxTokenRequest,
    InboxUnread,
)
from notifier.api.requests import (
    Batch,
    NoteRequest,
    OperationRequest,
    PauseRequest,
    QuietHoursRequest,
    Submit,
)
from notifier.api.responses import (
    Accepted,
    BatchResponse,
    Blob,
    DeletedPause,
    DeletedQuietHours,
    Explanation,
    Health,
    Notification,
    NotificationPage,
    Operation,
    OperationPage,
    Pause,
    PausePage,
    Provider,
    ProviderPage,
    QueuePage,
    QuietHours,
    WorkerPage,
)
from notifier.api.routes.audit import AUDIT, AuditRoutes
from notifier.api.routes.blobs import BLOBS, BlobRoutes
from notifier.api.routes.control import ControlRoutes
from notifier.api.routes.events import (
    EVENT_PARAMETERS,
    EVENTS,
    LOG_PARAMETERS,
    LOGS,
    EventRoutes,
)
from notifier.api.routes.explanation import EXPLANATION, ExplanationRoutes
from notifier.api.routes.failure_groups import (
    FAILURE_GROUP_PARAMETERS,
    FAILURE_GROUPS,
    FailureGroupRoutes,
)
from notifier.api.routes.failures import FAILURES, FailureRoutes
from notifier.api.routes.health import HealthRoutes
from notifier.api.routes.inbox import INBOX_OF_USER, INBOX_PARAMETERS, InboxRoutes
from notifier.api.routes.keys import KEYS, KeyRoutes
from notifier.api.routes.notifications import (
    FAILURE_FILTERS,
    LOOKUP_FILTERS,
    NOTIFICATION_FILTERS,
    NOTIFICATIONS,
    NotificationRoutes,
)
from notifier.api.routes.operations import OPERATION_FILTERS, OPERATIONS, OperationRoutes
from notifier.api.routes.pauses import PAUSES, PauseRoutes
from notifier.api.routes.preview import PreviewRoutes
from notifier.api.routes.providers import PROVIDERS, ProviderRoutes
from notifier.api.routes.queues import QueueRoutes
from notifier.api.routes.quiet_hours import QUIET_HOURS, QuietHoursRoutes
from notifier.api.routes.receipts import RECEIPTS, ReceiptRoutes
from notifier.api.routes.route import Route
from notifier.api.routes.schedules import SCHEDULES, ScheduleRoutes
from notifier.api.routes.session import SESSION, SessionRoutes
from notifier.api.routes.stats import STATS, STATS_PARAMETERS, StatsRoutes
from notifier.api.routes.suppressions import (
    SUPPRESSION_PARAMETERS,
    SUPPRESSIONS,
    SuppressionRoutes,
)
from notifier.api.routes.templates import TEMPLATES, TemplateRoutes
from notifier.api.routes.tenants import TENANTS, TenantRoutes
from notifier.api.routes.unsubscribe import UNSUBSCRIBE, UnsubscribeRoutes
from notifier.api.routes.webhooks import WEBHOOKS, WebhookRoutes
from notifier.api.routes.workers import WorkerRoutes
from notifier.api.schedules.documents import Schedule, SchedulePage, ScheduleRequest
from notifier.api.stats.documents import StatsPage
from notifier.api.suppressions.documents import (
    ImportedSuppressions,
    Suppression,
    SuppressionPage,
    SuppressionRequest,
)
from notifier.api.templating.documents import (
    Preview,
    StoredParts,
    Template,
    TemplatePage,
    TemplateParts,
)
from notifier.api.webhooks.documents import (
    RotateRequest,
    Webhook,
    WebhookChangeRequest,
    WebhookPage,
    WebhookRequest,
    WebhookWithSecret,
)
from notifier.domain.keys import KeyScope

SUBMIT, READ, OPERATE, ADMIN = KeyScope
_BODY_PROBLEMS: Final = (
    ProblemType.INVALID_FIELD,
    ProblemType.BODY_TIMEOUT,
    ProblemType.BODY_TOO_LARGE,
    ProblemType.UNSUPPORTED_MEDIA_TYPE,
    ProblemType.STORE_UNAVAILABLE,
)
_RENDERING_PROBLEMS: Final = (*_BODY_PROBLEMS, ProblemType.OVERLOADED)
_SUBMIT_PROBLEMS: Final = (*_RENDERING_PROBLEMS, ProblemType.FEATURE_UNAVAILABLE)
_KEY_PROBLEMS: Final = (ProblemType.KEY_IN_FLIGHT, ProblemType.KEY_REUSED)
TENANT: Final = f"{TENANTS}/{{tenant:str}}"
PAUSE: Final = f"{PAUSES}/{{kind:str}}/{{name:path}}"
_SUBMIT_EXAMPLE: Final = {
    "channel": "email",
    "priority": "high",
    "recipient": "ada@example.com",
    "content": {"subject": "Your code", "body": "Your code is 123456."},
}
_TEMPLATE_EXAMPLE: Final = {
    "default_locale": "en",
    "locales": {
        "en": {
            "email": {
                "subject": "Order {{ order.id }} is on its way",
                "body": "Hello {{ name }}, your order left us today.",
                "html": "<p>Hello {{ name }}, your order left us today.</p>",
            }
        }
    },
}
TEMPLATE: Final = f"{TEMPLATES}/{{template:str}}"
SCHEDULE: Final = f"{SCHEDULES}/{{schedule:str}}"
_SCHEDULE_EXAMPLE: Final = {
    "cron": "30 9 * * MON-FRI",
    "time_zone": "Europe/Berlin",
    "notification": {
        "channel": "email",
        "recipient": "sales@example.com",
        "content": {"subject": "Stand-up", "body": "It begins in a quarter of an hour."},
    },
    "note": "the stand-up of sales",
}
WEBHOOK: Final = f"{WEBHOOKS}/{{webhook:str}}"
_PLAIN_PROBLEMS: Final = (ProblemType.INVALID_FIELD, ProblemType.STORE_UNAVAILABLE)


ROUTES: Final = (
    Route(
        id="submit",
        access=replace(tenant(SUBMIT), is_submit=True),
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
        problems=(*_SUBMIT_PROBLEMS, *_KEY_PROBLEMS),
    ),
    Route(
        id="submitBatch",
        access=replace(tenant(SUBMIT), charges=True),
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
        problems=(*_SUBMIT_PROBLEMS, ProblemType.KEY_IN_FLIGHT),
    ),
    Route(
        id="previewNotification",
        access=tenant(SUBMIT),
        tag="notifications",
        method="post",
        path=f"{NOTIFICATIONS}/preview",
        handler=PreviewRoutes.preview,
        is_repeatable=True,
        summary="What a submit would send, with its template rendered. Nothing is stored.",
        body=Submit,
        example=_SUBMIT_EXAMPLE,
        response=Preview,
        problems=_RENDERING_PROBLEMS,
    ),
    Route(
        id="getNotification",
        access=tenant(READ),
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
        id="explainNotification",
        access=tenant(READ),
        tag="notifications",
        method="get",
        path=EXPLANATION,
        handler=ExplanationRoutes.read,
        summary=(
            "Why a notification waits: everything that holds it, how many stand before it, and "
            "when it is expected to be sent. Notes, authors and figures of the deployment are for "
            "deployment keys."
        ),
        response=Explanation,
        parameters=("id",),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="listNotifications",
        access=tenant(READ),
        tag="notifications",
        method="get",
        path=NOTIFICATIONS,
        handler=NotificationRoutes.read_page,
        summary=(
            "Notifications, newest first. A parameter takes several values with commas between "
            "them; in `tag`, `recipient`, `reference` and `metadata` a comma of a value is written "
            "`\\,` and a backslash `\\\\`. `reason`, `provider` and `code` need final values of "
            "`status`. A page may be empty and have a cursor: the server reads a bounded number of "
            "notifications for it."
        ),
        response=NotificationPage,
        parameters=(*NOTIFICATION_FILTERS, *LOOKUP_FILTERS, *PAGING_PARAMETERS),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="cancelNotification",
        access=tenant(OPERATE, SUBMIT),
        tag="notifications",
        method="post",
        path=f"{NOTIFICATIONS}/{{id:str}}/cancel",
        handler=ControlRoutes.cancel,
        is_repeatable=True,
        summary=(
            "Cancel a notification that waits. Once this is answered it is not sent. One that is "
            "cancelled already is answered alike; what is being sent or has ended: 409."
        ),
        body=NoteRequest,
        is_body_optional=True,
        example={"note": "wrong price"},
        response=Notification,
        parameters=("id",),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND, ProblemType.WRONG_STATUS),
    ),
    Route(
        id="retryNotification",
        access=tenant(OPERATE),
        tag="notifications",
        method="post",
        path=f"{NOTIFICATIONS}/{{id:str}}/retry",
        handler=ControlRoutes.retry,
        summary=(
            "Send a notification again that failed, expired, was cancelled or suppressed: it waits "
            "again, with all its tries. What was sent is submitted anew."
        ),
        body=NoteRequest,
        is_body_optional=True,
        example={"note": "the relay was down"},
        response=Notification,
        parameters=("id",),
        problems=(
            *_BODY_PROBLEMS,
            ProblemType.NOT_FOUND,
            ProblemType.WRONG_STATUS,
            ProblemType.RECIPIENT_SUPPRESSED,
            ProblemType.CONTENT_GONE,
        ),
    ),
    Route(
        id="createOperation",
        access=tenant(OPERATE),
        tag="operations",
        method="post",
        path=OPERATIONS,
        handler=OperationRoutes.create,
        summary=(
            "Cancel many notifications, have them sent again, or erase a recipient (scope "
            "`admin`): an operation that any process carries out step by step. With `dry_run` it "
            "is answered with 200 and what it would find, and nothing is stored."
        ),
        status=202,
        other_status=200,
        body=OperationRequest,
        example={"kind": "cancel", "filter": {"tag": "summer-sale"}, "note": "wrong price"},
        response=Operation,
        takes_key=True,
        problems=(
            *_BODY_PROBLEMS,
            ProblemType.IN_USE,
            ProblemType.KEY_REUSED,
            ProblemType.FEATURE_UNAVAILABLE,
        ),
    ),
    Route(
        id="listOperations",
        access=tenant(READ),
        tag="operations",
        method="get",
        path=OPERATIONS,
        handler=OperationRoutes.read_page,
        summary="Operations, newest first.",
        response=OperationPage,
        parameters=(*OPERATION_FILTERS, *PAGING_PARAMETERS),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="getOperation",
        access=tenant(READ),
        tag="operations",
        method="get",
        path=f"{OPERATIONS}/{{operation:str}}",
        handler=OperationRoutes.read,
        summary="One operation, and how far it is.",
        response=Operation,
        parameters=("operation",),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="stopOperation",
        access=tenant(OPERATE),
        tag="operations",
        method="post",
        path=f"{OPERATIONS}/{{operation:str}}/stop",
        handler=OperationRoutes.stop,
        is_repeatable=True,
        summary=(
            "Stop an operation that runs: once this is answered it changes nothing more. One that "
            "has ended stays as it is."
        ),
        body=NoteRequest,
        is_body_optional=True,
        example={"note": "wrong tag"},
        response=Operation,
        parameters=("operation",),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="listFailures",
        access=tenant(READ),
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
        id="uploadBlob",
        access=tenant(SUBMIT),
        tag="notifications",
        method="post",
        path=BLOBS,
        handler=BlobRoutes.upload,
        is_repeatable=True,
        summary=(
            "Upload a file for attachments, or, with Content-Type message/rfc822, a whole mail for "
            "content.mime. It is stored once; a repeat answers 200 with the same id."
        ),
        status=201,
        other_status=200,
        is_file=True,
        response=Blob,
        parameters=("tenant",),
        problems=(
            ProblemType.INVALID_FIELD,
            ProblemType.BODY_TIMEOUT,
            ProblemType.BODY_TOO_LARGE,
            ProblemType.UNSUPPORTED_MEDIA_TYPE,
            ProblemType.OVERLOADED,
        ),
    ),
    Route(
        id="listTemplates",
        access=tenant(READ),
        tag="templates",
        method="get",
        path=TEMPLATES,
        handler=TemplateRoutes.read_all,
        summary="The newest version of every template, by name.",
        response=TemplatePage,
        parameters=("tenant", *PAGING_PARAMETERS),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="getTemplate",
        access=tenant(READ),
        tag="templates",
        method="get",
        path=TEMPLATE,
        handler=TemplateRoutes.read,
        summary="The newest version of a template, and the numbers of all.",
        response=Template,
        parameters=("template", "tenant"),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="saveTemplate",
        access=live(tenant(OPERATE)),
        tag="templates",
        method="post",
        path=f"{TEMPLATE}/versions",
        handler=TemplateRoutes.save,
        summary=(
            "Save the next version of a template. Versions never change: notifications that name "
            "an earlier one are rendered as before. What the newest version already has is "
            "answered with 200 and no new version."
        ),
        status=201,
        other_status=200,
        body=TemplateParts,
        example=_TEMPLATE_EXAMPLE,
        response=Template,
        parameters=("template",),
        problems=_RENDERING_PROBLEMS,
    ),
    Route(
        id="getTemplateVersion",
        access=tenant(READ),
        tag="templates",
        method="get",
        path=f"{TEMPLATE}/versions/{{version:str}}",
        handler=TemplateRoutes.read_version,
        summary="One version of a template, as it was saved.",
        response=StoredParts,
        parameters=("template", "version", "tenant"),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="listEvents",
        access=tenant(READ),
        tag="events",
        method="get",
        path=EVENTS,
        handler=EventRoutes.read_page,
        summary=(
            "What happened, in the order in which it was committed; without a cursor from the "
            "oldest event that is kept. `Accept: text/plain` gets lines, `text/event-stream` a "
            "stream that begins now, or resumes at the header Last-Event-ID."
        ),
        response=EventPage,
        parameters=EVENT_PARAMETERS,
        problems=(
            *_PLAIN_PROBLEMS,
            ProblemType.NOT_FOUND,
            ProblemType.CURSOR_GONE,
            ProblemType.OVERLOADED,
        ),
    ),
    Route(
        id="readLogs",
        access=tenant(READ),
        tag="events",
        method="get",
        path=LOGS,
        handler=EventRoutes.read_logs,
        summary="The last events as lines, oldest first.",
        parameters=LOG_PARAMETERS,
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="getStats",
        access=tenant(READ),
        tag="stats",
        method="get",
        path=STATS,
        handler=StatsRoutes.read_page,
        summary=(
            "What was accepted, sent and ended in each minute, hour or day (of UTC), the oldest "
            "first, and how long calls of providers waited and took. It is some seconds behind."
        ),
        response=StatsPage,
        parameters=STATS_PARAMETERS,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listFailureGroups",
        access=tenant(READ),
        tag="stats",
        method="get",
        path=FAILURE_GROUPS,
        handler=FailureGroupRoutes.read_page,
        summary=(
            "Which kinds of failures there were in the last 24 hours: by reason, provider and "
            "code, those with the most failures first. What has been sent again is not counted."
        ),
        response=FailureGroupPage,
        parameters=FAILURE_GROUP_PARAMETERS,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listSchedules",
        access=tenant(READ),
        tag="schedules",
        method="get",
        path=SCHEDULES,
        handler=ScheduleRoutes.read_all,
        summary="All schedules, the oldest first, without their notifications.",
        response=SchedulePage,
        parameters=("tenant", *PAGING_PARAMETERS),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="getSchedule",
        access=tenant(READ),
        tag="schedules",
        method="get",
        path=SCHEDULE,
        handler=ScheduleRoutes.read,
        summary="One schedule.",
        response=Schedule,
        parameters=("schedule", "tenant", "include"),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="createSchedule",
        access=tenant(OPERATE),
        tag="schedules",
        method="post",
        path=SCHEDULES,
        handler=ScheduleRoutes.create,
        is_repeatable=True,
        summary=(
            "Submit a notification at each instant of a cron expression, each exactly once. 200 if "
            "there is a schedule already that submits the same at the same instants."
        ),
        status=201,
        other_status=200,
        body=ScheduleRequest,
        example=_SCHEDULE_EXAMPLE,
        response=Schedule,
        parameters=("tenant",),
        problems=(*_RENDERING_PROBLEMS, ProblemType.IN_USE),
    ),
    Route(
        id="replaceSchedule",
        access=tenant(OPERATE),
        tag="schedules",
        method="put",
        path=SCHEDULE,
        handler=ScheduleRoutes.replace,
        summary=(
            "Replace a schedule, pause it or resume it. An instant that has come stays, unless "
            "cron, time_zone or paused change: then the next one counts from now. A notification "
            "that does not change is not checked again."
        ),
        body=ScheduleRequest,
        example={**_SCHEDULE_EXAMPLE, "paused": True},
        response=Schedule,
        parameters=("schedule", "tenant"),
        problems=(*_RENDERING_PROBLEMS, ProblemType.NOT_FOUND, ProblemType.IN_USE),
    ),
    Route(
        id="deleteSchedule",
        access=tenant(OPERATE),
        tag="schedules",
        method="delete",
        path=SCHEDULE,
        handler=ScheduleRoutes.delete,
        summary="Delete a schedule. What it has submitted stays.",
        status=204,
        parameters=("schedule", "tenant"),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="listWebhooks",
        access=tenant(READ),
        tag="webhooks",
        method="get",
        path=WEBHOOKS,
        handler=WebhookRoutes.read_all,
        summary="All webhooks, the oldest first: those of the deployment if none is named.",
        response=WebhookPage,
        parameters=("tenant", *PAGING_PARAMETERS),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="createWebhook",
        access=tenant(OPERATE),
        tag="webhooks",
        method="post",
        path=WEBHOOKS,
        handler=WebhookRoutes.create,
        summary=(
            "Have a URL called with events that happen from now on. The answer has the secret that "
            "verifies the signatures, this once."
        ),
        status=201,
        body=WebhookRequest,
        example={"url": "https://shop.example.com/hooks", "events": ["notification.*"]},
        response=WebhookWithSecret,
        parameters=("tenant",),
        problems=(
            *_BODY_PROBLEMS,
            ProblemType.NOT_FOUND,
            ProblemType.IN_USE,
            ProblemType.FEATURE_UNAVAILABLE,
        ),
    ),
    Route(
        id="getWebhook",
        access=tenant(READ),
        tag="webhooks",
        method="get",
        path=WEBHOOK,
        handler=WebhookRoutes.read,
        summary="One webhook, without its secret.",
        response=Webhook,
        parameters=("webhook", "tenant"),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="changeWebhook",
        access=tenant(OPERATE),
        tag="webhooks",
        method="patch",
        path=WEBHOOK,
        handler=WebhookRoutes.change,
        summary=(
            "Change a webhook, disable it or enable it again. Another URL counts for calls that "
            "wait, too. Events of the time in which it is disabled are not sent later."
        ),
        body=WebhookChangeRequest,
        example={"status": "enabled"},
        response=Webhook,
        parameters=("webhook", "tenant"),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="deleteWebhook",
        access=tenant(OPERATE),
        tag="webhooks",
        method="delete",
        path=WEBHOOK,
        handler=WebhookRoutes.delete,
        summary="Delete a webhook. Its calls that wait fail.",
        status=204,
        parameters=("webhook", "tenant"),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="rotateWebhook",
        access=tenant(OPERATE),
        tag="webhooks",
        method="post",
        path=f"{WEBHOOK}/rotate",
        handler=WebhookRoutes.rotate,
        summary="Replace the secret of a webhook. For a while both sign each call.",
        body=RotateRequest,
        is_body_optional=True,
        example={"overlap_s": 86_400},
        response=WebhookWithSecret,
        parameters=("webhook", "tenant"),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="testWebhook",
        access=tenant(OPERATE),
        tag="webhooks",
        method="post",
        path=f"{WEBHOOK}/test",
        handler=WebhookRoutes.test,
        summary="Call a webhook with an event of the type webhook.test.",
        status=202,
        response=Accepted,
        parameters=("webhook", "tenant"),
        problems=(
            *_PLAIN_PROBLEMS,
            ProblemType.NOT_FOUND,
            ProblemType.OVERLOADED,
            ProblemType.FEATURE_UNAVAILABLE,
        ),
    ),
    Route(
        id="listQueues",
        access=deployment(READ),
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
        access=deployment(READ),
        tag="deployment",
        method="get",
        path=PROVIDERS,
        handler=ProviderRoutes.read_all,
        summary="Every provider: its breaker, and its calls and failures of the last 10 s.",
        response=ProviderPage,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="probeProvider",
        access=live(deployment(OPERATE)),
        tag="deployment",
        method="post",
        path=f"{PROVIDERS}/{{provider:str}}/probe",
        handler=ProviderRoutes.probe,
        is_repeatable=True,
        summary=(
            "Probe a provider whose breaker is open at once: the next notification that waits for "
            "it is sent. Without an open breaker it changes nothing."
        ),
        body=NoteRequest,
        is_body_optional=True,
        example={"note": "the password is right now"},
        response=Provider,
        parameters=("provider",),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="listWorkers",
        access=deployment(READ),
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
        access=deployment(READ),
        tag="pauses",
        method="get",
        path=PAUSES,
        handler=PauseRoutes.read_all,
        summary="Every active pause, with its note and its end.",
        response=PausePage,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="putPause",
        access=live(deployment(OPERATE)),
        tag="pauses",
        method="put",
        path=PAUSE,
        handler=PauseRoutes.put,
        summary=(
            "Pause a queue, a channel, a provider, a tenant or a tag on every worker within a "
            "second. Its notifications wait. An existing pause gets the new note and end."
        ),
        body=PauseRequest,
        is_body_optional=True,
        example={"for_s": 600, "note": "maintenance"},
        response=Pause,
        parameters=("kind", "name"),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND, ProblemType.FEATURE_UNAVAILABLE),
    ),
    Route(
        id="deletePause",
        access=live(deployment(OPERATE)),
        tag="pauses",
        method="delete",
        path=PAUSE,
        handler=PauseRoutes.delete,
        summary="Resume a queue, a channel, a provider, a tenant or a tag. Other pauses stay.",
        response=DeletedPause,
        parameters=("kind", "name"),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="listKeys",
        access=tenant(ADMIN),
        tag="access",
        method="get",
        path=KEYS,
        handler=KeyRoutes.read_all,
        summary="All keys of the tenant, or of the deployment, without their secrets.",
        response=KeyPage,
        parameters=PAGING_PARAMETERS,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="createKey",
        access=tenant(ADMIN),
        tag="access",
        method="post",
        path=KEYS,
        handler=KeyRoutes.create,
        summary="Make a key. The answer has its secret, this once.",
        status=201,
        body=KeyRequest,
        example={"scopes": ["submit", "read"], "note": "web shop"},
        response=CreatedKey,
        problems=(*_BODY_PROBLEMS, ProblemType.IN_USE),
    ),
    Route(
        id="revokeKey",
        access=tenant(ADMIN),
        tag="access",
        method="delete",
        path=f"{KEYS}/{{key:str}}",
        handler=KeyRoutes.revoke,
        summary="Revoke a key. Within 5 s every process refuses it.",
        status=204,
        parameters=("key",),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="listTenants",
        access=deployment(ADMIN),
        tag="access",
        method="get",
        path=TENANTS,
        handler=TenantRoutes.read_all,
        summary="All tenants.",
        response=TenantPage,
        parameters=PAGING_PARAMETERS,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="getTenant",
        access=deployment(ADMIN),
        tag="access",
        method="get",
        path=TENANT,
        handler=TenantRoutes.read,
        summary="One tenant.",
        response=Tenant,
        parameters=("tenant",),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="putTenant",
        access=live(deployment(ADMIN)),
        tag="access",
        method="put",
        path=TENANT,
        handler=TenantRoutes.put,
        summary="Make a tenant, or change its settings.",
        body=TenantRequest,
        is_body_optional=True,
        example={
            "note": "the web shop",
            "senders": ["Shop <no-reply@shop.example>"],
            "locale": "de",
            "topics": {"news": "Our newsletter"},
        },
        response=Tenant,
        parameters=("tenant",),
        problems=(*_BODY_PROBLEMS, ProblemType.NAME_TAKEN),
    ),
    Route(
        id="deleteTenant",
        access=live(deployment(ADMIN)),
        tag="access",
        method="delete",
        path=TENANT,
        handler=TenantRoutes.delete,
        summary="Delete a tenant that has no keys, no schedules, and no notifications that wait.",
        status=204,
        parameters=("tenant",),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND, ProblemType.IN_USE),
    ),
    Route(
        id="getQuietHours",
        access=deployment(READ),
        tag="access",
        method="get",
        path=QUIET_HOURS,
        handler=QuietHoursRoutes.read,
        summary="The quiet hours of a tenant.",
        response=QuietHours,
        parameters=("tenant",),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="putQuietHours",
        access=live(deployment(OPERATE)),
        tag="access",
        method="put",
        path=QUIET_HOURS,
        handler=QuietHoursRoutes.put,
        summary=(
            "Set the quiet hours of a tenant: until they end, its notifications of the priorities "
            "medium and low wait. `default` is the tenant of notifications that name none."
        ),
        body=QuietHoursRequest,
        example={"start": "21:00", "end": "08:00", "time_zone": "Europe/Berlin"},
        response=QuietHours,
        parameters=("tenant",),
        problems=(*_BODY_PROBLEMS, ProblemType.NOT_FOUND, ProblemType.FEATURE_UNAVAILABLE),
    ),
    Route(
        id="deleteQuietHours",
        access=live(deployment(OPERATE)),
        tag="access",
        method="delete",
        path=QUIET_HOURS,
        handler=QuietHoursRoutes.delete,
        summary="Remove the quiet hours of a tenant. What they put off waits for their end.",
        response=DeletedQuietHours,
        parameters=("tenant",),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="listAudit",
        access=live(tenant(ADMIN)),
        tag="access",
        method="get",
        path=AUDIT,
        handler=AuditRoutes.read_page,
        summary="What people did, newest first.",
        response=AuditPage,
        parameters=(*AUDIT_FILTERS, *PAGING_PARAMETERS),
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="getSession",
        access=ANY_KEY,
        tag="access",
        method="get",
        path=SESSION,
        handler=SessionRoutes.read,
        summary="Who makes this request, and what they may do.",
        response=Session,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="createSession",
        access=PUBLIC,
        tag="access",
        method="post",
        path=SESSION,
        handler=SessionRoutes.create,
        is_repeatable=True,
        summary="Begin a session of a browser with a key: the answer sets a cookie.",
        status=201,
        body=SessionRequest,
        example={"key": "ntf_live_..."},
        response=Session,
        problems=(*_BODY_PROBLEMS, ProblemType.KEY_INVALID, ProblemType.ORIGIN_REFUSED),
    ),
    Route(
        id="deleteSession",
        access=PUBLIC,
        tag="access",
        method="delete",
        path=SESSION,
        handler=SessionRoutes.delete,
        summary=(
            "Remove the cookie from this browser. A copy of it stays valid until it expires or its "
            "key is revoked."
        ),
        status=204,
        problems=(ProblemType.INVALID_FIELD, ProblemType.ORIGIN_REFUSED),
    ),
    Route(
        id="listSuppressions",
        access=tenant(READ),
        tag="suppressions",
        method="get",
        path=SUPPRESSIONS,
        handler=SuppressionRoutes.read_page,
        summary="Recipients to whom nothing may be sent, newest first.",
        response=SuppressionPage,
        parameters=SUPPRESSION_PARAMETERS,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="createSuppression",
        access=tenant(OPERATE),
        tag="suppressions",
        method="post",
        path=SUPPRESSIONS,
        handler=SuppressionRoutes.create,
        is_repeatable=True,
        summary=(
            "Suppress a recipient on a channel: submits are stored as suppressed, and waiting "
            "notifications end so. 200 if it was suppressed already. As CSV, with the fields as "
            "columns and at most 10,000 rows, many at once; then `?tenant` names the tenant."
        ),
        status=201,
        body=SuppressionRequest,
        example={"channel": "email", "recipient": "ada@example.com", "reason": "complaint"},
        response=Suppression,
        csv_response=ImportedSuppressions,
        parameters=("tenant",),
        problems=_BODY_PROBLEMS,
    ),
    Route(
        id="deleteSuppression",
        access=tenant(OPERATE),
        tag="suppressions",
        method="delete",
        path=f"{SUPPRESSIONS}/{{suppression:str}}",
        handler=SuppressionRoutes.delete,
        summary="End a suppression. What it has ended stays ended.",
        status=204,
        parameters=("suppression", "tenant"),
        problems=(*_PLAIN_PROBLEMS, ProblemType.NOT_FOUND),
    ),
    Route(
        id="readUnsubscribe",
        access=PUBLIC,
        tag="suppressions",
        method="get",
        path=UNSUBSCRIBE,
        handler=UnsubscribeRoutes.read,
        summary="The page of the link in an email, with one button. It changes nothing.",
        parameters=("token",),
        takes_any_query=True,
        is_documented=False,
    ),
    Route(
        id="unsubscribe",
        access=PUBLIC,
        tag="suppressions",
        method="post",
        path=UNSUBSCRIBE,
        handler=UnsubscribeRoutes.create,
        is_repeatable=True,
        summary="Unsubscribe with one click (RFC 8058).",
        parameters=("token",),
        takes_any_query=True,
        is_documented=False,
    ),
    Route(
        id="receiveReceipts",
        access=PROVIDER,
        tag="deployment",
        method="post",
        path=f"{RECEIPTS}/{{provider:str}}",
        handler=ReceiptRoutes.receive,
        is_repeatable=True,
        summary="What a provider reports of messages that it accepted, in its own form, signed.",
        status=204,
        is_file=True,
        parameters=("provider",),
        takes_any_query=True,
        problems=(
            ProblemType.SIGNATURE_INVALID,
            ProblemType.NOT_FOUND,
            ProblemType.INVALID_FIELD,
            ProblemType.BODY_TIMEOUT,
            ProblemType.BODY_TOO_LARGE,
            ProblemType.UNSUPPORTED_MEDIA_TYPE,
            ProblemType.OVERLOADED,
            ProblemType.STORE_UNAVAILABLE,
        ),
    ),
    Route(
        id="listInbox",
        access=or_user(tenant(READ)),
        tag="inbox",
        method="get",
        path=INBOX_OF_USER,
        handler=InboxRoutes.read_page,
        summary="The inbox of a user, newest first, and how much of it is unread.",
        response=InboxPage,
        parameters=INBOX_PARAMETERS,
        problems=_PLAIN_PROBLEMS,
    ),
    Route(
        id="readInbox",
        access=or_user(tenant(SUBMIT)),
        tag="inbox",
        method="post",
        path=f"{INBOX_OF_USER}/read",
        handler=InboxRoutes.mark_read,
        is_repeatable=True,
        summary="Mark entries as read. An entry keeps the instant at which it was read first.",
        body=InboxReadRequest,
        example={"until_at": "2026-12-01T12:00:00Z"},
        response=InboxUnread,
        parameters=("user", "tenant"),
        problems=_BODY_PROBLEMS,
    ),
    Route(
        id="streamInbox",
        access=or_user(tenant(READ), in_query=True),
        tag="inbox",
        method="get",
        path=f"{INBOX_OF_USER}/events",
        handler=InboxRoutes.stream,
        summary=(
            "What happens in an inbox from now on, as server-sent events: `inbox.added` with "
            "`item` and `unread`, `inbox.read` with `ids` and `unread`. After a lost connection "
            "read the inbox once more."
        ),
        parameters=("user", "tenant", "token"),
        problems=(*_PLAIN_PROBLEMS, ProblemType.OVERLOADED),
    ),
    Route(
        id="createInboxToken",
        access=tenant(SUBMIT),
        tag="inbox",
        method="post",
        path=f"{INBOX_OF_USER}/token",
        handler=InboxRoutes.create_token,
        is_repeatable=True,
        summary="Make a token with which a page reads and marks the inbox of its user.",
        status=201,
        body=InboxTokenRequest,
        is_body_optional=True,
        example={"ttl_s": 3600},
        response=InboxToken,
        parameters=("user", "tenant"),
        problems=_BODY_PROBLEMS,
    ),
    Route(
        id="live",
        access=PUBLIC,
        tag="health",
        method="get",
        path="/health/live",
        handler=HealthRoutes.live,
        summary="Answers 200 while the process runs.",
        response=Health,
    ),
    Route(
        id="ready",
        access=PUBLIC,
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
        access=PUBLIC,
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
        access=METRICS,
        tag="health",
        method="get",
        path="/metrics",
        handler=HealthRoutes.metrics,
        summary="Metrics for Prometheus.",
    ),
    Route(
        id="root",
        access=PUBLIC,
        method="get",
        path="/",
        handler=ReferenceRoutes.redirect,
        summary="Redirects to the reference page.",
        is_documented=False,
    ),
    Route(
        id="reference",
        access=PUBLIC,
        method="get",
        path=REFERENCE_PATH,
        handler=ReferenceRoutes.page,
        summary="This reference as HTML.",
        is_documented=False,
    ),
    Route(
        id="problems",
        access=PUBLIC,
        method="get",
        path=PROBLEMS_PATH,
        handler=ReferenceRoutes.problems,
        summary="Every problem type as HTML.",
        is_documented=False,
    ),
    Route(
        id="openapi",
        access=PUBLIC,
        method="get",
        path=OPENAPI_PATH,
        handler=ReferenceRoutes.document,
        summary="This reference as an OpenAPI document.",
        is_documented=False,
    ),
)
