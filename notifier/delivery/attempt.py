"""One attempt: claim, send, decide, record, acknowledge, always in this order."""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import TYPE_CHECKING, Final, Protocol, assert_never

import msgspec
import structlog

from notifier.delivery.group_commit import GroupCommit, WhenUnknown
from notifier.delivery.in_flight import InFlightClaims
from notifier.delivery.lateness import LatenessDetector
from notifier.domain.breaker import is_unasked
from notifier.domain.errors import StoreUnavailable
from notifier.domain.liveness import STALE_AFTER_S
from notifier.domain.notification import WAITING, Claimed, Status
from notifier.domain.outcome import (
    MAX_CODE_LENGTH,
    MAX_DETAIL_LENGTH,
    MAX_REFERENCE_LENGTH,
    Ambiguous,
    Outcome,
    Unavailable,
)
from notifier.domain.retry import Decision, Fail, Retry, Settle
from notifier.domain.timing import AttemptTiming
from notifier.lifecycle import TimeLimit
from notifier.ports.provider import Envelope
from notifier.ports.store import AttemptResult, ClaimRequest, NotClaimed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from notifier.delivery.delivery_rules import DeliveryRules
    from notifier.domain.notification import QueueKey
    from notifier.ports.broker import Delivery, Pointer
    from notifier.ports.heartbeat import Liveness
    from notifier.ports.observer import AttemptObserver
    from notifier.ports.store import AttemptStore, ClaimReply, Recorded

RECORD_TIMEOUT_S: Final = 5.0
"""How long writing a known outcome may take once the grace period is over."""
NOT_SENT: Final = AttemptTiming(seconds=0.0, answered=False)

log = structlog.get_logger(__name__)
_decode = msgspec.json.Decoder(dict[str, object]).decode


class OutcomeListener(Protocol):
    """Is notified of the outcome of each provider call."""

    def on_outcome(
        self, queue: QueueKey, provider: str, outcome: Outcome, started_at: float
    ) -> None:
        """Take note of a call that ended; `started_at` is an instant of the monotonic clock."""
        ...


class RateLimiter(Protocol):
    """Limits the calls to each queue's provider."""

    async def acquire(self, queue: QueueKey) -> None:
        """Return when the queue's provider may be called once."""
        ...


