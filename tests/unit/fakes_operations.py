"""Operations in memory, and changes of single notifications of a MemoryStore."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from uuid_utils.compat import uuid7

from notifier.domain.notification import WAITING, Status
from notifier.domain.operations import RETRYABLE, Operation, OperationStatus
from notifier.ports.operations import (
    Counted,
    NewOperation,
    OperationFilter,
    OperationPage,
    OperationRefusal,
    Replay,
    Retried,
)
from notifier.ports.store import ExpiredRow

if TYPE_CHECKING:
    from uuid import UUID

    from notifier.domain.idempotency import IdempotencyKey
    from notifier.domain.notification import NotificationView
    from notifier.ports.keys import Author
    from notifier.ports.queries import View
    from tests.unit.fakes_api import MemoryStore


class MemoryOperations:
    """Implements NotificationControl and OperationStore; its operations never advance."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.stored: dict[UUID, Operation] = {}
        self.asked: list[NewOperation] = []
        self.suppresses = False
        self.content_is_gone = False
        self.max_running = 5
        self._keys: dict[UUID, tuple[IdempotencyKey, Operation]] = {}

    async def cancel(
        self,
        notification: NotificationView,
        note: str,  # noqa: ARG002 kept by the audit alone
        author: Author,  # noqa: ARG002
    ) -> ExpiredRow | None:
        if notification.status not in WAITING:
            return None
        self._put(notification, Status.CANCELLED)
        return ExpiredRow(notification.id, notification.queue, 0.0)

    async def retry(
        self,
        notification: NotificationView,
        note: str,  # noqa: ARG002
        author: Author,  # noqa: ARG002
    ) -> Retried:
        if notification.status not in RETRYABLE:
            return Retried.WRONG_STATUS
        if self.content_is_gone:
            return Retried.CONTENT_GONE
        if self.suppresses:
            return Retried.SUPPRESSED
        self._put(notification, Status.QUEUED)
        return Retried.DONE

    def _put(self, notification: NotificationView, status: Status) -> None:
        self._store.views[notification.id] = replace(notification, status=status)

    async def create(
        self, new: NewOperation, author: Author
    ) -> Operation | Replay | OperationRefusal:
        view = new.selection.view
        self.asked.append(new)
        if new.key is not None and new.key.digest in self._keys:
            key, operation = self._keys[new.key.digest]
            return Replay(operation) if key == new.key else OperationRefusal.KEY_REUSED
        if len(self.stored) >= self.max_running:
            return OperationRefusal.TOO_MANY
        now = datetime.now(UTC)
        operation = Operation(
            id=uuid7(),
            tenant=view.tenant,
            mode=view.mode,
            kind=new.kind,
            filter=new.shown,
            rate_per_s=new.rate_per_s,
            note=new.note,
            actor=author.actor,
            status=OperationStatus.RUNNING,
            created_at=now,
            updated_at=now,
        )
        self.stored[operation.id] = operation
        if new.key is not None:
            self._keys[new.key.digest] = (new.key, operation)
        return operation

    async def count(self, new: NewOperation) -> Counted:
        self.asked.append(new)
        page = await self._store.notifications(new.selection)
        ids = [view.id for view in page.views]
        return Counted(len(ids), True, ids)

    async def operation(
        self,
        id: UUID,  # noqa: A002 the port's name
        view: View,
    ) -> Operation | None:
        found = self.stored.get(id)
        is_seen = found is not None and found.mode is view.mode
        return found if found and is_seen and view.tenant in {None, found.tenant} else None

    async def operations(self, selection: OperationFilter) -> OperationPage:
        found = [
            operation
            for operation in sorted(self.stored.values(), key=lambda each: each.id, reverse=True)
            if await self.operation(operation.id, selection.view)
            and operation.status in (selection.status or (operation.status,))
            and operation.kind in (selection.kind or (operation.kind,))
            and (selection.before is None or operation.id < selection.before)
        ]
        page = found[: selection.limit]
        has_more = len(found) > len(page)
        return OperationPage(operations=page, next_before=page[-1].id if has_more else None)

    async def stop(
        self,
        id: UUID,  # noqa: A002 the port's name
        view: View,
        note: str,  # noqa: ARG002 kept by the audit alone
        author: Author,  # noqa: ARG002
    ) -> Operation | None:
        found = await self.operation(id, view)
        if found is not None and found.status is OperationStatus.RUNNING:
            self.stored[id] = replace(found, status=OperationStatus.STOPPED)
        return self.stored.get(id) if found else None
