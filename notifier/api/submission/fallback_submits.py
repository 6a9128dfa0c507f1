"""Submits the second notification of a fallback, as its tenant would submit it now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from notifier.api.http.problems import RequestRefused, problem_of
from notifier.domain.errors import (
    FeatureUnavailable,
    IdempotencyKeyInFlight,
    IdempotencyKeyReused,
    InfrastructureError,
    InvalidNotification,
    StoreRejected,
    StoreUnavailable,
)
from notifier.ports.acceptor import Replayed
from notifier.ports.fallbacks import NotSubmitted
from notifier.ports.schedules import Submitted

if TYPE_CHECKING:
    from notifier.api.submission.tenant_preparation import TenantPreparation
    from notifier.domain.fallbacks import DueFallback
    from notifier.domain.notification import NewNotification, NotificationId
    from notifier.ports.acceptor import Acceptor


class FallbackSubmits:
    """Implements ports.fallbacks.FallbackSubmitter. Nothing is charged to the rate of any key."""

    def __init__(self, *, acceptor: Acceptor, preparation: TenantPreparation) -> None:
        self._acceptor = acceptor
        self._preparation = preparation

    async def submit(self, fallback: DueFallback) -> Submitted | NotSubmitted:
        try:
            new = await self._preparation.prepare(fallback.submit, fallback.tenant, fallback.mode)
        except (InvalidNotification, RequestRefused) as error:
            return NotSubmitted(_slug(error), is_final=True)
        except InfrastructureError as error:
            return NotSubmitted(_slug(error), is_final=False)
        return await self._submit(msgspec.structs.replace(new, key=fallback.key))

    async def earlier(self, fallback: DueFallback) -> NotificationId | None:
        found = await self._acceptor.earlier(fallback.key)
        return found.id if isinstance(found, Replayed) else None

    async def _submit(self, new: NewNotification) -> Submitted | NotSubmitted:
        try:
            (reply,) = await self._acceptor.submit([new])
        except (StoreUnavailable, IdempotencyKeyInFlight) as error:
            return NotSubmitted(_slug(error), is_final=False, may_be_stored=True)
        except InfrastructureError as error:
            return NotSubmitted(_slug(error), is_final=False)
        match reply:
            case StoreRejected() | IdempotencyKeyReused():
                return NotSubmitted(_slug(reply), is_final=True)
            case FeatureUnavailable():
                return NotSubmitted(_slug(reply), is_final=False)
            case Replayed(id=id_):
                return Submitted(id_, is_replay=True)
            case _:
                return Submitted(new.id, is_replay=False)


def _slug(error: Exception) -> str:
    return problem_of(error).type.rpartition(":")[2]