class Attempts:
    """Implements ports.attempts.AttemptRunner. All consumers of the worker share its batches."""

    def __init__(
        self,
        *,
        store: AttemptStore,
        observer: AttemptObserver,
        rules: DeliveryRules,
        liveness: Liveness,
        rate_limiter: RateLimiter,
        outcome_listeners: Sequence[OutcomeListener],
        draw: Callable[[], float],
        send_timeout_s: float,
    ) -> None:
        self.in_flight = InFlightClaims()
        self._store = store
        self._observer = observer
        self._rules = rules
        self._liveness = liveness
        self._rate_limiter = rate_limiter
        self._outcome_listeners = outcome_listeners
        self._draw = draw
        self._time_limit = TimeLimit(send_timeout_s)
        self._claim_lateness = LatenessDetector()
        self._claims = GroupCommit("claim", store.claim, when_unknown=WhenUnknown.FAIL)
        self._results = GroupCommit("record", self._write_results, when_unknown=WhenUnknown.REPEAT)
        self._returns = GroupCommit(
            "give_back", self._write_returns, when_unknown=WhenUnknown.REPEAT
        )

    async def run(self) -> None:
        """Write batches until closed and empty."""
        async with asyncio.TaskGroup() as group:
            for batches in (self._claims, self._results, self._returns):
                group.create_task(batches.run(), name=f"batch:{batches.name}")

    def close(self) -> None:
        """Let `run` end once everything is written; no attempt may start after."""
        for batches in (self._claims, self._results, self._returns):
            batches.close()

    async def attempt(self, delivery: Delivery, ack: Callable[[Delivery], None]) -> AttemptTiming:
        pointer = delivery.pointer
        request = ClaimRequest(id=pointer.id, claim=pointer.claim)
        acquired_at = time.monotonic()
        # A claim made before would only have to be given back.
        await self._liveness.wait_until_alive()
        requested_at = time.monotonic()
        if self.in_flight.has(request):  # the other copy records the row or gives it back
            ack(delivery)
            return NOT_SENT
        self.in_flight.add(request)
        try:
            timing = await self._carry_out(pointer.queue, request, acquired_at, requested_at)
            ack(delivery)
        finally:
            self.in_flight.remove(request)
        return timing

    async def give_back_pointers(self, pointers: Sequence[Pointer]) -> None:
        await self._give_back(
            [
                ClaimRequest(id=pointer.id, claim=pointer.claim, is_buffered=True)
                for pointer in pointers
            ]
        )

    async def _give_back(self, requests: Sequence[ClaimRequest]) -> None:
        futures = [self._returns.put(request) for request in requests]
        try:
            for future in futures:
                await future
        finally:
            for future in futures:
                future.cancel()

    async def release_remaining(self) -> None:
        """After the last attempt, wait for claims still being written and give back all orphans."""
        await self._claims.wait_idle()
        await self.release_orphans()

    async def release_orphans(self) -> int:
        """Give back rows that this worker claimed in Postgres but is not sending; returns how many.

        The claims in flight are read before and after the rows. A claim is in flight from before
        its request until after its record, so a row that is in neither reading is an orphan.
        """
        before = self.in_flight.ids()
        rows = await self._store.claimed_by_me()
        orphans = [row for row in rows if row.id not in before and row.id not in self.in_flight]
        if orphans:
            log.warning("orphans_released", count=len(orphans))
            await self._give_back(orphans)
        return len(orphans)

    async def _carry_out(
        self, queue: QueueKey, request: ClaimRequest, acquired_at: float, requested_at: float
    ) -> AttemptTiming:
        claimed = await self._claim(queue, request)
        if isinstance(claimed, NotClaimed):
            return NOT_SENT
        if not await self._may_call(claimed.queue, acquired_at, requested_at):
            await self._returns.put(request)
            return NOT_SENT
        self._observer.claimed(claimed.queue, claimed.waited_s)
        started_at = time.monotonic()
        outcome, is_stopping = await self._send(claimed)
        finished_at = time.monotonic()
        self._notify_listeners(claimed.queue, outcome, started_at)
        try:
            await self._record(claimed, outcome, started_at, finished_at, is_stopping=is_stopping)
        except BaseException as error:
            # Given back as an orphan it would be sent again without being marked ambiguous.
            self.in_flight.retain(request)
            log.warning("outcome_unrecorded", id=str(claimed.id), claim=claimed.claim)
            if not isinstance(error, TimeoutError):
                raise
        if is_stopping:
            raise asyncio.CancelledError
        is_answered = not (isinstance(outcome, Ambiguous) or is_unasked(outcome))
        return AttemptTiming(
            seconds=time.monotonic() - requested_at,
            answered=is_answered,
            call_s=finished_at - started_at,
        )

    def _notify_listeners(self, queue: QueueKey, outcome: Outcome, started_at: float) -> None:
        provider = self._rules.provider_name(queue)
        for listener in self._outcome_listeners:
            listener.on_outcome(queue, provider, outcome, started_at)

    async def _may_call(self, queue: QueueKey, acquired_at: float, requested_at: float) -> bool:
        """Return whether the provider may be called now, after waiting for a new slot if needed.

        The consumer acquired a slot of the provider's rate before the claim. After a late claim
        that slot has passed, and all attempts that waited for the same claim would call at once:
        each acquires a new slot.
        """
        if self._claim_lateness.is_late(time.monotonic() - acquired_at):
            try:
                async with asyncio.timeout(
                    max(0.0, requested_at + STALE_AFTER_S - time.monotonic())
                ):
                    await self._rate_limiter.acquire(queue)
            except TimeoutError:
                return False
        return self._liveness.is_alive() and time.monotonic() - requested_at <= STALE_AFTER_S

    async def _claim(self, queue: QueueKey, request: ClaimRequest) -> ClaimReply:
        """Claim once. If the reply is lost the claim is not repeated: the row is given back."""
        try:
            reply = await self._claims.put(request)
        except StoreUnavailable:
            await self._returns.put(request)
            return NotClaimed()
        if isinstance(reply, NotClaimed) and reply.status is not None:
            self._observer.finished(queue, reply.status, reply.age_s)
            log.info(
                "notification_finished_unsent",
                id=str(request.id),
                queue=str(queue),
                status=reply.status,
            )
        return reply

    async def _send(self, claimed: Claimed) -> tuple[Outcome, bool]:
        """Call the provider; returns its outcome and whether the grace period ended before it."""
        provider = self._rules.provider(claimed.queue)
        if provider is None:
            return Unavailable(code="no_provider", spends=False, is_local=True), False
        envelope = Envelope(
            id=claimed.id,
            claim=claimed.claim,
            queue=claimed.queue,
            recipient=claimed.recipient,
            content=_decode(claimed.content),
        )
        try:
            return await self._time_limit.run(provider.send(envelope)), False
        except TimeoutError:
            return Ambiguous(
                code="timeout", detail=f"no answer in {self._time_limit.seconds:g} s"
            ), False
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # a library cancelled itself, not this task
                return Ambiguous(code="error", detail="CancelledError"), False
            return Ambiguous(code="stopped", detail="the worker stopped before the answer"), True
        except Exception as error:  # noqa: BLE001 a bug in one provider must not stop the others
            # The message may contain the recipient, so only the error's type and place are logged.
            crash = _type_and_place(error)
            log.error("provider_call_raised", id=str(claimed.id), error=crash)  # noqa: TRY400 as above
            return Ambiguous(code="error", detail=type(error).__name__), False

    async def _record(
        self,
        claimed: Claimed,
        outcome: Outcome,
        started_at: float,
        finished_at: float,
        *,
        is_stopping: bool,
    ) -> None:
        """Record the outcome, however long it takes; at most 5 s once the grace period is over."""
        provider = self._rules.provider_name(claimed.queue)
        self._observer.attempted(
            claimed.queue, provider, outcome.name, outcome.code, finished_at - started_at
        )
        decision = self._rules.decide(
            claimed.queue,
            outcome,
            tries=claimed.tries,
            max_tries=claimed.max_tries,
            draw=self._draw(),
        )
        result = attempt_result(claimed, outcome, decision, provider, started_at, finished_at)
        if is_stopping:
            async with asyncio.timeout(RECORD_TIMEOUT_S):
                recorded = await self._results.put(result)
        else:
            recorded = await self._put_result(result)
        self._report(claimed, result, recorded)

    async def _put_result(self, result: AttemptResult) -> Recorded:
        """Write the result. Cancelled meanwhile, it is still written before the error is raised."""
        try:
            return await self._results.put(result)
        except asyncio.CancelledError:
            # The batch leaves out an item whose future was cancelled, so the result is put again.
            # Writing it twice does no harm.
            again = self._results.put(result)
            await asyncio.wait([again], timeout=RECORD_TIMEOUT_S)
            again.cancel()
            raise

    def _report(self, claimed: Claimed, result: AttemptResult, recorded: Recorded) -> None:
        if recorded.late:
            log.warning("outcome_recorded_late", id=str(claimed.id), claim=claimed.claim)
        if recorded.status in WAITING:  # also queued: a repeated result whose retry is due already
            self._observer.retried(claimed.queue, result.outcome)
        elif recorded.status is not None:
            self._observer.finished(claimed.queue, recorded.status, recorded.age_s, result.reason)
        log.info(
            "attempt_finished",
            id=claimed.id,
            claim=claimed.claim,
            queue=claimed.queue,
            outcome=result.outcome,
            code=result.code,
            status=recorded.status,
        )

    async def _write_results(self, results: Sequence[AttemptResult]) -> Sequence[Recorded]:
        now = time.monotonic()
        return await self._store.record(
            [(result, now - result.finished_at_monotonic) for result in results]
        )

    async def _write_returns(self, requests: Sequence[ClaimRequest]) -> Sequence[None]:
        for row in await self._store.give_back(requests):
            if row.status is Status.EXPIRED:
                self._observer.finished(row.queue, row.status, row.age_s)
            else:
                self._observer.released(row.queue, 1)
        return [None] * len(requests)


