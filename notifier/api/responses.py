"""Response bodies. The API encodes them, and the command line decodes them.

Nothing here imports the web framework, so a client can import this module cheaply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta
from typing_extensions import override

from notifier.api.requests import EncodedObject, Instant, JsonObject
from notifier.domain import operations, quiet_hours
from notifier.domain.allocation.entitlement import Limit
from notifier.domain.blobs import BLOB_ID_PATTERN, BlobId
from notifier.domain.controls import BreakerState, ScopeKind
from notifier.domain.credentials import Mode
from notifier.domain.explanation import facts
from notifier.domain.notification import (
    AttemptView,
    FallbackView,
    NotificationId,
    NotificationView,
    Priority,
    ReceiptView,
    ResultView,
    Status,
    Unless,
    WorkerId,
)
from notifier.domain.operations import OperationKind, OperationStatus
from notifier.domain.tenants import TenantId, tenant_name
from notifier.ports.queries import PauseState, ProviderState, QueueState, WorkerState


class Accepted(msgspec.Struct):
    """A notification that is committed to the database."""

    id: NotificationId
    status: Status
    queue: str
    segments: Annotated[
        int | msgspec.UnsetType,
        Meta(
            description=(
                "Of a text message: into how many its body is divided, 160 characters of the GSM "
                "alphabet or 70 others in one, 153 or 67 in each of several."
            )
        ),
    ] = msgspec.UNSET
    reason: Annotated[
        str | msgspec.UnsetType,
        Meta(description="Why it is suppressed; absent with any other status."),
    ] = msgspec.UNSET
    template: Annotated[
        str | msgspec.UnsetType,
        Meta(description="The version of the template that was taken, such as order-shipped@3."),
    ] = msgspec.UNSET


class Blob(msgspec.Struct):
    """A file that is stored once, for any number of notifications. `content_type` is as sent."""

    id: Annotated[BlobId, Meta(pattern=BLOB_ID_PATTERN)]
    size_bytes: int
    content_type: str


class FieldError(msgspec.Struct):
    """One wrong field of a request.

    `field` is a dotted path into the body, `$` for the whole body, `?limit` for a parameter, or the
    name of a header. `expected` describes a valid value, or is the name that was probably meant.
    """

    field: str
    expected: str
    detail: str


class Problem(msgspec.Struct, omit_defaults=True):
    """An RFC 9457 problem. `/docs/problems` describes each type. `instance` names the request."""

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: Sequence[FieldError] | None = None
    current_status: Status | None = None
    reasons: Sequence[str] | None = None
    results: Sequence[BatchRefusal] | None = None


class BatchRefusal(msgspec.Struct):
    """The problem of one batch item that was not stored."""

    problem: Problem


_RESULT_SCHEMAS: Final = [
    {"$ref": f"#/components/schemas/{name}"} for name in ("Accepted", "BatchRefusal")
]


class BatchResponse(msgspec.Struct):
    """One result per item, in the order of the items: Accepted or BatchRefusal."""

    results: Sequence[Annotated[object, Meta(extra_json_schema={"oneOf": _RESULT_SCHEMAS})]]


class Attempt(msgspec.Struct):
    """One attempt to send a notification. The numbers may have gaps.

    `code` is the provider's most specific code, and `reference` its id of the message.
    """

    number: int
    provider: str
    outcome: str
    code: str | None
    http_status: int | None
    detail: str | None
    reference: str | None
    queue_wait_s: float
    started_at: Instant
    finished_at: Instant
    next_at: Instant | None
    repeats: int
    late: bool

    @classmethod
    def of(cls, view: AttemptView) -> Attempt:
        """Builds the document of an attempt."""
        return cls(
            number=view.number,
            provider=view.provider,
            outcome=view.outcome,
            code=view.code or None,
            http_status=view.http_status,
            detail=view.detail or None,
            reference=view.reference or None,
            queue_wait_s=round(view.queue_wait_s, 3),
            started_at=view.started_at,
            finished_at=view.finished_at,
            next_at=view.next_at,
            repeats=view.repeats,
            late=view.late,
        )


class Receipt(msgspec.Struct):
    """What a provider reported after it had accepted the message.

    `event` is delivered, deferred, bounced, rejected, complained or unsubscribed; later versions
    may have more. `code` and `detail` are the provider's. `provider_at` is when it happened.
    """

    provider: str
    event: str
    code: str | None
    detail: str | None
    provider_at: Instant
    received_at: Instant

    @classmethod
    def of(cls, view: ReceiptView) -> Receipt:
        """Builds the document of a receipt."""
        return cls(
            provider=view.provider,
            event=view.event,
            code=view.code or None,
            detail=view.detail or None,
            provider_at=view.provider_at,
            received_at=view.received_at,
        )


class Result(msgspec.Struct):
    """How a notification ended, and when.

    `reason` is null if it was sent or delivered. Undelivered: bounced, rejected, unreachable or
    unknown; failed: refused, exhausted, ambiguous, poison or render;
    expired: ttl; cancelled: request or collapsed; suppressed: recipient_cap, manual, bounce,
    complaint, unsubscribe, gone or erased. Later versions may have more. `code` and `detail` are
    the provider's.
    """

    reason: str | None
    provider: str | None
    code: str | None
    detail: str | None
    at: Instant

    @classmethod
    def of(cls, view: ResultView) -> Result:
        """Builds the document of a result."""
        return cls(
            reason=view.reason or None,
            provider=view.provider or None,
            code=view.code or None,
            detail=view.detail or None,
            at=view.at,
        )


class FallbackState(msgspec.Struct, kw_only=True):
    """The fallback of a notification: `notification` is null if nothing was submitted."""

    after_s: float
    channel: str
    at: Annotated[
        Instant,
        Meta(description="When it is submitted, unless the notification is what `unless` says."),
    ]
    unless: Annotated[str, Meta(description="sent or delivered.")] = Unless.SENT
    notification: NotificationId | None

    @classmethod
    def of(cls, view: FallbackView) -> FallbackState:
        """Builds the document of a fallback."""
        return cls(
            after_s=view.after_s,
            channel=view.channel,
            at=view.at,
            unless=view.unless,
            notification=view.notification,
        )


class Summary(msgspec.Struct, kw_only=True):
    """A notification in a list: without content and attempts.

    `provider` is the one that had it last, `reference` that provider's id of the message. `result`
    is null until the status is final. `template` is the version that it is rendered from, `locale`
    the one whose texts were taken.
    """

    id: NotificationId
    tenant: str
    mode: Mode
    status: Status
    channel: str
    priority: Priority
    queue: str
    recipient: Annotated[str | None, Meta(description="Null once it was erased.")]
    replaced_by: Annotated[
        NotificationId | None,
        Meta(description="The newer notification with the same collapse key."),
    ]
    retried_by: Annotated[
        UUID | None, Meta(description="The operation that had it sent again after it had ended.")
    ] = None
    tag: str | None
    topic: str | None
    template: str | None = None
    locale: str | None = None
    metadata: JsonObject
    provider: str | None
    reference: str | None
    tries: int
    max_tries: int | None
    last_error: str | None
    result: Result | None
    created_at: Instant
    updated_at: Instant
    sent_at: Annotated[Instant | None, Meta(description="When the provider accepted it.")] = None
    delivered_at: Annotated[
        Instant | None, Meta(description="When it reached the recipient, as the provider reports.")
    ] = None
    due_at: Instant | None
    expires_at: Instant
    fallback: FallbackState | None = None
    fallback_of: Annotated[
        NotificationId | None, Meta(description="The notification whose fallback this is.")
    ] = None

    @classmethod
    def of(cls, view: NotificationView) -> Summary:
        """Builds the list entry of a notification."""
        return cls(
            id=view.id,
            tenant=tenant_name(view.tenant),
            mode=Mode.TEST if view.test_channel else Mode.LIVE,
            status=view.status,
            channel=view.test_channel or view.queue.channel,
            priority=view.queue.priority,
            queue=str(view.queue),
            recipient=view.recipient or None,
            replaced_by=view.replaced_by,
            retried_by=view.retried_by,
            tag=view.tag,
            topic=view.topic,
            template=view.template,
            locale=view.locale,
            metadata=msgspec.Raw(view.metadata),
            provider=view.provider or None,
            reference=view.reference or None,
            tries=view.tries,
            max_tries=view.max_tries,
            last_error=view.last_error,
            result=None if view.result is None else Result.of(view.result),
            created_at=view.created_at,
            updated_at=view.updated_at,
            sent_at=view.sent_at,
            delivered_at=(
                view.result.at if view.result and view.status is Status.DELIVERED else None
            ),
            due_at=view.due_at,
            expires_at=view.expires_at,
            fallback=None if view.fallback is None else FallbackState.of(view.fallback),
            fallback_of=view.fallback_of,
        )


class Notification(Summary, kw_only=True):
    """A notification with its attempts, and with what `include` asks for."""

    attempts: Sequence[Attempt]
    content: Annotated[
        EncodedObject | msgspec.UnsetType,
        Meta(
            description=(
                "As submitted, with recipient_name (of an email) and time_zone. With a template: "
                "its version and the variables. Null once it was removed."
            )
        ),
    ] = msgspec.UNSET
    receipts: Annotated[
        Sequence[Receipt] | msgspec.UnsetType,
        Meta(description="With include=receipts: the oldest first, by the provider's time."),
    ] = msgspec.UNSET

    @classmethod
    @override
    def of(cls, view: NotificationView) -> Notification:
        """Builds the whole document of a notification."""
        return cls(
            **msgspec.structs.asdict(Summary.of(view)),
            attempts=[Attempt.of(attempt) for attempt in view.attempts],
            content=_content(view),
            receipts=(
                msgspec.UNSET
                if view.receipts is None
                else [Receipt.of(each) for each in view.receipts]
            ),
        )


def _content(view: NotificationView) -> msgspec.Raw | msgspec.UnsetType:
    if view.content is None:
        return msgspec.UNSET
    return msgspec.Raw(view.content or b"null")


class NotificationPage(msgspec.Struct):
    """Notifications, newest first. `next_cursor` is null on the last page.

    Other pages may be shorter than the limit, even empty, if few notifications match.
    """

    items: Sequence[Summary]
    next_cursor: str | None


class Operation(msgspec.Struct, kw_only=True):
    """What a person does with many notifications, and how far it is.

    `id` is null for a dry run, which is not stored. `matched` is a minimum unless
    `matched_is_exact`. `done` were changed; `skipped` had another status when it came to them, or
    may not be sent again because the recipient is suppressed; `failed` could not be changed.
    `sample` has a few of the ids. The recipient in the filter of an erasure is null.
    """

    id: UUID | None
    tenant: str | None
    mode: Mode
    kind: OperationKind
    filter: JsonObject
    dry_run: bool
    rate_per_s: float | None
    note: str
    actor: str
    status: OperationStatus
    matched: int
    matched_is_exact: bool
    done: int
    skipped: int
    failed: int
    sample: Sequence[NotificationId]
    created_at: Instant
    updated_at: Instant
    finished_at: Instant | None

    @classmethod
    def of(cls, operation: operations.Operation) -> Operation:
        """Builds the document of a stored operation."""
        return cls(
            id=operation.id,
            tenant=None if operation.tenant is None else tenant_name(operation.tenant),
            mode=operation.mode,
            kind=operation.kind,
            filter=msgspec.Raw(msgspec.json.encode(operation.filter)),
            dry_run=False,
            rate_per_s=operation.rate_per_s,
            note=operation.note,
            actor=operation.actor,
            status=operation.status,
            matched=operation.matched,
            matched_is_exact=operation.status is not OperationStatus.RUNNING,
            done=operation.done,
            skipped=operation.skipped,
            failed=operation.failed,
            sample=operation.sample,
            created_at=operation.created_at,
            updated_at=operation.updated_at,
            finished_at=operation.finished_at,
        )


class OperationPage(msgspec.Struct):
    """Operations, newest first. `next_cursor` is null on the last page."""

    items: Sequence[Operation]
    next_cursor: str | None


class Blocker(msgspec.Struct):
    """One thing that holds a notification.

    `kind` is scheduled, retry, quiet_hours, pause, breaker, hang, broker, no_worker, no_channel,
    connections, rate, consumers or behind; later versions may have more. `name` is what it is of:
    a pause's kind and name, a provider, a channel, a queue or a tenant. `until_at` is when it ends;
    of a breaker when the provider is probed next, which may fail; null if that is not known.
    """

    kind: str
    name: str | None
    until_at: Instant | None
    detail: str | None

    @classmethod
    def of(cls, blocker: facts.Blocker) -> Blocker:
        """Builds the document of a blocker."""
        return cls(
            kind=blocker.kind,
            name=blocker.name,
            until_at=blocker.until_at,
            detail=blocker.detail,
        )


class Ahead(msgspec.Struct):
    """How many notifications of its queue stand before it; a minimum unless `is_exact`.

    Counting stops at 10,000. A key of a tenant sees two digits of a number above 100.
    """

    count: int
    is_exact: bool


class Expected(msgspec.Struct):
    """When it is expected to be sent, if all goes on as at present.

    `latest_at` is null if nobody can say how late.
    """

    earliest_at: Instant
    latest_at: Instant | None


class Explanation(msgspec.Struct):
    """Why a notification waits, as of `as_of_at`.

    The most decisive of the `blockers` comes first; there are none if it is being sent or has ended
    (GET /v1/notifications/{id} has the result). `expected` is null if that depends on somebody: on
    a pause without an end, an open breaker, a worker to be started. It is null, too, if it would
    expire before: at `expires_at`, if it has not been sent by then.
    """

    id: NotificationId
    status: Status
    queue: str
    as_of_at: Instant
    expires_at: Instant
    blockers: Sequence[Blocker]
    ahead: Ahead
    expected: Expected | None

    @classmethod
    def of(cls, explanation: facts.Explanation) -> Explanation:
        """Builds the document of an explanation."""
        subject, ahead, expected = explanation.subject, explanation.ahead, explanation.expected
        return cls(
            id=subject.id,
            status=subject.status,
            queue=str(subject.queue),
            as_of_at=subject.as_of_at,
            expires_at=subject.expires_at,
            blockers=[Blocker.of(blocker) for blocker in explanation.blockers],
            ahead=Ahead(ahead.count, ahead.is_exact),
            expected=expected and Expected(expected.earliest_at, expected.latest_at),
        )


class Queue(msgspec.Struct):
    """The state of one queue.

    `due` is a minimum unless `due_is_exact`. `oldest_wait_s` counts from the time at which the
    oldest notification that waits was first due, also if it is retried; null if none waits.
    `limited_by` is null if the queue has all the consumers that it needs, otherwise rate, hang,
    breaker, pause, connections, consumers, broker, no_worker or no_channel. `limited_by_detail`
    says more about it, null if there is no more to say. `configured` is false for a queue with
    notifications whose channel the settings do not have. `foreign` counts the pointers of another
    deployment on the same vhost that arrived in the last minute.
    """

    queue: str
    ready: int
    due: int
    due_is_exact: bool
    consumers: int
    busy: int
    rate_per_s: float
    oldest_wait_s: float | None
    limited_by: str | None
    limited_by_detail: str | None
    paused: bool
    configured: bool
    foreign: int

    @classmethod
    def of(cls, state: QueueState) -> Queue:
        """Builds the document of a queue."""
        return cls(
            queue=state.queue,
            ready=state.ready,
            due=state.due,
            due_is_exact=state.due_is_exact,
            consumers=state.consumers,
            busy=state.busy,
            rate_per_s=state.rate_per_s,
            oldest_wait_s=state.oldest_wait_s,
            limited_by=None if state.limited_by == Limit.NEED else state.limited_by,
            limited_by_detail=state.limited_by_detail,
            paused=state.paused,
            configured=state.is_configured,
            foreign=state.foreign,
        )


class QueuePage(msgspec.Struct):
    """All queues, always in one page."""

    items: Sequence[Queue]
    next_cursor: str | None = None


class Pause(msgspec.Struct):
    """A pause. `expires_at` is null if it lasts until it is deleted.

    `matches` is false if the settings have no such queue, channel or provider: it stops nothing.
    """

    kind: ScopeKind
    name: str
    note: str | None
    paused_at: Instant
    expires_at: Instant | None
    matches: bool

    @classmethod
    def of(cls, state: PauseState) -> Pause:
        """Builds the document of a pause."""
        pause = state.pause
        return cls(
            kind=pause.scope.kind,
            name=pause.scope.name,
            note=pause.note or None,
            paused_at=pause.paused_at,
            expires_at=pause.expires_at,
            matches=state.matches,
        )


class PausePage(msgspec.Struct):
    """All pauses, by kind and name, always in one page."""

    items: Sequence[Pause]
    next_cursor: str | None = None


class QuietHours(msgspec.Struct):
    """The hours of the day in which what is not urgent waits, of one tenant."""

    tenant: str
    start: str
    end: str
    time_zone: str

    @classmethod
    def of(cls, tenant: TenantId, hours: quiet_hours.QuietHours) -> QuietHours:
        """Builds the document of a tenant's quiet hours."""
        return cls(
            tenant=tenant_name(tenant),
            start=hours.start.isoformat("minutes"),
            end=hours.end.isoformat("minutes"),
            time_zone=hours.time_zone,
        )


