"""One attempt: claim, send, decide, record, acknowledge. In this order, whatever happens."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

import msgspec
import structlog

from notifier.delivery.group_commit import GroupCommit, WhenUnknown
from notifier.delivery.lateness import LatenessDetector
from notifier.domain.breaker import is_unasked
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Claimed, Status
from notifier.domain.outcome import (
    MAX_CODE_LENGTH,
    MAX_DETAIL_LENGTH,
    MAX_REFERENCE_LENGTH,
    Ambiguous,
    Outcome,
    Unavailable,
)
from notifier.domain.retry import Decision, Fail, OnAmbiguous, Retry, RetryPolicy, Settle, decide
from notifier.domain.timing import AttemptTiming
from notifier.lifecycle import TimeLimit
from notifier.ports.provider import Envelope
from notifier.ports.store import ClaimRequest, NotClaimed, Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notifier.delivery.in_flight import InFlightClaims
    from notifier.domain.notification import Channel, Priority, QueueKey
    from notifier.ports.broker import Delivery, Pointer
    from notifier.ports.heartbeat import Liveness
    from notifier.ports.observer import Observer
    from notifier.ports.provider import Provider
    from notifier.ports.store import ClaimAnswer, Recorded, Store

STALE_S: Final = 4.0
"""No provider call begins when its claim, or this process's last heartbeat, was asked for longer
ago than this: others may think us dead."""
RECORD_WITHIN_S: Final = 5.0
"""How long a known outcome may take to be written after the grace is over."""
NOT_SENT: Final = AttemptTiming(seconds=0.0, answered=False)

log = structlog.get_logger(__name__)
_decode = msgspec.json.Decoder(dict[str, object]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How a channel is sent: its provider, and what to do when nobody knows whether it was sent."""

    provider: Provider
    on_ambiguous: OnAmbiguous


Heard = Callable[["QueueKey", str, Outcome, float], None]
"""Told of every provider call that ended: queue, provider, outcome, and when it began."""


def _nobody_listens(queue: QueueKey, provider: str, outcome: Outcome, started_at: float) -> None:
    del queue, provider, outcome, started_at


NextTurn = Callable[["QueueKey"], Awaitable[None]]
"""Returns when the provider of the queue may be called once more."""


async def _any_time(queue: QueueKey) -> None:
    del queue


