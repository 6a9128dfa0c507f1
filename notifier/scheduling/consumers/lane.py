"""One worker's side of one queue: its subscription, its buffer and the messages it holds.

The scheduler decides how many consumers work here. The lane applies that in its own task, so that
a slow reply for one queue delays no other. Surplus messages go back through Postgres; each is
removed from the buffer first, so no message is both given back and given to a consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, inf, log2
from typing import Final

from notifier.domain.allocation.demand import MAX_STUCK_REPLACED
from notifier.domain.allocation.entitlement import Limit
from notifier.domain.errors import InfrastructureError
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Clock
from notifier.ports.attempts import AttemptRunner
from notifier.ports.broker import Delivery, Depth, Pointer, Subscription
from notifier.ports.heartbeat import QueueFigures
from notifier.ports.store import Waiting
from notifier.scheduling.cluster.loss_detector import LossDetector
from notifier.scheduling.cluster.peer_load import PeerLoad
from notifier.scheduling.consumers.buffer import Buffer
from notifier.scheduling.consumers.measurements import QueueMeasurements
from notifier.scheduling.consumers.ticker import Ticker
from notifier.scheduling.rates.consumer_rate import prefetch_for

MAX_BUFFERED_S: Final = 60.0
GIVE_BACK_RETRY_S: Final = 0.5
MIN_STUCK_S: Final = 1.0
STUCK_FACTOR: Final = 4
"""An attempt is stuck once it runs this many times the average, and at least 1 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRule:
    """The settings of one queue.

    `consumer_rate` is calls per second of one consumer. `max_consumers`, reserved included, bounds
    the queue in this worker; `bulkhead` bounds all queues of its channel together.
    """

    queue: QueueKey
    weight: float
    target_wait_s: float
    consumer_rate: float | None = None
    max_consumers: int | None = None
    bulkhead: int | None = None
    reserved: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSnapshot:
    """The measurements of one lane at one instant.

    `ready` waits in the broker, `due` in Postgres, `buffered` here. `arrivals_per_s` is the whole
    deployment's. `peak_use` is the highest number of consumers in use in the last 3 s.
    """

    ready: int
    due: int
    buffered: int
    oldest_wait_s: float
    arrivals_per_s: float
    service_s: float
    peak_use: int


class InFlightCounter:
    """The number of attempts that run now, over all lanes."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def started(self) -> None:
        self.count += 1
        self._idle.clear()

    def finished(self) -> None:
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until no attempt runs."""
        await self._idle.wait()


