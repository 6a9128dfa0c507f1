"""Operations: what a person asks of many notifications, such as to cancel those with a tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from notifier.domain.credentials import Mode
from notifier.domain.notification import WAITING, NotificationId, Status
from notifier.domain.tenants import TenantId

RETRYABLE: Final = frozenset(
    {Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.SUPPRESSED, Status.UNDELIVERED}
)
"""The statuses from which a notification can be sent again."""


class OperationKind(StrEnum):
    """What an operation does with the notifications that it finds."""

    CANCEL = "cancel"
    RETRY = "retry"
    ERASE = "erase"

    @property
    def accepts(self) -> frozenset[Status]:
        """The statuses of the notifications that it can change."""
        match self:
            case OperationKind.CANCEL:
                return WAITING
            case OperationKind.RETRY:
                return RETRYABLE
            case OperationKind.ERASE:
                return frozenset(Status)


class OperationStatus(StrEnum):
    """The status of an operation. Later versions may have more."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation. `tenant` None: it is one of the deployment.

    `filter` is what selects the notifications, in the words of the API; that of an erasure does not
    keep the recipient. `rate_per_s` None: as fast
    as it can. `matched` counts the notifications that were found, `done` those that were changed,
    `skipped` those that had another status when it came to them, and `failed` those that Postgres
    refused to change. `sample` has a few of those that were changed.
    """

    id: UUID
    tenant: TenantId | None
    mode: Mode
    kind: OperationKind
    filter: Mapping[str, object]
    rate_per_s: float | None
    note: str
    actor: str
    status: OperationStatus
    matched: int = 0
    done: int = 0
    skipped: int = 0
    failed: int = 0
    sample: Sequence[NotificationId] = ()
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
