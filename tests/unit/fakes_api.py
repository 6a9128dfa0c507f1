"""A small working store in memory behind the ports the API needs, and the API served over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
from litestar import Litestar

from notifier.api.app import create_api
from notifier.api.http.server import open_server
from notifier.api.settings import ApiSettings
from notifier.domain.controls import Pause, Scope, ScopeKind
from notifier.domain.errors import StoreRejected
from notifier.domain.notification import (
    AttemptView,
    Channel,
    FailureView,
    NewNotification,
    NotificationId,
    NotificationView,
    Priority,
    QueueKey,
    Status,
)
from notifier.ports.queries import Filter, ProviderState, QueueState


class MemoryStore:
    """Acceptor, Reader, Board and Pausing at once.

    `broken` is raised by all; `hold` makes submits wait.
    """

    def __init__(self) -> None:
        self.new: dict[NotificationId, NewNotification] = {}
        self.views: dict[NotificationId, NotificationView] = {}
        self.failed: list[FailureView] = []
        self.broken: Exception | None = None
        self.rejects: str | None = None
        self.entered = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()
        self.asked: list[Filter] = []
        self.paused: dict[Scope, Pause] = {}
        self.breaker = "open"

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Status | StoreRejected]:
        self._check()
        self.entered.set()
        await self.hold.wait()
        return [self._store(item) for item in items]

    async def get(self, id: NotificationId) -> NotificationView | None:  # noqa: A002 the port's word
        self._check()
        return self.views.get(id)

    async def notifications(self, selection: Filter) -> Sequence[NotificationView]:
        self._check()
        self.asked.append(selection)
        newest = sorted(self.views.values(), key=lambda view: view.id, reverse=True)
        return [view for view in newest if _matches(view, selection)][: selection.limit]

    async def failures(self, selection: Filter) -> Sequence[FailureView]:
        self._check()
        self.asked.append(selection)
        newest = sorted(self.failed, key=lambda view: view.id, reverse=True)
        return [one for one in newest if selection.before is None or one.id < selection.before][
            : selection.limit
        ]

    async def queues(self) -> Sequence[QueueState]:
        self._check()
        return [
            QueueState(
                queue=QueueKey(Channel("email"), Priority.HIGH),
                ready=3,
                due=1,
                consumers=2,
                busy=1,
                rate_per_s=12.5,
                oldest_wait_s=0.25,
                limited_by="need",
                paused=False,
            )
        ]

    async def providers(self) -> Sequence[ProviderState]:
        self._check()
        return [
            ProviderState(
                provider="smtp",
                channels=("email",),
                breaker=self.breaker,
                reason="errors",
                probe_in_s=3.5,
                paused=Scope(ScopeKind.PROVIDER, "smtp") in self.paused,
                calls=20,
                failures=11,
            )
        ]

    async def pauses(self) -> Sequence[Pause]:
        self._check()
        return [self.paused[scope] for scope in sorted(self.paused)]

    async def pause(self, scope: Scope, *, reason: str, for_s: float | None) -> None:
        self._check()
        self.paused[scope] = Pause(scope=scope, reason=reason, age_s=0.0, expires_in_s=for_s)

    async def resume(self, scope: Scope) -> bool:
        self._check()
        return self.paused.pop(scope, None) is not None

    def fail(self, id: NotificationId) -> None:  # noqa: A002 the port's word
        """End a stored notification as failed, after one attempt."""
        now = datetime.now(UTC)
        view = self.views[id]
        attempt = AttemptView(
            claim=1,
            provider="smtp",
            outcome="refused",
            code="550",
            detail="no such user",
            queue_wait_s=0.01,
            started_at=now,
            finished_at=now,
            next_at=None,
            repeats=0,
            late=False,
        )
        self.views[id] = replace(
            view, status=Status.FAILED, tries=1, last_error="550", attempts=(attempt,)
        )
        self.failed.append(
            FailureView(
                id=id,
                queue=view.queue,
                provider="smtp",
                reason="refused",
                code="550",
                detail="no such user",
                tries=1,
                first_at=now,
                last_at=now,
            )
        )

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def _store(self, item: NewNotification) -> Status | StoreRejected:
        if self.rejects is not None and item.recipient == self.rejects:
            return StoreRejected("invalid byte sequence in secret@example.com")
        status = Status.QUEUED if item.delay is None else Status.SCHEDULED
        now = datetime.now(UTC)
        self.new[item.id] = item
        self.views[item.id] = NotificationView(
            id=item.id,
            status=status,
            queue=item.queue,
            recipient=item.recipient,
            content=item.content,
            metadata=item.metadata,
            tries=0,
            max_tries=item.max_tries,
            last_error=None,
            created_at=now,
            updated_at=now,
            due_at=now + (item.delay or timedelta()),
            expires_at=now + item.ttl,
        )
        return status


def _matches(view: NotificationView, selection: Filter) -> bool:
    created = view.created_at.timestamp()
    return (
        selection.status in {None, view.status}
        and selection.channel in {None, view.queue.channel}
        and selection.priority in {None, view.queue.priority}
        and (selection.created_from is None or created >= selection.created_from)
        and (selection.created_to is None or created < selection.created_to)
        and (selection.before is None or view.id < selection.before)
    )


def make_api(
    store: MemoryStore, settings: ApiSettings | None = None, reasons: Sequence[str] = ()
) -> Litestar:
    return create_api(
        acceptor=store,
        reader=store,
        board=store,
        pausing=store,
        settings=settings or ApiSettings(),
        readiness=lambda: reasons,
        metrics=lambda: (b"notifier_up 1\n", "text/plain; version=1.0.0"),
    )


@asynccontextmanager
async def open_client(app: Litestar) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve the app on a free port; gives a client of it."""
    async with (
        open_server(app, host="127.0.0.1", port=0, grace_s=5) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


def a_submit(**changes: object) -> dict[str, object]:
    body: dict[str, object] = {
        "channel": "email",
        "priority": "high",
        "recipient": "ada@example.com",
        "content": {"subject": "Your code", "body": "123456"},
    }
    return {**body, **changes}
