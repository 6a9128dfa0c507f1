"""Accept: stores submitted notifications and returns after the commit.

While a queue has room, its new rows are stored for direct publishing: their pointers are published
right after the commit. A relay publishes all other rows once they are due.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from notifier.delivery.commit_delay import CommitDelayEstimator
from notifier.delivery.group_commit import MAX_BATCH, GroupCommit
from notifier.delivery.keyed_batch import KeyedBatch, answer_of, reply_of
from notifier.delivery.replaced import report_replaced
from notifier.domain.errors import (
    IdempotencyKeyInFlight,
    NotifierError,
    Overloaded,
    StoreError,
    StoreRejected,
    StoreUnavailable,
)
from notifier.domain.notification import Status
from notifier.lifecycle import wait
from notifier.ports.acceptor import Suppressed
from notifier.ports.store import NO_TURNS, KeyedInsert

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from notifier.domain.errors import IdempotencyKeyReused
    from notifier.domain.idempotency import IdempotencyKey
    from notifier.domain.notification import NewNotification, NotificationId, QueueKey
    from notifier.ports.acceptor import Refusal, Replayed, Reply
    from notifier.ports.broker import Pointer
    from notifier.ports.heartbeat import FeatureCheck
    from notifier.ports.observer import AcceptObserver
    from notifier.ports.store import AcceptStore, KeyOwner

ESTIMATE_INTERVAL_S: Final = 1.0
MAX_PENDING: Final = 20_000
"""Notifications that may wait to be stored in this process; more are refused at once."""
MAX_COMMIT_DELAY_S: Final = 0.8
"""A submit whose commit would take longer is refused at once, to be retried by the caller:
otherwise every caller would wait until its deadline."""


log = structlog.get_logger(__name__)


class PointerPublisher(Protocol):
    """Publishes the pointers of new rows; implemented by delivery.direct_publish."""

    def reserve(self, wanted: Mapping[QueueKey, int]) -> Mapping[QueueKey, int]:
        """Return how many of the wanted new rows of each queue may be published directly.

        Their places are held until they are enqueued or released.
        """
        ...

    def release(self, reserved: Mapping[QueueKey, int]) -> None:
        """Free reserved places whose rows were not stored."""
        ...

    def enqueue(self, pointers: Sequence[Pointer]) -> None:
        """Publish pointers whose places were reserved and whose rows are committed."""
        ...


class TurnChooser(Protocol):
    """Chooses the turns of new rows; implemented by delivery.turn_choice.TurnChoice."""

    def choose(
        self, items: Sequence[NewNotification], direct: Collection[NotificationId]
    ) -> Mapping[NotificationId, int]:
        """Return the turns of those of these items that are not to be stored in turn 0.

        Those in `direct` are.
        """
        ...


class OneTurn:
    """Implements TurnChooser for a deployment with one tenant: all rows are in turn 0."""

    def choose(
        self, items: Sequence[NewNotification], direct: Collection[NotificationId]
    ) -> Mapping[NotificationId, int]:
        """Return no turn."""
        del items, direct
        return NO_TURNS


class SubmitStep(Protocol):
    """Changes submits right before they are stored, each time that this is tried."""

    async def apply(self, items: Sequence[NewNotification]) -> Sequence[NewNotification]:
        """Return the items in their order and with their ids. Raises StoreError."""
        ...


class Accept:
    """Implements ports.acceptor.Acceptor."""

    def __init__(
        self,
        *,
        store: AcceptStore,
        observer: AcceptObserver,
        publisher: PointerPublisher,
        features: FeatureCheck,
        steps: Sequence[SubmitStep] = (),
        turns: TurnChooser | None = None,
        deadline_s: float,
        max_backlog: int,
    ) -> None:
        self._store = store
        self._steps = steps
        self._observer = observer
        self._publisher = publisher
        self._features = features
        self._turns = turns or OneTurn()
        self._deadline_s = deadline_s
        self._max_backlog = max_backlog
        self._backlog = 0
        self._writing_keys: Mapping[UUID, NewNotification] = {}
        self._commit_delay = CommitDelayEstimator(batch_size=MAX_BATCH)
        self._batches = GroupCommit("accept", self._write, size_of=_size_bytes)

    async def run(self) -> None:
        """Write batches until closed and empty."""
        await self._batches.run()

    def close(self) -> None:
        """Let `run` end once everything is written; nothing may be submitted after."""
        self._batches.close()

    async def watch_backlog(self, stop: asyncio.Event) -> None:
        """Estimate once a second how many rows wait, until `stop`."""
        while not await wait(stop, ESTIMATE_INTERVAL_S):
            try:
                self._backlog = await self._store.estimate_backlog()
                self._observer.waiting_counted(self._backlog, limit=self._max_backlog)
            except StoreError:
                continue  # callers of `submit` see the same error

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Reply | Refusal]:
        refused = {
            item.id: refusal
            for item in items
            if item.features and (refusal := self._features.refusal(item.features))
        }
        if not refused:
            return await self._submit(items)
        allowed = [item for item in items if item.id not in refused]
        replies = iter(await self._submit(allowed) if allowed else ())
        return [refused.get(item.id) or next(replies) for item in items]

    async def _submit(self, items: Sequence[NewNotification]) -> Sequence[Reply | StoreRejected]:
        self._refuse_if_full(len(items))
        started_at = time.monotonic()
        futures = [self._batches.put(item) for item in items]
        try:
            async with asyncio.timeout(self._deadline_s):
                results = [await _reply_or_rejection(future) for future in futures]
        except TimeoutError as error:
            if any(map(self._is_key_in_flight, items)):
                raise IdempotencyKeyInFlight from error
            msg = f"not stored within {self._deadline_s:g} s; some of it may be stored later"
            raise StoreUnavailable(msg) from error
        finally:
            for future in futures:
                future.cancel()
        self._observer.submit_committed(time.monotonic() - started_at)
        return results

    async def earlier(self, key: IdempotencyKey) -> Replayed | IdempotencyKeyReused | None:
        try:
            async with asyncio.timeout(self._deadline_s):
                owner = await self._store.key_owner(key.digest)
        except TimeoutError as error:
            msg = f"no answer within {self._deadline_s:g} s"
            raise StoreUnavailable(msg) from error
        return None if owner is None else answer_of(owner, key)

    def _refuse_if_full(self, new: int) -> None:
        pending = len(self._batches)
        is_slow = pending and self._commit_delay.estimate_s(pending + new) > MAX_COMMIT_DELAY_S
        if is_slow or pending + new > MAX_PENDING:
            msg = "too many notifications wait to be stored"
            raise Overloaded(msg)
        if self._backlog >= self._max_backlog:
            msg = f"about {self._backlog} notifications wait; the limit is {self._max_backlog}"
            raise Overloaded(msg, retry_after_s=30)

    def _is_key_in_flight(self, item: NewNotification) -> bool:
        """Return whether another item with the same key is being written."""
        return item.key is not None and self._writing_keys.get(item.key.digest, item).id != item.id

    async def _write(self, items: Sequence[NewNotification]) -> Sequence[Reply]:
        for step in self._steps:
            items = await step.apply(items)
        if all(item.key is None for item in items):
            await self._store_new(items, keyed=False)
            replies: Sequence[Reply] = [reply_of(item) for item in items]
            new = items
        else:
            batch = KeyedBatch(items)
            self._writing_keys = batch.firsts
            try:
                replies = batch.replies(await self._store_new(batch.written, keyed=True))
            finally:
                self._writing_keys = {}
            new = [
                item
                for item, reply in zip(items, replies, strict=True)
                if isinstance(reply, Status | Suppressed)
            ]
        self._report(new)
        return replies

    def _report(self, new: Sequence[NewNotification]) -> None:
        for queue, count in Counter(item.queue for item in new).items():
            self._observer.accepted(queue, count)
        for item in new:
            if item.suppressed is not None:
                self._observer.finished(item.queue, Status.SUPPRESSED, 0.0, item.suppressed)

    async def _store_new(
        self, items: Sequence[NewNotification], *, keyed: bool
    ) -> Mapping[UUID, KeyOwner]:
        """Store the items and publish those that may be; returns the owners of keys of others."""
        started_at = time.monotonic()
        reserved = self._publisher.reserve(
            Counter(item.queue for item in items if item.status is Status.QUEUED)
        )
        direct = _first_of_each_queue(items, reserved)
        turns = self._turns.choose(items, direct)
        try:
            pointers, owners = await self._insert(items, direct, turns, keyed=keyed)
        except NotifierError:
            self._publisher.release(reserved)
            raise
        await self._end_replaced(items)
        self._commit_delay.record_write(time.monotonic() - started_at)
        self._publisher.enqueue(pointers)
        # Rows that an earlier call stored have no pointer here.
        stored = Counter(pointer.queue for pointer in pointers)
        self._publisher.release({queue: of - stored[queue] for queue, of in reserved.items()})
        return owners

    async def _end_replaced(self, items: Sequence[NewNotification]) -> None:
        """End what these items replace. Without an answer of Postgres recovery.collapser does."""
        newer = [item.id for item in items if item.collapse_key]
        if not newer:
            return
        try:
            ended = await self._store.collapse(newer)
        except StoreError as error:
            log.warning("collapse_failed", reason=str(error))
            return
        report_replaced(self._observer, ended)

    async def _insert(
        self,
        items: Sequence[NewNotification],
        direct: Collection[NotificationId],
        turns: Mapping[NotificationId, int],
        *,
        keyed: bool,
    ) -> KeyedInsert:
        if keyed:
            return await self._store.insert_keyed(items, direct=direct, turns=turns)
        return KeyedInsert(await self._store.insert(items, direct=direct, turns=turns), {})


def _first_of_each_queue(
    items: Sequence[NewNotification], counts: Mapping[QueueKey, int]
) -> set[NotificationId]:
    """Return the ids of the first items of each queue that are due at once, `counts` of them."""
    left = dict(counts)
    first: set[NotificationId] = set()
    for item in items:
        if item.status is Status.QUEUED and left[item.queue]:
            left[item.queue] -= 1
            first.add(item.id)
    return first


def _size_bytes(item: NewNotification) -> int:
    fallback = 0 if item.fallback is None else len(item.fallback.submit)
    return len(item.content) + len(item.metadata) + fallback


async def _reply_or_rejection(future: asyncio.Future[Reply]) -> Reply | StoreRejected:
    try:
        return await future
    except StoreRejected as error:
        return error
