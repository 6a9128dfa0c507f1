"""Response bodies. The API encodes them, and the command line decodes them.

Nothing here imports the web framework, so a client can import this module cheaply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from typing_extensions import override

from notifier.api.requests import Instant, JsonObject
from notifier.domain.controls import BreakerState, Pause, ScopeKind
from notifier.domain.notification import (
    AttemptView,
    FailureView,
    NotificationId,
    NotificationView,
    Priority,
    Status,
)
from notifier.ports.queries import ProviderState, QueueState


class Accepted(msgspec.Struct):
    """A notification that is committed to the database."""

    id: NotificationId
    status: Status
    queue: str


class Problem(msgspec.Struct, omit_defaults=True):
    """An RFC 9457 problem. `field` is a dotted path into the request; `$` is the whole body."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    expected: str | None = None
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
    """One claim of a notification and the provider call that followed."""

    claim: int
    provider: str
    outcome: str
    code: str
    detail: str
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
            claim=view.claim,
            provider=view.provider,
            outcome=view.outcome,
            code=view.code,
            detail=view.detail,
            queue_wait_s=view.queue_wait_s,
            started_at=view.started_at,
            finished_at=view.finished_at,
            next_at=view.next_at,
            repeats=view.repeats,
            late=view.late,
        )


class Summary(msgspec.Struct):
    """A notification in a list: without content and attempts."""

    id: NotificationId
    status: Status
    channel: str
    priority: Priority
    queue: str
    recipient: str
    tries: int
    max_tries: int | None
    last_error: str | None
    metadata: JsonObject
    created_at: Instant
    updated_at: Instant
    due_at: Instant | None
    expires_at: Instant

    @classmethod
    def of(cls, view: NotificationView) -> Summary:
        """Builds the list entry of a notification."""
        return cls(
            id=view.id,
            status=view.status,
            channel=view.queue.channel,
            priority=view.queue.priority,
            queue=str(view.queue),
            recipient=view.recipient,
            tries=view.tries,
            max_tries=view.max_tries,
            last_error=view.last_error,
            metadata=msgspec.Raw(view.metadata),
            created_at=view.created_at,
            updated_at=view.updated_at,
            due_at=view.due_at,
            expires_at=view.expires_at,
        )


class Notification(Summary, kw_only=True):
    """A notification with its content and its attempts."""

    content: JsonObject
    attempts: Sequence[Attempt]

    @classmethod
    @override
    def of(cls, view: NotificationView) -> Notification:
        """Builds the whole document of a notification."""
        return cls(
            **msgspec.structs.asdict(Summary.of(view)),
            content=msgspec.Raw(view.content),
            attempts=[Attempt.of(attempt) for attempt in view.attempts],
        )


class Failure(msgspec.Struct):
    """One row of the failure log."""

    id: NotificationId
    channel: str
    priority: Priority
    queue: str
    provider: str
    reason: str
    code: str
    detail: str
    tries: int
    first_at: Instant
    last_at: Instant

    @classmethod
    def of(cls, view: FailureView) -> Failure:
        """Builds the document of a failure."""
        return cls(
            id=view.id,
            channel=view.queue.channel,
            priority=view.queue.priority,
            queue=str(view.queue),
            provider=view.provider,
            reason=view.reason,
            code=view.code,
            detail=view.detail,
            tries=view.tries,
            first_at=view.first_at,
            last_at=view.last_at,
        )


class NotificationPage(msgspec.Struct):
    """Notifications, newest first. `next_cursor` is null on the last page.

    Other pages may be shorter than the limit, even empty, if few notifications match.
    """

    notifications: Sequence[Summary]
    next_cursor: str | None


class FailurePage(msgspec.Struct):
    """Failures, newest first. `next_cursor` is null on the last page."""

    failures: Sequence[Failure]
    next_cursor: str | None


class Queue(msgspec.Struct):
    """The state of one queue.

    `due` is a minimum unless `due_is_exact`. `oldest_wait_s` counts from the time at which the
    oldest notification that waits was first due, also if it is retried. `limited_by_detail` says
    more about `limited_by`, null if there is no more to say. `configured` is false for a queue with
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
    oldest_wait_s: float
    limited_by: str
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
            limited_by=state.limited_by,
            limited_by_detail=state.limited_by_detail,
            paused=state.paused,
            configured=state.is_configured,
            foreign=state.foreign,
        )


class PauseState(msgspec.Struct):
    """An active pause. `expires_in_s` is null if the pause lasts until it is resumed.

    `matches` is false if the settings have no such queue, channel or provider: it stops nothing.
    """

    kind: ScopeKind
    name: str
    reason: str
    expires_in_s: float | None
    matches: bool = True

    @classmethod
    def of(cls, pause: Pause, *, matches: bool) -> PauseState:
        """Builds the document of a pause; its remaining time is rounded to milliseconds."""
        expires_in_s = None if pause.expires_in_s is None else round(pause.expires_in_s, 3)
        return cls(pause.scope.kind, pause.scope.name, pause.reason, expires_in_s, matches)


class Resumed(msgspec.Struct):
    """The result of a resume. `resumed` is false if there was no pause."""

    kind: ScopeKind
    name: str
    resumed: bool


class ProviderHealth(msgspec.Struct):
    """The state of one provider.

    `reason` is why its breaker opened last, `code` the provider's code of the last failure. `calls`
    and `failures` cover the last 10 s. `hanging` are its channels whose calls are not answered.
    """

    provider: str
    channels: Sequence[str]
    breaker: BreakerState
    reason: str
    probe_in_s: float
    paused: bool
    calls: int
    failures: int
    code: str = ""
    hanging: Sequence[str] = ()

    @classmethod
    def of(cls, state: ProviderState) -> ProviderHealth:
        """Builds the document of a provider."""
        return cls(
            provider=state.provider,
            channels=state.channels,
            breaker=state.breaker,
            reason=state.reason,
            probe_in_s=state.probe_in_s,
            paused=state.paused,
            calls=state.calls,
            failures=state.failures,
            code=state.code,
            hanging=state.hanging,
        )


class Health(msgspec.Struct):
    """The answer of a health check that passed."""

    status: str
