"""Submits the fallbacks of notifications that are not sent in time, each exactly once.

A fallback is taken for a while, submitted with an idempotency key of its own, and only then it is
done. If the process dies in between, another one takes it, and its submit is a replay.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from notifier.delivery.crash_place import type_and_place
from notifier.domain.errors import StoreError
from notifier.domain.fallbacks import Decision, FallbackOutcome
from notifier.ports.fallbacks import FallbackResult, NotSubmitted
from notifier.ports.schedules import Submitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.fallbacks import DueFallback
    from notifier.domain.notification import NotificationId
    from notifier.ports.fallbacks import FallbackStore, FallbackSubmitter
    from notifier.ports.observer import FallbackObserver

RUN_INTERVAL_S: Final = 1.0
HOLD_S: Final = 30.0
"""Longer than a submit takes: it has a deadline. Another process may then take the fallback."""
RETRY: Final = timedelta(seconds=5)
MAX_TAKEN: Final = 100
"""How many fallbacks a process looks at, and submits, at once."""
MAX_STEPS: Final = 100
"""How often a pass takes some: a stop waits for its end."""

log = structlog.get_logger(__name__)


class _Ended(NamedTuple):
    """A fallback with its result. `outcome` is None if the first notification is still awaited."""

    fallback: DueFallback
    result: FallbackResult
    outcome: FallbackOutcome | None = None
    reason: str = ""


class FallbackRunner:
    """Every process with an API runs one; they share the fallbacks."""

    def __init__(
        self, *, store: FallbackStore, submitter: FallbackSubmitter, observer: FallbackObserver
    ) -> None:
        self._store = store
        self._submitter = submitter
        self._observer = observer

    async def run_once(self) -> int:
        """Look at what is to be looked at; returns how many fallbacks were settled.

        A failure of the store is logged: the next pass goes on.
        """
        settled = 0
        try:
            for _ in range(MAX_STEPS):
                fallbacks = await self._store.take(MAX_TAKEN, HOLD_S)
                if fallbacks:
                    settled += await self._settle(fallbacks)
                if len(fallbacks) < MAX_TAKEN:
                    break
        except StoreError as error:
            log.warning("fallbacks_failed", reason=str(error))
        return settled

    async def _settle(self, fallbacks: Sequence[DueFallback]) -> int:
        needed = [each for each in fallbacks if each.decision is Decision.SUBMIT]
        begun = set(await self._store.begin(needed)) if needed else set()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._ended(each), name="fallback")
                for each in fallbacks
                if each.decision is not Decision.SUBMIT or each.id in begun
            ]
        ended = [task.result() for task in tasks]
        settled = set(await self._store.settle([each.result for each in ended]))
        for each in ended:
            if each.fallback.id in settled:  # another process may have ended it meanwhile
                self._report(each)
        return len(settled)

    async def _ended(self, fallback: DueFallback) -> _Ended:
        """Return the result of a fallback. Raises nothing: one must not end the others."""
        try:
            return await self._result(fallback)
        except StoreError as error:
            return _postponed(fallback, str(error), may_be_stored=True)
        except Exception as error:  # noqa: BLE001 a fault that one fallback shows stops no others
            # The message may contain the recipient, so only the error's type and place are logged.
            crash = type_and_place(error)
            log.error("fallback_raised", notification=str(fallback.id), error=crash)  # noqa: TRY400 as above
            return _postponed(fallback, type(error).__name__, may_be_stored=True)

    async def _result(self, fallback: DueFallback) -> _Ended:
        if fallback.begun_at is not None:
            earlier = await self._submitter.earlier(fallback)
            if earlier is not None:
                return _done(fallback, FallbackOutcome.REPLAYED, earlier)
        match fallback.decision:
            case Decision.DROP:
                return _done(fallback, FallbackOutcome.DROPPED)
            case Decision.WAIT:
                return _awaited(fallback)
            case Decision.SUBMIT:
                return await self._submit(fallback)

    async def _submit(self, fallback: DueFallback) -> _Ended:
        if fallback.may_have_lost_its_key:
            return _done(fallback, FallbackOutcome.SKIPPED, reason="its key is not stored any more")
        match await self._submitter.submit(fallback):
            case Submitted(id=id_, is_replay=is_replay):
                outcome = FallbackOutcome.REPLAYED if is_replay else FallbackOutcome.SUBMITTED
                return _done(fallback, outcome, id_)
            case NotSubmitted(slug=slug, is_final=is_final, may_be_stored=may_be_stored):
                if is_final:
                    return _done(fallback, FallbackOutcome.REFUSED, reason=slug)
                return _postponed(fallback, slug, may_be_stored=may_be_stored)

    def _report(self, ended: _Ended) -> None:
        if ended.outcome is None:
            return
        self._observer.fallback_ended(ended.outcome)
        fallback, result = ended.fallback, ended.result
        notification = str(fallback.id)
        match ended.outcome:
            case FallbackOutcome.SUBMITTED | FallbackOutcome.REPLAYED:
                log.info(
                    "fallback_submitted",
                    notification=notification,
                    status=fallback.status,
                    fallback=str(result.notification),
                )
            case FallbackOutcome.DROPPED:
                log.debug("fallback_dropped", notification=notification, status=fallback.status)
            case FallbackOutcome.REFUSED:
                log.warning("fallback_refused", notification=notification, problem=ended.reason)
            case FallbackOutcome.POSTPONED:
                log.warning("fallback_postponed", notification=notification, reason=ended.reason)
            case FallbackOutcome.SKIPPED:
                log.warning("fallback_skipped", notification=notification, reason=ended.reason)


def _awaited(fallback: DueFallback) -> _Ended:
    """Look at the first notification again later."""
    result = FallbackResult(
        fallback.id,
        fallback.held_until,
        look_at=fallback.next_look_at,
        # It was begun if a person had the first one sent again after it had failed.
        may_be_stored=fallback.begun_at is not None,
    )
    return _Ended(fallback, result)


def _done(
    fallback: DueFallback,
    outcome: FallbackOutcome,
    notification: NotificationId | None = None,
    reason: str = "",
) -> _Ended:
    result = FallbackResult(fallback.id, fallback.held_until, notification=notification)
    return _Ended(fallback, result, outcome, reason)


def _postponed(fallback: DueFallback, reason: str, *, may_be_stored: bool) -> _Ended:
    """Leave a fallback as it is, for another try."""
    result = FallbackResult(
        fallback.id,
        fallback.held_until,
        look_at=fallback.now + RETRY,
        # What may have been stored at an earlier try still may be.
        may_be_stored=may_be_stored or fallback.begun_at is not None,
    )
    return _Ended(fallback, result, FallbackOutcome.POSTPONED, reason)
