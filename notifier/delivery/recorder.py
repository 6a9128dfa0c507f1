"""Records the results of attempts in batches. No consumer waits for a record.

A message is acknowledged only after the results of all its pointers are recorded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from notifier.delivery.batch_write import MAX_BACKOFF_S, MIN_BACKOFF_S, write_batch
from notifier.domain.errors import StoreRejected
from notifier.domain.notification import WAITING
from notifier.lifecycle import Backoff
from notifier.ports.store import Recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.ports.attempts import ClaimedRow
    from notifier.ports.observer import AttemptObserver
    from notifier.ports.store import AttemptResult, AttemptStore, ClaimRequest

MAX_BATCH: Final = 500
FULL_BATCH: Final = 128
"""Results from this number on are written at once; fewer wait until MIN_INTERVAL_S is over."""
MIN_INTERVAL_S: Final = 0.004
"""The least time between the starts of two writes. A statement costs Postgres and this process as
much as ten rows, and no caller waits for it: after a pause a result is written at once."""

log = structlog.get_logger(__name__)


class Finished(msgspec.Struct, frozen=True, eq=False):
    """An attempt that ended, with what is to be recorded of it."""

    row: ClaimedRow
    result: AttemptResult


class Recorder:
    """A queue of results and the one task that writes them."""

    def __init__(
        self, *, store: AttemptStore, observer: AttemptObserver, in_flight: set[ClaimRequest]
    ) -> None:
        self._store = store
        self._observer = observer
        self._in_flight = in_flight
        # Asked once: a line below the level still costs its arguments, for each attempt.
        self._logs_attempts = log.is_enabled_for(logging.INFO)
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
        if not self._waiting:
            self._is_empty.clear()
            self._wake.set()
        self._waiting.append(finished)

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
                if finished.row.request in self._in_flight:  # else it is recorded
                    _log_unrecorded(finished)
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
        """Write a batch; what may not have been written is written again: it is idempotent.

        A result that Postgres rejects is written again without the provider's texts, the likely
        cause.
        """
        backoff = Backoff(MIN_BACKOFF_S, MAX_BACKOFF_S)
        while batch:
            replies = await write_batch("record", batch, self._record)
            again: list[Finished] = []
            reason = ""
            for finished, reply in zip(batch, replies, strict=True):
                if isinstance(reply, Recorded):
                    self._settle(finished, reply)
                elif isinstance(reply, StoreRejected):
                    again += self._without_texts(finished, reply)
                else:
                    again.append(finished)
                    reason = str(reply)
            batch = self._writing = again
            if reason:
                log.warning("batch_retried", batch="record", size=len(again), reason=reason)
                await asyncio.sleep(backoff.next_s())

    async def _record(self, batch: Sequence[Finished]) -> Sequence[Recorded]:
        now = time.monotonic()
        return await self._store.record(
            [(item.result, now - item.result.finished_at_monotonic) for item in batch]
        )

    def _without_texts(self, finished: Finished, error: StoreRejected) -> list[Finished]:
        """Return what to write instead of a rejected result; nothing if that was rejected too.

        Its claim then stays in flight for good: given back, the row would be sent again, unmarked.
        """
        log.warning("result_rejected", id=str(finished.result.id), reason=str(error))
        bare = msgspec.structs.replace(finished.result, code="", detail="", reference="")
        if bare != finished.result:
            return [Finished(finished.row, bare)]
        _log_unrecorded(finished)
        finished.row.held.settle()
        return []

    def _settle(self, finished: Finished, recorded: Recorded) -> None:
        row, result = finished.row, finished.result
        claimed = row.claimed
        self._in_flight.discard(row.request)
        row.held.settle()
        if recorded.late:
            log.warning("outcome_recorded_late", id=str(claimed.id), claim=claimed.claim)
        if recorded.status in WAITING:  # also queued: a repeated result whose retry is due already
            self._observer.retried(claimed.queue, result.outcome)
        elif recorded.status is not None:
            self._observer.finished(claimed.queue, recorded.status, recorded.age_s, result.reason)
        if self._logs_attempts:
            log.info(
                "attempt_finished",
                id=claimed.id,
                claim=claimed.claim,
                queue=claimed.queue,
                outcome=result.outcome,
                code=result.code,
                status=recorded.status,
            )


def _log_unrecorded(finished: Finished) -> None:
    claimed = finished.row.claimed
    log.warning("outcome_unrecorded", id=str(claimed.id), claim=claimed.claim)
