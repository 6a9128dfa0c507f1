"""One attempt: claim, send, decide, record, acknowledge, always in this order.

Rows are claimed and recorded in batches; between the two each is sent by one consumer.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from notifier.delivery.claims import Claims
from notifier.delivery.crash_place import type_and_place
from notifier.delivery.files import HeldFiles
from notifier.delivery.parking import ParkingLot
from notifier.delivery.recorder import Finished, Recorder
from notifier.delivery.release import Releases
from notifier.delivery.templates import TEMPLATED
from notifier.domain.blobs import REFERENCE_MARK
from notifier.domain.breaker import is_unasked
from notifier.domain.features import KNOWN_PARTS
from notifier.domain.liveness import STALE_AFTER_S
from notifier.domain.notification import EndReason
from notifier.domain.outcome import (
    MAX_CODE_LENGTH,
    MAX_DETAIL_LENGTH,
    MAX_REFERENCE_LENGTH,
    Accepted,
    Ambiguous,
    Outcome,
    Refused,
    Unavailable,
)
from notifier.domain.retry import Fail
from notifier.domain.templates import TemplateFault
from notifier.domain.timing import AttemptTiming
from notifier.lifecycle import TimeLimit, uptime_s
from notifier.ports.attempts import EndedCall
from notifier.ports.provider import NO_FILES, Envelope
from notifier.ports.store import AttemptResult, ClaimRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from notifier.delivery.delivery_rules import DeliveryRules
    from notifier.delivery.files import FileLoader
    from notifier.domain.notification import Channel, Claimed, QueueKey
    from notifier.domain.retry import Decision
    from notifier.domain.templates import Parts
    from notifier.ports.attempts import ClaimedRow, HeldPointer, OutcomeJudge, OutcomeListener
    from notifier.ports.controls import HoldSource
    from notifier.ports.heartbeat import Liveness
    from notifier.ports.observer import AttemptObserver
    from notifier.ports.store import AttemptStore
    from notifier.ports.templates import ContentRenderer

RECORD_TIMEOUT_S: Final = 5.0
"""The least time for writing the last results once all attempts have ended."""
OWN_LIMIT_MARGIN_S: Final = 5.0
"""How much later than a provider's own limit the worker's ends a call."""
UNKNOWN: Final = "the content has a part of a later version; a worker of that version can send it"
NOT_SENT: Final = AttemptTiming(seconds=0.0, answered=False)

if TYPE_CHECKING:
    _Rendered = Parts | TemplateFault | Unavailable | None

log = structlog.get_logger(__name__)
_decode = msgspec.json.Decoder(dict[str, object]).decode


class CallTimes(msgspec.Struct, frozen=True):
    """How long the row had been due when the provider was called, and the times of the call.

    The instants are of the monotonic clock.
    """

    waited_s: float
    started_at: float
    finished_at: float

    @property
    def call_s(self) -> float:
        """How long the call took, in seconds."""
        return self.finished_at - self.started_at


class Attempts:
    """Implements ports.attempts.AttemptRunner. All consumers of the worker share its batches."""

    def __init__(
        self,
        *,
        store: AttemptStore,
        files: FileLoader,
        observer: AttemptObserver,
        rules: DeliveryRules,
        liveness: Liveness,
        holds: HoldSource,
        outcome_listeners: Sequence[OutcomeListener],
        judge: OutcomeJudge,
        random: Random,
        send_timeout_s: float,
        contents: ContentRenderer,
    ) -> None:
        self.in_flight: set[ClaimRequest] = set()
        """The claims from before their request until their result or their return is confirmed.

        No claim is in flight twice. One that was sent and cannot be recorded is in flight for good:
        the process that finds this worker dead treats it as Ambiguous.
        """
        self._files = files
        self._observer = observer
        self._rules = rules
        self._liveness = liveness
        self._outcome_listeners = outcome_listeners
        self._judge = judge
        self._random = random
        self._send_timeout_s = send_timeout_s
        self._contents = contents
        self._time_limits: dict[Channel, TimeLimit] = {}
        self._recorder = Recorder(store=store, observer=observer, in_flight=self.in_flight)
        self._releases = Releases(store=store, observer=observer, in_flight=self.in_flight)
        self._parking = ParkingLot(
            store=store,
            observer=observer,
            in_flight=self.in_flight,
            releases=self._releases,
            random=random,
        )
        self._claims = Claims(
            store=store,
            observer=observer,
            in_flight=self.in_flight,
            releases=self._releases,
            parking=self._parking,
            holds=holds,
            rules=rules,
            random=random,
        )

    async def run(self) -> None:
        """Write results and returns until closed and empty."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name="record")
            group.create_task(self._releases.run(), name="give back")
            group.create_task(self._parking.run(), name="park")

    def close(self) -> None:
        """Let `run` end once everything is written; no attempt may start after."""
        self._recorder.close()
        self._releases.close()
        self._parking.close()

    async def wait_until_ready(self) -> None:
        # A claim made before would only have to be given back.
        await self._liveness.wait_until_alive()

    async def claim(
        self, pointers: Sequence[HeldPointer], *, is_urgent: bool
    ) -> Sequence[ClaimedRow]:
        return await self._claims.claim(pointers, is_urgent=is_urgent)

    async def attempt(self, row: ClaimedRow) -> AttemptTiming:
        rendered = None
        if row.claimed.content.startswith(TEMPLATED):
            rendered = await self._rendered(row)
        is_sent = not isinstance(rendered, TemplateFault | Unavailable)
        if is_sent and REFERENCE_MARK in row.claimed.content:
            return await self._attempt_with_files(row, rendered)
        return await self._attempt(row, None, rendered)

    async def _attempt_with_files(self, row: ClaimedRow, rendered: _Rendered) -> AttemptTiming:
        """Load the files of the notification, as long as its claim is young enough, and send it."""
        copies = self._rules.file_copies(row.claimed.queue)
        timeout_s = STALE_AFTER_S - (uptime_s() - row.requested_at)
        try:
            files = await self._files.load(row.claimed, copies=copies, timeout_s=timeout_s)
        except asyncio.CancelledError:
            self.abandon([row])
            raise
        try:
            return await self._attempt(row, files, rendered)
        finally:
            if isinstance(files, HeldFiles):
                files.release()

    async def _attempt(
        self, row: ClaimedRow, files: HeldFiles | Outcome | None, rendered: _Rendered
    ) -> AttemptTiming:
        # No await between this check and the call: others may take the row over after it.
        claim_age_s = uptime_s() - row.requested_at
        if not self._liveness.is_alive() or claim_age_s > STALE_AFTER_S:
            await self._releases.give_back([row])
            return NOT_SENT
        parked_s = self._rules.parking_s(row.claimed)
        if parked_s is not None:
            await self._park(row, parked_s)
            return NOT_SENT
        started_at = time.monotonic()
        claimed = row.claimed
        waited_s = claimed.waited_s + claim_age_s
        self._observer.claimed(claimed.queue, waited_s)
        if isinstance(rendered, TemplateFault):
            self._fail_unrendered(row, rendered, CallTimes(waited_s, started_at, started_at))
            return NOT_SENT
        outcome, is_stopping = await self._send(claimed, files, rendered)
        times = CallTimes(waited_s, started_at, time.monotonic())
        self._finish(row, outcome, times)
        if is_stopping:
            raise asyncio.CancelledError
        is_answered = isinstance(outcome, Accepted) or not (  # the first alone is cheap
            isinstance(outcome, Ambiguous) or is_unasked(outcome)
        )
        return AttemptTiming(seconds=times.call_s, answered=is_answered)

    async def _park(self, row: ClaimedRow, after_s: float) -> None:
        """Park a row. If that is cancelled or fails, the row is given back."""
        try:
            await self._parking.park(row, after_s)
        except BaseException:
            self.abandon([row])
            raise

    async def give_back(
        self, rows: Sequence[ClaimedRow], pointers: Sequence[HeldPointer] = ()
    ) -> None:
        await self._releases.give_back(rows, pointers)

    def abandon(self, rows: Sequence[ClaimedRow]) -> None:
        self._releases.add_orphans(row.request for row in rows)

    async def finish_recording(self, deadline: float) -> None:
        """After the last attempt, wait for its record until `deadline`, and at least 5 s.

        `deadline` is an instant of the monotonic clock. Results that are not written then are
        abandoned: see recorder.py.
        """
        await self._recorder.finish(max(RECORD_TIMEOUT_S, deadline - time.monotonic()))

    async def release_orphans(self) -> int:
        """Give back the claims that nothing here will begin; returns how many were confirmed.

        Returns when Postgres has answered. Raises StoreUnavailable once `run` has ended.
        """
        return await self._releases.release_orphans()

    async def _rendered(self, row: ClaimedRow) -> _Rendered:
        """Render the content of a row. If that is cancelled, the row is given back."""
        try:
            return await self._contents.render(row.claimed)
        except asyncio.CancelledError:
            self.abandon([row])
            raise

    async def _send(
        self,
        claimed: Claimed,
        files: HeldFiles | Outcome | None,
        rendered: Parts | Unavailable | None,
    ) -> tuple[Outcome, bool]:
        """Call the provider; returns its outcome and whether the grace period ended before it.

        `files` may be the outcome of a notification whose files cannot be loaded. `rendered` is the
        content of a row with a template, None for one without.
        """
        provider = self._rules.provider(claimed.queue)
        if provider is None:
            return Unavailable(code="no_provider", is_local=True), False
        if isinstance(rendered, Unavailable):
            return rendered, False
        try:
            content = _decode(claimed.content) if rendered is None else rendered
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Refused(code="content_unreadable", is_local=True), False
        if not content.keys() <= KNOWN_PARTS:
            return Unavailable(code="feature_unknown", detail=UNKNOWN, is_local=True), False
        if files is not None and not isinstance(files, HeldFiles):
            return files, False
        envelope = Envelope(
            id=claimed.id,
            claim=claimed.claim,
            queue=claimed.queue,
            recipient=claimed.recipient,
            content=content,
            files=NO_FILES if files is None else files.data,
        )
        time_limit = self._time_limit(claimed.queue)
        try:
            outcome = await time_limit.run(provider.send(envelope))
            # A provider that was cancelled may still know that the message was accepted.
            task = asyncio.current_task()
            return outcome, task is not None and task.cancelling() > 0
        except TimeoutError:
            return Ambiguous(code="timeout", detail=f"no answer in {time_limit.seconds:g} s"), False
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # a library cancelled itself, not this task
                return Ambiguous(code="error", detail="CancelledError"), False
            return Ambiguous(code="stopped", detail="the worker stopped before the answer"), True
        except Exception as error:  # noqa: BLE001 a bug in one provider must not stop the others
            # The message may contain the recipient, so only the error's type and place are logged.
            crash = type_and_place(error)
            log.error("provider_call_raised", id=str(claimed.id), error=crash)  # noqa: TRY400 as above
            return Ambiguous(code="error", detail=type(error).__name__), False

    def _time_limit(self, queue: QueueKey) -> TimeLimit:
        """The limit of a call: the worker's, or the provider's own with a margin if longer."""
        limit = self._time_limits.get(queue.channel)
        if limit is None:
            longest_s = self._rules.longest_send_s(queue)
            own_s = longest_s + OWN_LIMIT_MARGIN_S if longest_s else 0.0
            limit = self._time_limits[queue.channel] = TimeLimit(max(self._send_timeout_s, own_s))
        return limit

    def _fail_unrendered(self, row: ClaimedRow, fault: TemplateFault, times: CallTimes) -> None:
        """Hand over that a row fails. Its provider was not asked: no breaker hears of it."""
        outcome = Refused(code=f"render_{fault.kind}", detail=str(fault), is_local=True)
        decision = Fail(EndReason.RENDER, spends=False)
        provider = self._rules.provider_name(row.claimed.queue)
        result = attempt_result(row.claimed, outcome, decision, provider, times)
        self._recorder.put(Finished(row, result))

    def _finish(self, row: ClaimedRow, outcome: Outcome, times: CallTimes) -> None:
        """Report a call that ended, and hand its result over to be recorded."""
        claimed = row.claimed
        provider = self._rules.provider_name(claimed.queue)
        call = EndedCall(
            queue=claimed.queue,
            provider=provider,
            outcome=outcome,
            started_at=times.started_at,
            recipient=claimed.recipient,
            is_repeat=claimed.unspent > 0,
        )
        for listener in self._outcome_listeners:
            listener.on_outcome(call)
        if isinstance(outcome, Refused):
            outcome = self._judge.judge(provider, outcome)
        self._observer.attempted(claimed.queue, provider, outcome.name, outcome.code, times.call_s)
        if isinstance(outcome, Accepted) and outcome.refused_copies:
            self._observer.copies_refused(claimed.queue, outcome.refused_copies)
        decision = self._rules.decide(claimed, outcome, self._random.random())
        result = attempt_result(claimed, outcome, decision, provider, times)
        self._recorder.put(Finished(row, result))


def attempt_result(
    claimed: Claimed,
    outcome: Outcome,
    decision: Decision,
    provider: str,
    times: CallTimes,
) -> AttemptResult:
    """Return what the store records of an attempt."""
    return AttemptResult(
        id=claimed.id,
        claim=claimed.claim,
        status=decision.status,
        spends=decision.spends,
        after=decision.after,
        reason=decision.reason,
        outcome=outcome.name,
        provider=provider,
        code=_storable(outcome.code, MAX_CODE_LENGTH),
        detail=_storable(outcome.detail, MAX_DETAIL_LENGTH),
        reference=_storable(getattr(outcome, "reference", ""), MAX_REFERENCE_LENGTH),
        http_status=outcome.http_status,
        waited_s=times.waited_s,
        started_at_monotonic=times.started_at,
        finished_at_monotonic=times.finished_at,
    )


def _storable(text: str, max_length: int) -> str:
    """Return a provider's text as Postgres can store it: cut, without NUL or lone surrogates."""
    if not text:
        return text
    clean = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    return clean[:max_length]
