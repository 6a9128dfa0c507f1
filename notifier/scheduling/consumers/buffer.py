"""What a lane holds and no consumer has taken: unclaimed pointers and claimed rows.

Two invariants: while there is more to take than offers, a waiting consumer is offered some of it;
and each pointer and row leaves once only, to a claim, to a consumer or by one of the removals.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cached_property
from math import inf

from notifier.ports.attempts import ClaimedRow
from notifier.scheduling.consumers.claim_budget import ClaimBudget
from notifier.scheduling.consumers.held import LanePointer


class Buffer:
    """First in, first out: pointers, rows and waiting consumers. Only the waits are asynchronous.

    An offer is the right to take one row, not the row itself. The consumer then calls `take` or
    `decline`, exactly once. With `slot_first` a pointer is offered before it is claimed, so that a
    consumer can wait for a slot of its rates first; otherwise only claimed rows are offered.
    """

    def __init__(self, *, slot_first: bool = False) -> None:
        self._slot_first = slot_first
        self._pointers: deque[LanePointer] = deque()
        self._suspects: tuple[deque[LanePointer], ...] = (deque(), deque())
        """Pointers to rows during which one worker died, and more; see claim_budget.py."""
        self._rows: deque[ClaimedRow] = deque()
        self._claiming = 0
        self._waiting: dict[object, asyncio.Future[bool]] = {}
        self._claimants: dict[object, asyncio.Future[ClaimedRow | None]] = {}
        self._is_closed = False
        self.is_open = True
        """Whether rows may be claimed and taken."""
        self.offered = 0

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        # Cached: on Python 3.11 get_running_loop() is a system call.
        return asyncio.get_running_loop()

    def __len__(self) -> int:
        """The number of pointers and rows, those being claimed included."""
        return self.unclaimed + self.claimed

    @property
    def unclaimed(self) -> int:
        """The number of unclaimed pointers."""
        once, more = self._suspects
        return len(self._pointers) + len(once) + len(more)

    @property
    def claimed(self) -> int:
        """The number of rows that are claimed, or being claimed, and not taken."""
        return self._claiming + len(self._rows)

    @property
    def has_waiting_consumer(self) -> bool:
        """Whether a consumer waits for an offer."""
        return bool(self._waiting)

    @property
    def has_spare_consumer(self) -> bool:
        """Whether a consumer waits for an offer, and nothing is here that it could become."""
        return len(self._waiting) > len(self) - self.in_use

    @property
    def in_use(self) -> int:
        """The number of consumers that have an offer or wait for a claim."""
        return self.offered + len(self._claimants)

    @property
    def ready(self) -> int:
        """The number of consumers that begin a call as soon as there is a row for them."""
        return len(self._claimants) if self._slot_first else len(self._waiting) + self.offered

    def oldest_put_at(self) -> float | None:
        """When the oldest pointer was received or its row claimed; None if nothing is here."""
        oldest = inf
        for pointers in (self._pointers, *self._suspects):
            if pointers:
                oldest = min(oldest, pointers[0].message.received_at)
        if self._rows:
            oldest = min(oldest, self._rows[0].requested_at)
        return None if oldest == inf else oldest

    def oldest_claim_at(self) -> float | None:
        """When the claim of the oldest row was requested; None without a row."""
        return self._rows[0].requested_at if self._rows else None

    def put(self, pointers: Iterable[LanePointer]) -> None:
        """Add unclaimed pointers."""
        for held in pointers:
            deaths = held.pointer.deaths
            (self._suspects[min(deaths, 2) - 1] if deaths else self._pointers).append(held)
        self.pass_on()

    def claimable_suspect(self, budget: ClaimBudget) -> LanePointer | None:
        """The first pointer with deaths that may be claimed now."""
        if not any(self._suspects):
            return None
        heads = (pointers[0] for pointers in self._suspects if pointers)
        return next((held for held in heads if budget.may_claim(held.pointer)), None)

    def begin_claim(self, suspect: LanePointer | None = None) -> LanePointer | None:
        """Remove a pointer to be claimed now: `suspect`, or the first without deaths if any."""
        if suspect is not None:
            self._suspects[min(suspect.pointer.deaths, 2) - 1].popleft()
        elif self._pointers:
            suspect = self._pointers.popleft()
        else:
            return None
        self._claiming += 1
        return suspect

    def end_claim(self, count: int, rows: Sequence[ClaimedRow]) -> None:
        """Add the rows that were claimed of `count` pointers."""
        self._claiming -= count
        self._rows.extend(rows)
        self._serve_claimants()
        self.pass_on()

    async def wait(self, consumer: object) -> bool:
        """Wait until something is offered; False if `dismiss` came first.

        Cancelled, it passes its offer on to the next consumer.
        """
        if self._has_more:
            self.offered += 1
            return True
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting[consumer] = future
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.result():
                self.decline()
            self._waiting.pop(consumer, None)
            raise

    def is_waiting(self, consumer: object) -> bool:
        """Whether this consumer waits here without an offer."""
        return consumer in self._waiting

    def dismiss(self, consumer: object) -> None:
        """End the consumer's wait for an offer or for a claim; does nothing if it does not wait.

        A consumer with an offer keeps it.
        """
        waiting = self._waiting.pop(consumer, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(False)
        claimant = self._claimants.pop(consumer, None)
        if claimant is not None and not claimant.done():
            claimant.set_result(None)
            self.pass_on()

    def pass_on(self) -> None:
        """Offer what is left to the consumer that has waited longest.

        A consumer calls it before it awaits anything. Where rows are taken at once they wake each
        other one by one, so that a send that returns at once wakes no consumer needlessly.
        """
        while self._waiting and self._has_more and (self._slot_first or not self.offered):
            future = self._waiting.pop(next(iter(self._waiting)))
            if not future.cancelled():
                self.offered += 1
                future.set_result(True)

    def take(self) -> ClaimedRow | None:
        """Accept an offer; None if no row is left, or rows may not be taken now."""
        self.offered -= 1
        return self._rows.popleft() if self._rows and self.is_open else None

    def put_back(self, row: ClaimedRow) -> None:
        """Undo `take`: the row is there again, and the offer stands."""
        self.offered += 1
        self._return(row)

    async def wait_for_claim(self, consumer: object) -> ClaimedRow | None:
        """Wait for a row of a pointer that was offered; None if none can come, or if dismissed.

        Called at once after `take` found no row. Cancelled, it leaves its row to the next one.
        """
        if not self._may_get_rows:
            return None
        future: asyncio.Future[ClaimedRow | None] = self._loop.create_future()
        self._claimants[consumer] = future
        try:
            return await future
        except asyncio.CancelledError:
            self._claimants.pop(consumer, None)
            if not future.cancelled() and (row := future.result()) is not None:
                self._return(row)
            self.pass_on()
            raise

    def decline(self) -> None:
        """Return an offer, which goes to the next waiting consumer."""
        self.offered -= 1
        self.pass_on()

    def remove_rows(self, *, claimed_before: float) -> list[ClaimedRow]:
        """Remove the rows whose claim was requested before that instant."""
        removed = []
        while self._rows and self._rows[0].requested_at < claimed_before:
            removed.append(self._rows.popleft())
        return removed

    def remove_pointers(self, *, received_before: float) -> list[LanePointer]:
        """Remove the pointers whose message was received before that instant."""
        removed = []
        for pointers in (*self._suspects, self._pointers):
            while pointers and pointers[0].message.received_at < received_before:
                removed.append(pointers.popleft())
        self._serve_claimants()
        return removed

    def remove_newest(self, *, keep: float) -> list[LanePointer]:
        """Remove the newest pointers until `keep` are left."""
        removed = []
        while self._pointers and self.unclaimed > keep:
            removed.append(self._pointers.pop())
        self._serve_claimants()
        return removed

    def set_blocked(self, *, blocked: bool) -> None:
        """While blocked, no consumer gets a row, not even for an offer made before."""
        self.is_open = not (blocked or self._is_closed)
        self._serve_claimants()
        self.pass_on()

    def close(self) -> None:
        """Give no row to a consumer from now on."""
        self._is_closed = True
        self.is_open = False
        self._serve_claimants()

    @property
    def _has_more(self) -> bool:
        """Whether there is more to take than there are offers."""
        if not self.is_open:
            return False
        if self._slot_first:
            return len(self) - len(self._claimants) > self.offered
        return len(self._rows) > self.offered

    @property
    def _may_get_rows(self) -> bool:
        return self.is_open and bool(self._claiming or self.unclaimed)

    def _return(self, row: ClaimedRow) -> None:
        # Nothing is claimed for a consumer while a row is here, so none may wait beside it.
        self._rows.appendleft(row)
        self._serve_claimants()

    def _serve_claimants(self) -> None:
        """Give rows to the consumers that wait for a claim; None if no row can come for them."""
        while self._claimants:
            has_row = bool(self._rows) and self.is_open
            if not has_row and self._may_get_rows:
                return
            future = self._claimants.pop(next(iter(self._claimants)))
            if not future.done():
                future.set_result(self._rows.popleft() if has_row else None)
