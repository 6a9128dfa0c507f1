"""Submits the notification of a run, as a caller of its tenant would submit it now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from notifier.api.http.problems import RequestRefused, problem_of
from notifier.api.schedules.checking import of_notification
from notifier.api.schedules.documents import RunProblem
from notifier.api.submission.tenant_preparation import TenantPreparation
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
from notifier.ports.schedules import Postponed, Refused, Submitted, TooLate

if TYPE_CHECKING:
    from notifier.api.auth.keyring import Keyring
    from notifier.api.rules import ApiRules
    from notifier.api.submission.preparing import SubmitPreparation
    from notifier.domain.notification import NewNotification, NotificationId
    from notifier.domain.schedules import Run
    from notifier.ports.acceptor import Acceptor


class ScheduledSubmits:
    """Implements ports.schedules.RunSubmitter. Without a keyring nobody knows the tenants.

    Nothing is charged to the rate of any key.
    """

    def __init__(
        self,
        *,
        acceptor: Acceptor,
        preparation: SubmitPreparation,
        keyring: Keyring | None,
        rules: ApiRules,
    ) -> None:
        self._acceptor = acceptor
        self._preparation = TenantPreparation(preparation=preparation, keyring=keyring, rules=rules)

    async def submit(self, run: Run) -> Submitted | Refused | Postponed | TooLate:
        try:
            new = await self._preparation.prepare(run.notification, *run.scope)
        except InvalidNotification as error:
            return _refused(run, InvalidNotification.of(list(of_notification(error))))
        except RequestRefused as error:
            return _refused(run, error)
        except InfrastructureError as error:
            return _postponed(run, error)
        left = new.ttl - run.lateness
        if left.total_seconds() <= 0:
            return TooLate()
        return await self._submit(run, msgspec.structs.replace(new, key=run.key, ttl=left))

    async def earlier(self, run: Run) -> NotificationId | None:
        found = await self._acceptor.earlier(run.key)
        return found.id if isinstance(found, Replayed) else None

    async def _submit(self, run: Run, new: NewNotification) -> Submitted | Refused | Postponed:
        try:
            (reply,) = await self._acceptor.submit([new])
        except (StoreUnavailable, IdempotencyKeyInFlight) as error:
            return _postponed(run, error, may_be_stored=True)
        except InfrastructureError as error:
            return _postponed(run, error)
        match reply:
            case StoreRejected() | IdempotencyKeyReused():
                return _refused(run, reply)
            case FeatureUnavailable():
                return _postponed(run, reply)
            case Replayed(id=id_):
                return Submitted(id_, is_replay=True)
            case _:
                return Submitted(new.id, is_replay=False)


def _refused(run: Run, error: Exception) -> Refused:
    return Refused(*_described(run, error))


def _postponed(run: Run, error: Exception, *, may_be_stored: bool = False) -> Postponed:
    return Postponed(*_described(run, error), may_be_stored)


def _described(run: Run, error: Exception) -> tuple[bytes, str]:
    """Return the document of a problem, and its slug."""
    problem = problem_of(error)
    document = msgspec.json.encode(RunProblem(at=run.at, problem=problem))
    return document, problem.type.rpartition(":")[2]
