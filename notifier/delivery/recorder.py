"""Records the results of attempts in batches. No consumer waits for a record.

A message is acknowledged only after the results of all its pointers are recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog

from notifier.delivery.batch_write import MAX_BACKOFF_S, MIN_BACKOFF_S, write_batch
from notifier.delivery.release import claim_request
from notifier.domain.errors import StoreRejected, StoreUnavailable
from notifier.domain.notification import WAITING
from notifier.lifecycle import Backoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.delivery.in_flight import InFlightClaims
    from notifier.ports.attempts import ClaimedRow
    from notifier.ports.observer import AttemptObserver
    from notifier.ports.store import AttemptResult, AttemptStore, ClaimRequest, Recorded

MAX_BATCH: Final = 500
FULL_BATCH: Final = 128
"""Results from this number on are written at once; fewer wait until MIN_INTERVAL_S is over."""
MIN_INTERVAL_S: Final = 0.004
"""The least time between the starts of two writes. A statement costs Postgres and this process as
much as ten rows, and no caller waits for it: after a pause a result is written at once."""

log = structlog.get_logger(__name__)


class Finished(NamedTuple):
    """An attempt that ended, with what is to be recorded of it."""

    row: ClaimedRow
    result: AttemptResult


class Recorder:
    """A queue of results and the one task that writes them."""

    def __init__(
        self, *, store: AttemptStore, observer: AttemptObserver, in_flight: InFlightClaims
    ) -> None:
        self._store = store
        self._observer = observer
        self._in_flight = in_flight
        # Bound once: the lazy logger costs four times as much per attempt.
        self._log = log.bind()
        self._waiting: deque[Finished] = deque()
        self._writing: list[Finished] = []
        self._wake = asyncio.Event()
        self._is_closed = False
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._began_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def put(self, finished: Finished) -> None:
        """Record a result, whenever Postgres allows it."""
        self._waiting.append(finished)
        self._is_empty.clear()
        self._wake.set()

    async def run(self) -> None:
        """Write results until closed and empty."""
        self._task = asyncio.current_task()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._collect()
                self._writing = self._next_batch()
                await self._write(self._writing)
                self._writing = []
            self._is_empty.set()
            if self._is_closed:
                return

    def close(self) -> None:
        """Let `run` end once everything is written; nothing may be put after."""
        self._is_closed = True
        self._wake.set()

    async def finish(self, timeout_s: float) -> None:
        """Wait until everything is written, `timeout_s` at most, and abandon the rest.

        What is abandoned was sent: it stays claimed, and the process that finds this worker dead
        treats it as Ambiguous.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_empty.wait()
        except TimeoutError:
            if self._task is not None:
                self._task.cancel()
            for finished in (*self._writing, *self._waiting):
                if self._in_flight.has(_request(finished)):  # else it is recorded
                    self._retain(finished)
            self._waiting.clear()
            self._is_empty.set()

    async def _collect(self) -> None:
        """Let more results come in while the last write has only just begun."""
        wait_s = self._began_at + MIN_INTERVAL_S - time.monotonic()
        if wait_s > 0 and len(self._waiting) < FULL_BATCH and not self._is_closed:
            await asyncio.sleep(wait_s)
        self._began_at = time.monotonic()

    def _next_batch(self) -> list[Finished]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]

    async def _write(self, batch: Sequence[Finished]) -> None:
        """Write a batch; what may not have been written is written again: it is idempotent."""
        backoff = Backoff(MIN_BACKOFF_S, MAX_BACKOFF_S)
        while batch:
            replies = await write_batch("record", batch, self._record)
            unknown: list[Finished] = []
            for finished, reply in zip(batch, replies, strict=True):
                if isinstance(reply, StoreUnavailable):
                    unknown.append(finished)
                elif isinstance(reply, StoreRejected):
                    await self._record_without_texts(finished, reply)
                else:
                    self._settle(finished, reply)
            if unknown:
                reason = "Postgres is unavailable"
                log.warning("batch_retried", batch="record", size=len(unknown), reason=reason)
                await asyncio.sleep(backoff.next_s())
            batch = self._writing = unknown

    async def _record(self, batch: Sequence[Finished]) -> Sequence[Recorded]:
        now = time.monotonic()
        return await self._store.record(
            [(result, now - result.finished_at_monotonic) for _, result in batch]
        )

    async def _record_without_texts(self, finished: Finished, error: StoreRejected) -> None:
        """Record a result that Postgres rejects without the provider's texts, the likely cause."""
        log.warning("result_rejected", id=str(finished.result.id), reason=str(error))
        bare = msgspec.structs.replace(finished.result, code="", detail="", reference="")
        while True:
            (reply,) = await write_batch("record", [finished._replace(result=bare)], self._record)
            if not isinstance(reply, StoreUnavailable):
                break
            await asyncio.sleep(MAX_BACKOFF_S)
        if isinstance(reply, StoreRejected):
            self._retain(finished)
            finished.row.held.settle()
        else:
            self._settle(finished, reply)

    def _retain(self, finished: Finished) -> None:
        """Keep the claim: given back as an orphan it would be sent again, unmarked."""
        claimed = finished.row.claimed
        self._in_flight.retain(_request(finished))
        log.warning("outcome_unrecorded", id=str(claimed.id), claim=claimed.claim)

    def _settle(self, finished: Finished, recorded: Recorded) -> None:
        row, result = finished
        self._report(row, result, recorded)
        self._in_flight.remove(_request(finished))
        row.held.settle()

    def _report(self, row: ClaimedRow, result: AttemptResult, recorded: Recorded) -> None:
        claimed = row.claimed
        if recorded.late:
            log.warning("outcome_recorded_late", id=str(claimed.id), claim=claimed.claim)
        if recorded.status in WAITING:  # also queued: a repeated result whose retry is due already
            self._observer.retried(claimed.queue, result.outcome)
        elif recorded.status is not None:
            self._observer.finished(claimed.queue, recorded.status, recorded.age_s, result.reason)
        self._log.info(
            "attempt_finished",
            id=claimed.id,
            claim=claimed.claim,
            queue=claimed.queue,
            outcome=result.outcome,
            code=result.code,
            status=recorded.status,
        )


def _request(finished: Finished) -> ClaimRequest:
    """The request that claimed the row."""
    return claim_request(finished.row.held)