class DeletedQuietHours(msgspec.Struct):
    """Whether the tenant had quiet hours."""

    was_set: bool


class DeletedPause(msgspec.Struct):
    """The result of the deletion of a pause. `was_paused` is false if there was none."""

    was_paused: bool


class Provider(msgspec.Struct):
    """The state of one provider.

    `reason` is why its breaker opened last, null if it never did; `code` is the provider's code of
    the last failure. `since_at` is when the breaker changed, `probe_at` when an open one may be
    probed. `calls` and `failures` cover the last 10 s. `hanging` are its channels whose calls are
    not answered.
    """

    provider: str
    channels: Sequence[str]
    breaker: BreakerState
    reason: str | None
    code: str | None
    since_at: Instant | None
    probe_at: Instant | None
    paused: bool
    calls: int
    failures: int
    hanging: Sequence[str]

    @classmethod
    def of(cls, state: ProviderState) -> Provider:
        """Builds the document of a provider."""
        return cls(
            provider=state.provider,
            channels=state.channels,
            breaker=state.breaker,
            reason=state.reason or None,
            code=state.code or None,
            since_at=state.since_at,
            probe_at=state.probe_at,
            paused=state.paused,
            calls=state.calls,
            failures=state.failures,
            hanging=state.hanging,
        )