class Lane:
    """Messages come in by `deliver`; consumers call `wait`, then `take` or `decline`."""

    def __init__(
        self,
        rule: QueueRule,
        *,
        attempts: AttemptRunner,
        ticker: Ticker,
        in_flight: InFlightCounter,
        clock: Clock,
    ) -> None:
        self.rule = rule
        self.consumers = 0
        self.limited_by = Limit.NEED
        self.answered_at = -inf
        self._attempts = attempts
        self._ticker = ticker
        self._in_flight = in_flight
        self._clock = clock
        self._buffer = Buffer()
        self._measurements = QueueMeasurements(clock)
        self._losses = LossDetector()
        self._recovered_at = -inf
        self._running: dict[Delivery, float] = {}
        self._subscription: Subscription | None = None
        self._unacked: dict[Delivery, None] = {}
        self._prefetch = 0
        self._provider_rate_per_s = inf
        self._has_shrunk = False
        self._was_full = False
        self._is_closed = False
        self._changed = asyncio.Event()
        self._applied = asyncio.Event()

    @property
    def queue(self) -> QueueKey:
        """The queue it belongs to."""
        return self.rule.queue

    def attach(self, subscription: Subscription) -> None:
        """Set the subscription that delivers here. Call it before `run`."""
        self._subscription = subscription

    def deliver(self, delivery: Delivery) -> None:
        """Take in a message from the broker."""
        now = self._clock()
        self._unacked[delivery] = None
        self._losses.delivered(delivery, now)
        self._buffer.put(delivery, now)
        if self._prefetch == 0:
            self._changed.set()
        elif self.is_full and not self._was_full:
            self._was_full = True
            self._ticker.wake()

    def connection_lost(self) -> None:
        """Drop the buffer: the broker delivers it again. Attempts in flight continue."""
        self._unacked.clear()
        self._buffer.remove(keep=0, put_before=inf)
        self._losses.connection_lost()

    @property
    def is_full(self) -> bool:
        """Whether the prefetch is used up and no consumer waits."""
        return len(self._unacked) >= self._prefetch > 0 and not self._buffer.has_waiting_consumer

    @property
    def held(self) -> int:
        """The number of unacknowledged messages."""
        return len(self._unacked)

    @property
    def busy(self) -> int:
        """The number of attempts that run here."""
        return len(self._running)

    @property
    def in_use(self) -> int:
        """Consumers that run an attempt or have an offer, for instance while awaiting a rate."""
        return self.busy + self._buffer.offered

    @property
    def stuck(self) -> int:
        """Attempts that run far longer than usual, without those from before a recovery."""
        until = self._stuck_if_before
        return sum(self._recovered_at <= started < until for started in self._running.values())

    @property
    def stuck_before_recovery(self) -> int:
        """Stuck attempts from before the provider recovered; they do not show its present state."""
        until = min(self._recovered_at, self._stuck_if_before)
        return sum(started < until for started in self._running.values())

    @property
    def is_hanging(self) -> bool:
        """Whether over half of the attempts are stuck, and too many to be replaced."""
        current = self.busy - self.stuck_before_recovery
        return self.stuck > MAX_STUCK_REPLACED and 2 * self.stuck > current

    @property
    def oldest_call_s(self) -> float:
        """How long the oldest running attempt has run, 0 if none runs."""
        now = self._clock()
        return now - min(self._running.values(), default=now)

    def oldest_start_since(self, instant: float) -> float | None:
        """When the oldest attempt started of those running since `instant` and any recovery."""
        since = max(instant, self._recovered_at)
        return min(
            (started for started in self._running.values() if started >= since), default=None
        )

    def mark_recovered(self, at: float) -> None:
        """The provider answers again after a hang: attempts from before `at` are no hang."""
        self._recovered_at = at

    @property
    def _stuck_if_before(self) -> float:
        return self._clock() - max(MIN_STUCK_S, STUCK_FACTOR * self._measurements.service_s)

    async def wait(self, consumer: object) -> bool:
        """Wait until a message is offered to the consumer; False if it was dismissed."""
        return await self._buffer.wait(consumer)

    def is_waiting(self, consumer: object) -> bool:
        """Whether this consumer waits here without an offer."""
        return self._buffer.is_waiting(consumer)

    def dismiss(self, consumer: object) -> None:
        """End the consumer's wait, unless it has an offer already."""
        self._buffer.dismiss(consumer)

    def take(self) -> Delivery | None:
        """Accept an offer; None if no message is left, or messages may not be taken now."""
        return self._buffer.take()

    def decline(self) -> None:
        """Return an offer, which goes to the next waiting consumer."""
        self._buffer.decline()

    async def run_attempt(self, delivery: Delivery) -> None:
        """Run the attempt of a message taken from here. Raises what the attempt raises."""
        self._running[delivery] = self._clock()
        self._in_flight.started()
        self._measurements.peak_use.add(self.in_use)
        try:
            timing = await self._attempts.attempt(delivery, self._ack)
            self._measurements.attempt_finished(timing)
            if timing.answered:
                self.answered_at = self._clock()
        finally:
            del self._running[delivery]
            self._in_flight.finished()

    def _ack(self, delivery: Delivery) -> None:
        self._unacked.pop(delivery, None)
        if self._subscription is not None:
            self._subscription.ack(delivery)

    def set_consumers(
        self,
        consumers: int,
        *,
        limited_by: Limit,
        may_take: bool,
        rate_per_s: float | None = None,
    ) -> None:
        """Prepare for `consumers`, reserved included; they get messages only if `may_take`.

        `rate_per_s` is this worker's part of the provider's rate.
        """
        self.consumers = consumers
        self.limited_by = limited_by
        self._provider_rate_per_s = inf if rate_per_s is None else rate_per_s
        self._was_full = self._was_full and self.is_full
        if not self._is_closed:
            own = self.rule.consumer_rate
            provider = None if rate_per_s is None else _power_of_two_below(rate_per_s)
            rates = [provider, None if own is None else own * consumers]
            slowest = min((rate for rate in rates if rate is not None), default=None)
            self._set_prefetch(prefetch_for(consumers, slowest) if may_take else 0)
        if self._has_surplus():
            self._changed.set()

    def suspend(self) -> None:
        """Give no message to a consumer until the next `set_consumers`."""
        self._set_prefetch(0)

    async def close(self) -> None:
        """End the subscription and give the buffer back; returns when that is confirmed.

        Cancelled, it leaves the rest to the broker, which delivers it again.
        """
        self._is_closed = True
        self._buffer.close()
        self._set_prefetch(0)
        self._applied.clear()
        self._changed.set()
        await self._applied.wait()

    async def run(self) -> None:
        """Apply the prefetch and give surplus messages back, until cancelled."""
        applied = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._subscription is not None and applied != self._prefetch:
                applied = self._prefetch
                await self._subscription.set_prefetch(applied)
            await self._give_surplus_back()
            if not self._changed.is_set():
                self._applied.set()

    def observe(self, depth: Depth | None, waiting: Waiting | None, peer_load: PeerLoad) -> None:
        """Record one poll of the broker and of Postgres; None means unknown."""
        self._losses.polled(depth, held=self.held, now=self._clock())
        self._measurements.observe(depth, waiting, self.held, peer_load)
        self._measurements.peak_use.add(self.in_use)

    def snapshot(self) -> LaneSnapshot:
        """The measurements as of now."""
        measurements, oldest_put_at = self._measurements, self._buffer.oldest_put_at()
        buffered_s = 0.0 if oldest_put_at is None else self._clock() - oldest_put_at
        return LaneSnapshot(
            ready=measurements.ready,
            due=measurements.waiting.due,
            buffered=len(self._buffer),
            oldest_wait_s=max(measurements.waiting.oldest_wait.total_seconds(), buffered_s),
            arrivals_per_s=measurements.arrivals_per_s,
            service_s=measurements.service_s,
            peak_use=measurements.peak_use.value,
        )

    def figures(self) -> QueueFigures:
        """This worker's side of the queue, for the heartbeat."""
        now = self._clock()
        return QueueFigures(
            consumers=0 if self._is_closed else self.consumers,
            busy=self.busy,
            held=self.held,
            done=self._measurements.done,
            done_per_s=self._measurements.done_per_s,
            service_s=self._measurements.service_s,
            capacity_per_s=self._capacity_per_s(),
            limited_by=self.limited_by,
            held_since=min(
                (delivery.pointer.published_at for delivery in self._unacked), default=None
            ),
            watermark=self._losses.watermark(now),
            drained_s=self._losses.drained_s(now),
        )

    def _capacity_per_s(self) -> float | None:
        """How many calls per second the consumers can begin; None until a call was measured."""
        if self._prefetch == 0:
            return 0.0
        call_s = self._measurements.call_s
        if call_s is None:
            return None
        consumers = max(0, self.consumers - self.stuck)
        own = inf if self.rule.consumer_rate is None else self.rule.consumer_rate
        return min(consumers * min(1 / call_s, own), self._provider_rate_per_s)

    def _set_prefetch(self, prefetch: int) -> None:
        if prefetch == self._prefetch:
            return
        self._has_shrunk = prefetch < self._prefetch
        self._prefetch = prefetch
        # Blocked here at once: the broker may take long to stop delivering.
        self._buffer.set_blocked(blocked=prefetch == 0)
        self._applied.clear()
        self._changed.set()

    def _max_buffered(self) -> float:
        """The number of messages that may stay in the buffer."""
        if self._prefetch == 0:
            return 0
        if not self._has_shrunk:
            return inf  # only a lower prefetch leaves too many
        max_held = self._subscription.max_held if self._subscription else 0
        return max(self._prefetch, max_held)

    def _has_surplus(self) -> bool:
        oldest_put_at = self._buffer.oldest_put_at()
        is_stale = oldest_put_at is not None and oldest_put_at < self._clock() - MAX_BUFFERED_S
        return is_stale or len(self._buffer) > self._max_buffered()

    async def _give_surplus_back(self) -> None:
        surplus = self._buffer.remove(
            keep=self._max_buffered(), put_before=self._clock() - MAX_BUFFERED_S
        )
        if surplus:
            await self._give_back([delivery.pointer for delivery in surplus])
            for delivery in surplus:
                self._ack(delivery)

    async def _give_back(self, pointers: Sequence[Pointer]) -> None:
        while True:
            try:
                return await self._attempts.give_back_pointers(pointers)
            except InfrastructureError:
                await asyncio.sleep(GIVE_BACK_RETRY_S)


def _power_of_two_below(rate_per_s: float) -> float:
    """The power of two at or below a rate: while a rate grows, the prefetch changes rarely."""
    return 2.0 ** floor(log2(rate_per_s)) if rate_per_s > 0 else 0.0