class Attempts:
    """Implements ports.attempts.AttemptRunner. All consumers of the worker share its batches."""

    def __init__(
        self,
        *,
        store: Store,
        observer: Observer,
        inflight: InFlightClaims,
        routes: Mapping[Channel, Route],
        policies: Mapping[Priority, RetryPolicy],
        liveness: Liveness,
        draw: Callable[[], float],
        send_timeout_s: float,
        on_outcome: Heard = _nobody_listens,
        next_turn: NextTurn = _any_time,
    ) -> None:
        self._store = store
        self._observer = observer
        self._inflight = inflight
        self._routes = routes
        self._policies = policies
        self._liveness = liveness
        self._draw = draw
        self._time_limit = TimeLimit(send_timeout_s)
        self._heard = on_outcome
        self._next_turn = next_turn
        self._claim_wait = LatenessDetector()
        self._claims = GroupCommit("claim", store.claim, when_unknown=WhenUnknown.FAIL)
        self._results = GroupCommit("record", self._write, when_unknown=WhenUnknown.REPEAT)
        self._returns = GroupCommit("give_back", self._return, when_unknown=WhenUnknown.REPEAT)

    async def run(self) -> None:
        """Write the batches until `close` was called and all is written."""
        async with asyncio.TaskGroup() as group:
            for batches in (self._claims, self._results, self._returns):
                group.create_task(batches.run(), name=f"batch:{batches.name}")

    def close(self) -> None:
        """No more attempts will begin: write what is left and end."""
        for batches in (self._claims, self._results, self._returns):
            batches.close()

    async def attempt(self, delivery: Delivery, ack: Callable[[Delivery], None]) -> AttemptTiming:
        """Carry out one attempt and settle its message.

        Cancelled during the provider's call it records Ambiguous itself before it ends; cancelled
        elsewhere it leaves the message unacked and the row to the release of orphans.
        """
        pointer = delivery.pointer
        ask = ClaimRequest(id=pointer.id, claim=pointer.claim)
        turn_at = time.monotonic()
        await self._liveness.wait_until_alive()  # to claim before would only be to give back
        asked_at = time.monotonic()
        if self._inflight.has(ask):  # a copy: the row is the other's, to record or to give back
            ack(delivery)
            return NOT_SENT
        self._inflight.enter(ask)
        try:
            timing = await self._carry_out(pointer.queue, ask, turn_at, asked_at)
            ack(delivery)
        finally:
            self._inflight.leave(ask)
        return timing

    async def give_back_pointers(self, pointers: Sequence[Pointer]) -> None:
        """Make due again, unspent, what a lane buffered. Returns when that is confirmed."""
        await self._give_back(
            [ClaimRequest(id=one.id, claim=one.claim, is_buffered=True) for one in pointers]
        )

    async def _give_back(self, asks: Sequence[ClaimRequest]) -> None:
        waiters = [self._returns.put(ask) for ask in asks]
        try:
            for waiter in waiters:
                await waiter
        finally:
            for waiter in waiters:
                waiter.cancel()

    async def release_the_last(self) -> None:
        """With no attempt left: once no claim is on its way any more, give back what is ours."""
        await self._claims.settled()
        await self.release_orphans()

    async def release_orphans(self) -> int:
        """Give back what Postgres believes we send and we do not; how many.

        The set is looked at before and after the rows are read: an id enters it before its claim
        is asked and leaves it after its record, so a row that is in neither is nobody's.
        """
        before = self._inflight.ids()
        rows = await self._store.claimed_by_me()
        orphans = [row for row in rows if row.id not in before and row.id not in self._inflight]
        if orphans:
            log.warning("orphans_released", count=len(orphans))
            await self._give_back(orphans)
        return len(orphans)

    # ---- the steps ------------------------------------------------------------------------------

    async def _carry_out(
        self, queue: QueueKey, ask: ClaimRequest, turn_at: float, asked_at: float
    ) -> AttemptTiming:
        answer = await self._claim(queue, ask)
        if isinstance(answer, NotClaimed):
            return NOT_SENT
        if not await self._may_call(answer.queue, turn_at, asked_at):
            await self._returns.put(ask)
            return NOT_SENT
        self._observer.claimed(answer.queue, answer.waited_s)
        started_at = time.monotonic()
        outcome, is_stopping = await self._send(answer)
        finished_at = time.monotonic()
        self._heard(answer.queue, self._provider_name(answer.queue), outcome, started_at)
        try:
            await self._record(answer, outcome, started_at, finished_at, is_stopping=is_stopping)
        except BaseException as error:
            self._inflight.keep(ask)  # given back as an orphan it would be sent once more, unmarked
            log.warning("outcome_unrecorded", id=str(answer.id), claim=answer.claim)
            if not isinstance(error, TimeoutError):
                raise
        if is_stopping:
            raise asyncio.CancelledError
        is_answered = not (isinstance(outcome, Ambiguous) or is_unasked(outcome))
        return AttemptTiming(seconds=time.monotonic() - asked_at, answered=is_answered)

    async def _may_call(self, queue: QueueKey, turn_at: float, asked_at: float) -> bool:
        """Whether it is our turn still, or again, while others take us for alive.

        A turn is for a call now: those who waited with a late claim would all call at once.
        """
        if self._claim_wait.is_late(time.monotonic() - turn_at):
            try:
                async with asyncio.timeout(max(0.0, asked_at + STALE_S - time.monotonic())):
                    await self._next_turn(queue)
            except TimeoutError:
                return False
        return self._liveness.is_alive() and time.monotonic() - asked_at <= STALE_S

    async def _claim(self, queue: QueueKey, ask: ClaimRequest) -> ClaimAnswer:
        """Ask once. If the answer is lost it is not asked again: the row is given back instead."""
        try:
            answer = await self._claims.put(ask)
        except StoreUnavailable:
            await self._returns.put(ask)
            return NotClaimed()
        if isinstance(answer, NotClaimed) and answer.status is not None:
            self._observer.finished(queue, answer.status, answer.age_s)
            log.info(
                "notification_finished_unsent",
                id=str(ask.id),
                queue=str(queue),
                status=answer.status,
            )
        return answer

    async def _send(self, claimed: Claimed) -> tuple[Outcome, bool]:
        """The provider's answer, and whether the grace ended before it came."""
        route = self._routes.get(claimed.queue.channel)
        if route is None:
            return Unavailable(code="no_provider", spends=False, is_local=True), False
        envelope = Envelope(
            id=claimed.id,
            claim=claimed.claim,
            queue=claimed.queue,
            recipient=claimed.recipient,
            content=_decode(claimed.content),
        )
        try:
            return await self._time_limit.run(route.provider.send(envelope)), False
        except TimeoutError:
            return Ambiguous(
                code="timeout", detail=f"no answer in {self._time_limit.seconds:g} s"
            ), False
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # a library's own cancel, not ours
                return Ambiguous(code="error", detail="CancelledError"), False
            return Ambiguous(code="stopped", detail="the worker stopped before the answer"), True
        except Exception as error:  # noqa: BLE001 a bug in one sender must not stop the others
            # Its own words may hold the recipient: only its kind and place are logged.
            crash = _kind_and_place(error)
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
        """Write it down, whatever that takes; once the grace is over, within 5 s."""
        provider = self._provider_name(claimed.queue)
        self._observer.attempted(
            claimed.queue, provider, outcome.name, outcome.code, finished_at - started_at
        )
        decision = self._decide(claimed, outcome)
        result = _result(claimed, outcome, decision, provider, started_at, finished_at)
        if is_stopping:
            async with asyncio.timeout(RECORD_WITHIN_S):
                recorded = await self._results.put(result)
        else:
            recorded = await self._written(result)
        self._tell(claimed, result, recorded)

    async def _written(self, result: Result) -> Recorded:
        """Have it written. Cancelled meanwhile it ends as cancelled, but only once it is written.

        Then it is put anew, for at most 5 s: a batch leaves out what nobody waits for. What was
        written already stays as it is.
        """
        try:
            return await self._results.put(result)
        except asyncio.CancelledError:
            again = self._results.put(result)
            await asyncio.wait([again], timeout=RECORD_WITHIN_S)
            again.cancel()
            raise

    def _decide(self, claimed: Claimed, outcome: Outcome) -> Decision:
        route = self._routes.get(claimed.queue.channel)
        return decide(
            outcome,
            tries=claimed.tries,
            max_tries=claimed.max_tries,
            policy=self._policies[claimed.queue.priority],
            on_ambiguous=route.on_ambiguous if route else OnAmbiguous.RESEND,
            draw=self._draw(),
        )

    def _provider_name(self, queue: QueueKey) -> str:
        route = self._routes.get(queue.channel)
        return route.provider.name if route else "none"

    # ---- telling --------------------------------------------------------------------------------

    def _tell(self, claimed: Claimed, result: Result, recorded: Recorded) -> None:
        if recorded.late:
            log.warning("outcome_recorded_late", id=str(claimed.id), claim=claimed.claim)
        if recorded.status is Status.RETRYING:
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

    # ---- the batches ----------------------------------------------------------------------------

    async def _write(self, results: Sequence[Result]) -> Sequence[Recorded]:
        now = time.monotonic()
        return await self._store.record(
            [(result, now - result.finished_at_monotonic) for result in results]
        )

    async def _return(self, asks: Sequence[ClaimRequest]) -> Sequence[None]:
        for row in await self._store.give_back(asks):
            if row.status is Status.EXPIRED:
                self._observer.finished(row.queue, row.status, row.age_s)
            else:
                self._observer.released(row.queue, 1)
        return [None] * len(asks)


def _result(
    claimed: Claimed,
    outcome: Outcome,
    decision: Decision,
    provider: str,
    started_at: float,
    finished_at: float,
) -> Result:
    match decision:
        case Settle():
            status, spends, after, reason = Status.SENT, True, None, ""
        case Retry():
            status, spends, after, reason = Status.RETRYING, decision.spends, decision.after, ""
        case Fail():
            status, spends, after, reason = Status.FAILED, decision.spends, None, decision.reason
        case _:
            assert_never(decision)
    return Result(
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


def _kind_and_place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {last.filename}:{last.lineno}"


def _storable(text: str, most: int) -> str:
    """What a provider said, as Postgres can hold it: bounded, no NUL, no lone surrogates."""
    if not text:
        return text
    clean = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    return clean[:most]