class ProviderPage(msgspec.Struct):
    """All providers, by name, always in one page."""

    items: Sequence[Provider]
    next_cursor: str | None = None


class Worker(msgspec.Struct):
    """A process that has sent a heartbeat in the last minute.

    `kind` is api, worker or dev. `version` is null for a process of an earlier version. `busy` of
    its `consumers` send. `lacks` are the features that the process does not understand: a submit
    that needs one is refused while a worker lacks it.
    """

    id: WorkerId
    kind: str
    host: str
    pid: int
    version: str | None
    started_at: Instant
    beat_at: Instant
    consumers: int
    busy: int
    lacks: Sequence[str]

    @classmethod
    def of(cls, state: WorkerState) -> Worker:
        """Builds the document of a process."""
        return cls(
            id=state.id,
            kind=state.kind,
            host=state.host,
            pid=state.pid,
            version=state.version,
            started_at=state.started_at,
            beat_at=state.beat_at,
            consumers=state.consumers,
            busy=state.busy,
            lacks=state.lacks,
        )


class WorkerPage(msgspec.Struct):
    """All live processes, the oldest first, always in one page."""

    items: Sequence[Worker]
    next_cursor: str | None = None


class Health(msgspec.Struct):
    """The answer of a health check that passed."""

    status: str
