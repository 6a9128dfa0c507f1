"""The documents that are read: notifications, failures and queues, as they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

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


class Attempt(msgspec.Struct):
    """One claim that called a provider."""

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
        """Show an attempt."""
        return cls(**{name: getattr(view, name) for name in cls.__struct_fields__})


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
        """Show a notification in a list."""
        return cls(**_summary(view))


class Notification(Summary, kw_only=True):
    """A notification with all that became of it."""

    content: JsonObject
    attempts: Sequence[Attempt]

    @classmethod
    def whole(cls, view: NotificationView) -> Notification:
        """Show a notification with its content and attempts."""
        return cls(
            **_summary(view),
            content=msgspec.Raw(view.content),
            attempts=[Attempt.of(one) for one in view.attempts],
        )


def _summary(view: NotificationView) -> dict[str, Any]:
    same = (
        "id",
        "status",
        "recipient",
        "tries",
        "max_tries",
        "last_error",
        "created_at",
        "updated_at",
        "due_at",
        "expires_at",
    )
    return {
        **{name: getattr(view, name) for name in same},
        "channel": view.queue.channel,
        "priority": view.queue.priority,
        "queue": str(view.queue),
        "metadata": msgspec.Raw(view.metadata),
    }


class Failure(msgspec.Struct):
    """One row of the log of failures."""

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
        """Show a failure."""
        same = ("id", "provider", "reason", "code", "detail", "tries", "first_at", "last_at")
        return cls(
            **{name: getattr(view, name) for name in same},
            channel=view.queue.channel,
            priority=view.queue.priority,
            queue=str(view.queue),
        )


class NotificationPage(msgspec.Struct):
    """Notifications, newest first. `next_cursor` asks for the next page; null: there is none."""

    notifications: Sequence[Summary]
    next_cursor: str | None


class FailurePage(msgspec.Struct):
    """Failures, newest first."""

    failures: Sequence[Failure]
    next_cursor: str | None


class Queue(msgspec.Struct):
    """The state of one queue."""

    queue: str
    ready: int
    due: int
    consumers: int
    busy: int
    rate_per_s: float
    oldest_wait_s: float
    limited_by: str
    paused: bool

    @classmethod
    def of(cls, state: QueueState) -> Queue:
        """Show a queue."""
        figures = {name: getattr(state, name) for name in cls.__struct_fields__}
        return cls(**{**figures, "queue": str(state.queue)})


class PauseState(msgspec.Struct):
    """What is paused, and why. `expires_in_s` null: until it is resumed."""

    kind: ScopeKind
    name: str
    reason: str
    expires_in_s: float | None

    @classmethod
    def of(cls, pause: Pause) -> PauseState:
        """Show a pause."""
        ends = None if pause.expires_in_s is None else round(pause.expires_in_s, 3)
        return cls(pause.scope.kind, pause.scope.name, pause.reason, ends)


class Resumed(msgspec.Struct):
    """What is not paused any more; `resumed` says whether it was."""

    kind: ScopeKind
    name: str
    resumed: bool


class ProviderHealth(msgspec.Struct):
    """The state of one provider.

    `reason` says why its breaker opened last. `calls` and `failures` are those of the last 10 s.
    """

    provider: str
    channels: Sequence[str]
    breaker: BreakerState
    reason: str
    probe_in_s: float
    paused: bool
    calls: int
    failures: int

    @classmethod
    def of(cls, state: ProviderState) -> ProviderHealth:
        """Show a provider."""
        return cls(**{name: getattr(state, name) for name in cls.__struct_fields__})


class Health(msgspec.Struct):
    """That all is well."""

    status: str
