"""One worker's side of one queue: its subscription, its buffer and what it holds.

The scheduler says how many consumers work here; the lane follows in its own task, so that a slow
answer for one queue delays no other. What it has too much goes back through Postgres, and is out
of the buffer before: no message is both given back and handed to a consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import floor, inf, log2
from typing import Final

from notifier.domain.allocation import MAX_STUCK_REPLACED, AttemptTiming, Limit
from notifier.domain.errors import InfrastructureError
from notifier.domain.notification import QueueKey
from notifier.ports.broker import Delivery, Pointer, Subscription
from notifier.ports.heartbeat import QueueFigures
from notifier.scheduling.cluster.loss_detector import LossDetector
from notifier.scheduling.consumers.buffer import Buffer
from notifier.scheduling.consumers.measurements import Clock, QueueMeasures
from notifier.scheduling.rates.consumer_rate import prefetch_for

Attempt = Callable[[Delivery, Callable[[Delivery], None]], Awaitable[AttemptTiming]]
"""Carries one message through: claims, sends, records, and calls the ack it is given."""

GiveBack = Callable[[Sequence[Pointer]], Awaitable[None]]
"""Makes rows due again, unspent. Returns when confirmed, raises an InfrastructureError if not."""

MAX_BUFFERED_S: Final = 60.0
RETRY_S: Final = 0.5
MIN_STUCK_S: Final = 1.0
STUCK_TIMES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRule:
    """What the settings say of one queue. `consumer_rate` is per consumer and second.

    `max_consumers`, which counts the standing ones, bounds the queue in this worker.
    """

    queue: QueueKey
    weight: float
    target_wait_s: float
    consumer_rate: float | None = None
    max_consumers: int | None = None
    standing: int = 1


class InFlightCounter:
    """How many attempts run now, over all lanes."""

    def __init__(self) -> None:
        self.count = 0
        self._none = asyncio.Event()
        self._none.set()

    def began(self) -> None:
        self.count += 1
        self._none.clear()

    def ended(self) -> None:
        self.count -= 1
        if self.count == 0:
            self._none.set()

    async def wait_idle(self) -> None:
        """Wait until none runs."""
        await self._none.wait()


class Lane:
    """Consumers wait at `buffer`; the broker's adapter calls `deliver` and `lose`."""

    def __init__(
        self,
        rule: QueueRule,
        *,
        attempt: Attempt,
        give_back: GiveBack,
        clock: Clock,
        on_full: Callable[[], None],
        in_flight: InFlightCounter,
    ) -> None:
        self.rule = rule
        self.buffer = Buffer()
        self.measures = QueueMeasures(clock)
        self.trace = LossDetector()
        self.consumers = 0
        self.answered_at = -inf
        self._recovered_at = -inf
        self._running: dict[Delivery, float] = {}
        self.limited_by = Limit.NEED
        self._attempt = attempt
        self._give_back = give_back
        self._clock = clock
        self._on_full = on_full
        self._in_flight = in_flight
        self._subscription: Subscription | None = None
        self._unacked: dict[Delivery, None] = {}
        self._prefetch = 0
        self._has_shrunk = False
        self._was_full = False
        self._is_closed = False
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()

    # ---- the broker's side

    def attach(self, subscription: Subscription) -> None:
        """Name the subscription that delivers here, before `run`."""
        self._subscription = subscription

    def deliver(self, delivery: Delivery) -> None:
        """Take a message in."""
        now = self._clock()
        self._unacked[delivery] = None
        self.trace.taken(delivery, now)
        self.buffer.put(delivery, now)
        if self._surplus_limit() == 0:
            self._wake.set()
        elif self.is_full and not self._was_full:
            self._was_full = True
            self._on_full()

    def lose(self) -> None:
        """The connection went: what is buffered comes again; what is in flight goes on."""
        self._unacked.clear()
        self.buffer.withdraw(keep=0, since=inf)
        self.trace.lost()

    @property
    def is_full(self) -> bool:
        """Whether all that may be held is held and nobody is free to take it."""
        return len(self._unacked) >= self._prefetch > 0 and not self.buffer.has_idle

    @property
    def held(self) -> int:
        """How many messages are unacked here."""
        return len(self._unacked)

    # ---- the consumers' side

    @property
    def busy(self) -> int:
        """How many attempts run here."""
        return len(self._running)

    @property
    def stuck(self) -> int:
        """How many attempts have run for far longer than they usually do, the lost left out."""
        until = self._usual_since
        return sum(self._recovered_at <= began < until for began in self._running.values())

    @property
    def lost(self) -> int:
        """How many still hang from before the provider recovered: they tell nothing of it now."""
        until = min(self._recovered_at, self._usual_since)
        return sum(began < until for began in self._running.values())

    @property
    def is_hanging(self) -> bool:
        """Whether more attempts than can be made good are stuck: half of all and more."""
        return self.stuck > MAX_STUCK_REPLACED and 2 * self.stuck > self.busy - self.lost

    @property
    def oldest_call_s(self) -> float:
        """How long the oldest of the running attempts has run, 0 if none does."""
        now = self._clock()
        return now - min(self._running.values(), default=now)

    def began_since(self, instant: float) -> float | None:
        """When the oldest running attempt began, of those from `instant` and a recovery on."""
        since = max(instant, self._recovered_at)
        return min((began for began in self._running.values() if began >= since), default=None)

    def recover(self, at: float) -> None:
        """What began before is no sign of a hang: the provider, which hung, answers again."""
        self._recovered_at = at

    @property
    def _usual_since(self) -> float:
        """What began before runs for longer than usual."""
        return self._clock() - max(MIN_STUCK_S, STUCK_TIMES * self.measures.service_s)

    async def carry_out(self, delivery: Delivery) -> None:
        """Attempt one message taken from the buffer. Raises what the attempt raises."""
        self._running[delivery] = self._clock()
        self._in_flight.began()
        self.note_use()
        try:
            timing = await self._attempt(delivery, self._ack)
            self.measures.finished(timing)
            if timing.answered:
                self.answered_at = self._clock()
        finally:
            del self._running[delivery]
            self._in_flight.ended()

    def note_use(self) -> None:
        """Remember how many consumers are in use: at work, or waiting for their rate."""
        self.measures.peak.add(self.busy + self.buffer.promised)

    def _ack(self, delivery: Delivery) -> None:
        self._unacked.pop(delivery, None)
        if self._subscription is not None:
            self._subscription.ack(delivery)

    # ---- the scheduler's side

    def set_consumers(
        self, consumers: int, *, may_take: bool, rate_per_s: float | None = None
    ) -> None:
        """So many consumers, the standing ones counted, work here, unless nobody may.

        `rate_per_s` is this worker's part of the provider's rate.
        """
        self.consumers = consumers
        self._was_full = self._was_full and self.is_full
        if not self._is_closed:
            own = self.rule.consumer_rate
            shared = None if rate_per_s is None else _steady(rate_per_s)
            rates = [shared, None if own is None else own * consumers]
            slowest = min((rate for rate in rates if rate is not None), default=None)
            self._want(prefetch_for(consumers, slowest) if may_take else 0)
        if self._has_surplus():
            self._wake.set()

    def hold_back(self) -> None:
        """Nothing more may be begun, from now on until `staff` says otherwise."""
        self._want(0)

    async def close(self) -> None:
        """End the subscription and give everything buffered back; returns when that is confirmed.

        Cancelled, it leaves the rest to the broker, which delivers it again.
        """
        self._is_closed = True
        self.buffer.close()
        self._want(0)
        self._settled.clear()
        self._wake.set()
        await self._settled.wait()

    async def run(self) -> None:
        """Follow the scheduler's wishes until cancelled."""
        applied = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._subscription is not None and applied != self._prefetch:
                applied = self._prefetch
                await self._subscription.set_prefetch(applied)
            await self._return_surplus()
            if not self._wake.is_set():
                self._settled.set()

    def figures(self) -> QueueFigures:
        """This worker's side of the queue, for the heartbeat."""
        now = self._clock()
        return QueueFigures(
            consumers=0 if self._is_closed else self.consumers,
            busy=self.busy,
            held=self.held,
            done=self.measures.done,
            done_per_s=self.measures.done_per_s,
            service_s=self.measures.service_s,
            limited_by=self.limited_by,
            held_since=min((each.pointer.published_at for each in self._unacked), default=None),
            mark=self.trace.mark(now),
            drained_s=self.trace.drained_s(now),
        )

    # ---- what is too much

    def _want(self, prefetch: int) -> None:
        if prefetch == self._prefetch:
            return
        self._has_shrunk = prefetch < self._prefetch
        self._prefetch = prefetch
        self.buffer.bar(is_so=prefetch == 0)  # at once: the broker may take long to stop
        self._settled.clear()
        self._wake.set()

    def _surplus_limit(self) -> int | None:
        """How many may stay in the buffer, None for any number: only a decrease leaves too many."""
        if self._prefetch == 0:
            return 0
        if not self._has_shrunk:
            return None
        allowed = self._subscription.max_held if self._subscription else 0
        return max(self._prefetch, allowed)

    def _has_surplus(self) -> bool:
        limit, oldest = self._surplus_limit(), self.buffer.oldest_since()
        is_stale = oldest is not None and oldest < self._clock() - MAX_BUFFERED_S
        return is_stale or (limit is not None and len(self.buffer) > limit)

    async def _return_surplus(self) -> None:
        limit = self._surplus_limit()
        surplus = self.buffer.withdraw(
            keep=len(self.buffer) if limit is None else limit, since=self._clock() - MAX_BUFFERED_S
        )
        if surplus:
            await self._confirm_return([each.pointer for each in surplus])
            for each in surplus:
                self._ack(each)

    async def _confirm_return(self, pointers: Sequence[Pointer]) -> None:
        while True:
            try:
                return await self._give_back(pointers)
            except InfrastructureError:
                await asyncio.sleep(RETRY_S)


def _steady(rate_per_s: float) -> float:
    """The power of two below: a rate that grows again must not change the prefetch every tick."""
    return 2.0 ** floor(log2(rate_per_s)) if rate_per_s > 0 else 0.0