def attempt_result(
    claimed: Claimed,
    outcome: Outcome,
    decision: Decision,
    provider: str,
    started_at: float,
    finished_at: float,
) -> AttemptResult:
    """Return what the store records of an attempt; the times are of the monotonic clock."""
    match decision:
        case Settle():
            status, spends, after, reason = Status.SENT, True, None, ""
        case Retry():
            status, spends, after, reason = Status.RETRYING, decision.spends, decision.after, ""
        case Fail():
            status, spends, after, reason = Status.FAILED, decision.spends, None, decision.reason
        case _:
            assert_never(decision)
    return AttemptResult(
        id=claimed.id,
        claim=claimed.claim,
        status=status,
        spends=spends,
        after=after,
        reason=reason,
        outcome=outcome.name,
        provider=provider,
        code=_storable(outcome.code, MAX_CODE_LENGTH),
        detail=_storable(outcome.detail, MAX_DETAIL_LENGTH),
        reference=_storable(getattr(outcome, "reference", ""), MAX_REFERENCE_LENGTH),
        waited_s=claimed.waited_s,
        started_at_monotonic=started_at,
        finished_at_monotonic=finished_at,
    )


def _type_and_place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {last.filename}:{last.lineno}"


def _storable(text: str, max_length: int) -> str:
    """Return a provider's text as Postgres can store it: cut, without NUL or lone surrogates."""
    if not text:
        return text
    clean = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    return clean[:max_length]
