"""Accept: store a submit, committed, before the caller hears of it; then let it be published.

Where nothing waits before it and the broker has room, a row is stored as taken already and its
pointer is handed to the relay; else it is due, and the relays are woken.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from notifier.delivery.commit_delay import CommitDelayEstimator
from notifier.delivery.group_commit import MAX_BATCH, GroupCommit, WhenUnknown
from notifier.domain.errors import NotifierError, Overloaded, StoreRejected, StoreUnavailable
from notifier.domain.notification import Status
from notifier.lifecycle import wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notifier.delivery.relay import Relays
    from notifier.domain.notification import NewNotification, NotificationId, QueueKey
    from notifier.ports.observer import Observer
    from notifier.ports.store import Store

ESTIMATE_EVERY_S: Final = 1.0
MAX_PENDING: Final = 20_000
"""Notifications waiting to be stored in this process; more are refused at once."""
MAX_COMMIT_DELAY_S: Final = 0.8
"""What would wait longer for its commit is refused at once, and told to come back: to take it would
only be to let all wait for the deadline."""


class Accept:
    """Implements ports.store.Acceptor."""

    def __init__(
        self,
        *,
        store: Store,
        observer: Observer,
        relays: Relays,
        deadline_s: float,
        max_backlog: int,
    ) -> None:
        self._store = store
        self._observer = observer
        self._relays = relays
        self._deadline_s = deadline_s
        self._max_backlog = max_backlog
        self._backlog = 0
        self._foreseen = CommitDelayEstimator(most=MAX_BATCH)
        self._batches = GroupCommit(
            "accept", self._write, when_unknown=WhenUnknown.REPEAT, weigh=_bytes
        )

    async def run(self) -> None:
        """Write the batches until `close` was called and all is written."""
        await self._batches.run()

    def close(self) -> None:
        """No more will be submitted: write what is left and end."""
        self._batches.close()

    async def watch_backlog(self, stop: asyncio.Event) -> None:
        """Estimate once a second how many rows wait."""
        while not await wait(stop, ESTIMATE_EVERY_S):
            try:
                self._backlog = await self._store.estimate_backlog()
                self._observer.waiting_counted(self._backlog, limit=self._max_backlog)
            except StoreUnavailable:
                continue  # accept itself says so to the callers

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Status | StoreRejected]:
        """Store all; see ports.store.Acceptor."""
        self._refuse_if_full(len(items))
        started_at = time.monotonic()
        waiters = [self._batches.put(item) for item in items]
        try:
            async with asyncio.timeout(self._deadline_s):
                answers = [await _answer(waiter) for waiter in waiters]
        except TimeoutError as error:
            msg = f"not stored within {self._deadline_s:g} s; some of it may be"
            raise StoreUnavailable(msg) from error
        finally:
            for waiter in waiters:
                waiter.cancel()
        self._observer.submit_committed(time.monotonic() - started_at)
        return answers

    def _refuse_if_full(self, more: int) -> None:
        waiting = len(self._batches)
        is_slow = waiting and self._foreseen.of(waiting + more) > MAX_COMMIT_DELAY_S
        if is_slow or waiting + more > MAX_PENDING:
            msg = "too many notifications wait to be stored"
            raise Overloaded(msg)
        if self._backlog >= self._max_backlog:
            msg = f"about {self._backlog} notifications wait; the limit is {self._max_backlog}"
            raise Overloaded(msg, retry_after_s=30)

    async def _write(self, items: Sequence[NewNotification]) -> Sequence[Status]:
        began = time.monotonic()
        admitted = self._relays.admit(
            Counter(item.queue for item in items if item.status is Status.QUEUED)
        )
        taken = _first_of_each(items, admitted)
        try:
            pointers = await self._store.insert(items, taken=taken)
        except NotifierError:
            self._relays.withdraw(admitted)
            raise
        self._foreseen.wrote(time.monotonic() - began)
        self._relays.hand_over(pointers)
        self._relays.wake({item.queue.priority for item in items if item.id not in taken})
        for queue, count in Counter(item.queue for item in items).items():
            self._observer.accepted(queue, count)
        return [item.status for item in items]


def _first_of_each(
    items: Sequence[NewNotification], admitted: Mapping[QueueKey, int]
) -> set[NotificationId]:
    """So many of each queue, of those that are due at once."""
    room = dict(admitted)
    first: set[NotificationId] = set()
    for item in items:
        if item.status is Status.QUEUED and room[item.queue]:
            room[item.queue] -= 1
            first.add(item.id)
    return first


def _bytes(item: NewNotification) -> int:
    return len(item.content) + len(item.metadata)


async def _answer(waiter: asyncio.Future[Status]) -> Status | StoreRejected:
    try:
        return await waiter
    except StoreRejected as error:
        return error
