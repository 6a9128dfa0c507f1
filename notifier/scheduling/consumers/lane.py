"""One worker's side of one queue: its subscription, its buffer and the messages it holds.

The scheduler decides how many consumers work here. The lane applies that in its own task, so that
a slow reply for one queue delays no other. What is surplus goes back through Postgres; it is
removed from the buffer first, so nothing is both given back and given to a consumer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from math import floor, inf, log2
from typing import Final

from notifier.domain.allocation.entitlement import Limit
from notifier.domain.errors import InfrastructureError
from notifier.domain.notification import QueueKey
from notifier.lifecycle import Clock
from notifier.ports.attempts import AttemptRunner, ClaimedRow
from notifier.ports.broker import Depth, Message, Subscription
from notifier.ports.heartbeat import QueueFigures
from notifier.ports.store import Waiting
from notifier.scheduling.cluster.loss_detector import LossDetector
from notifier.scheduling.cluster.peer_load import PeerLoad
from notifier.scheduling.consumers.buffer import Buffer
from notifier.scheduling.consumers.claim_budget import ClaimBudget
from notifier.scheduling.consumers.held import HeldMessages, LanePointer
from notifier.scheduling.consumers.measurements import QueueMeasurements
from notifier.scheduling.consumers.prefetch import is_worth_a_change, prefetch_for
from notifier.scheduling.consumers.running_calls import RunningCalls
from notifier.scheduling.consumers.ticker import Ticker
from notifier.scheduling.rates.lateness import LatenessDetector

MAX_BUFFERED_S: Final = 60.0
MAX_BUFFERED_BESIDE_IDLE_S: Final = 1.0
"""How long pointers stay here while all consumers are busy and other workers have idle ones."""
MAX_CLAIMED_S: Final = 2.0
"""How long a claimed row waits for a consumer; no call begins on a claim of STALE_AFTER_S."""
AHEAD_S: Final = 0.1
"""Claimed ahead of the consumers is what they begin in this time."""
AHEAD_OF_SLOTS_S: Final = 0.25
"""The same where the queue has a rate: a slot without a claimed row may pass unused."""
MAX_AHEAD: Final = 256
GIVE_BACK_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRule:
    """The settings of one queue.

    `consumer_rate` is calls per second of one consumer. `max_consumers`, reserved included, bounds
    the queue in this worker; `bulkhead` bounds all queues of its channel together. `has_rate` means
    that consumers need a slot of a rate for each call. `claims_ahead` is False where a claim that
    was not begun must not look like one that was: the channel holds ambiguous notifications.
    """

    queue: QueueKey
    weight: float
    target_wait_s: float
    consumer_rate: float | None = None
    max_consumers: int | None = None
    bulkhead: int | None = None
    reserved: int = 1
    has_rate: bool = False
    claims_ahead: bool = True


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
    """Messages come in by `deliver`; a claim loop claims their rows; consumers take the rows."""

    def __init__(
        self,
        rule: QueueRule,
        *,
        attempts: AttemptRunner,
        ticker: Ticker,
        in_flight: InFlightCounter,
        budget: ClaimBudget,
        clock: Clock,
    ) -> None:
        self.rule = rule
        self.consumers = 0
        self.limited_by = Limit.NEED
        self.claim_lateness = LatenessDetector()
        """Judges how long consumers that have a slot wait for a claimed row."""
        self._attempts = attempts
        self._ticker = ticker
        self._in_flight = in_flight
        self._budget = budget
        self._clock = clock
        self._buffer = Buffer(slot_first=rule.has_rate)
        self._measurements = QueueMeasurements(clock)
        self._calls = RunningCalls(self._measurements, clock)
        self._losses = LossDetector()
        self._subscription: Subscription | None = None
        self._held = HeldMessages()
        self._prefetch = 0
        self._provider_rate_per_s = inf
        self._has_shrunk = False
        self._was_full = False
        self._probe_since: float | None = None
        """Since when one row at a time may be sent, as the probe of a breaker."""
        self._returned_at = -inf
        """Rows that were claimed before go back."""
        self._is_closed = False
        self._was_suspended = False
        self._peers_idle = 0
        self._ahead = 0
        """How many rows may be claimed before a consumer is ready for them."""
        self._claims_wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._applied = asyncio.Event()

    @property
    def queue(self) -> QueueKey:
        """The queue it belongs to."""
        return self.rule.queue

    def attach(self, subscription: Subscription) -> None:
        """Set the subscription that delivers here. Call it before `run`."""
        self._subscription = subscription

    def attach_claims(self, wanted: asyncio.Event) -> None:
        """Set the event that wakes the claim loop of this lane."""
        self._claims_wanted = wanted

    def deliver(self, message: Message) -> None:
        """Take in a message from the broker."""
        now = self._clock()
        self._losses.delivered(message, now)
        self._buffer.put(self._held.add(message, now, owner=self))
        if self._prefetch == 0:
            self._changed.set()
            return
        self._claims_wanted.set()
        if self.is_full and not self._was_full:
            self._was_full = True
            self._ticker.wake()

    def connection_lost(self) -> None:
        """Drop unclaimed pointers: the broker delivers them again. What is claimed continues."""
        self._held.clear()
        self._buffer.remove_pointers(received_before=inf)
        self._losses.connection_lost()

    def settled(self, held: LanePointer) -> None:
        """Implements held.PointerOwner: acks the message after its last pointer."""
        if held.is_claimed:
            self._budget.remove(held.pointer)
        message = self._held.settle(held)
        if message is not None and self._subscription is not None:
            self._subscription.ack(message)

    @property
    def is_full(self) -> bool:
        """Whether the prefetch is used up and every consumer has something to do."""
        return len(self._held) >= self._prefetch > 0 and not self._buffer.has_spare_consumer

    @property
    def held(self) -> int:
        """The number of pointers in unacknowledged messages that are not settled."""
        return self._held.pointers

    @property
    def calls(self) -> RunningCalls:
        """The attempts that run here."""
        return self._calls

    @property
    def busy(self) -> int:
        """The number of attempts that run here."""
        return len(self._calls)

    @property
    def in_use(self) -> int:
        """Consumers that run an attempt or are about to, for instance while awaiting a rate."""
        return len(self._calls) + self._buffer.in_use

    @property
    def is_idle(self) -> bool:
        """Whether there is no work, here or at the last poll, of the whole deployment."""
        return not self._held.pointers and self.in_use == 0 and self._measurements.is_quiet

    @property
    def lacks_probe_consumer(self) -> bool:
        """Whether a probe has to be sent and no consumer here could begin it."""
        return (
            self._probe_since is not None
            and not self._calls.begun_since(self._probe_since)
            and not self._buffer.has_waiting_consumer
            and not self._buffer.in_use
        )

    def claims_wanted(self, *, room: int) -> int:
        """Return how many rows to claim now: for the ready consumers, and what they begin soon.

        They are `room` at most, but each reserved consumer always gets one.
        """
        buffer = self._buffer
        if not (buffer.unclaimed and buffer.is_open):
            return 0
        if self._probe_since is not None:  # the calls from before it may hang for long
            return max(0, 1 - self._calls.begun_since(self._probe_since) - buffer.claimed)
        missing = buffer.ready - buffer.claimed
        reserved = min(missing, self.rule.reserved - self.busy - buffer.claimed)
        if not room:
            return reserved
        # A row with deaths needs a consumer that is ready, so none are kept busy in advance.
        ahead = 0 if buffer.claimable_suspect(self._budget) else self._ahead
        if missing <= 0 and buffer.claimed > ahead // 2:
            return 0  # few are missing: claimed together with the next ones they cost less
        return max(reserved, min(missing + ahead, room))

    def begin_claim(self) -> LanePointer | None:
        """Remove the pointer that is claimed next; None if none may be claimed now.

        One with deaths is claimed only for a consumer that begins it at once: the death of the
        worker would count for it too.
        """
        suspect = self._buffer.claimable_suspect(self._budget)
        if suspect is not None and self._buffer.ready <= self._buffer.claimed:
            suspect = None
        held = self._buffer.begin_claim(suspect)
        if held is not None:
            held.is_claimed = True
            self._budget.add(held.pointer)
        return held

    def end_claim(self, count: int, rows: Sequence[ClaimedRow]) -> None:
        """Take in the rows that were claimed of `count` pointers."""
        self._buffer.end_claim(count, rows)
        is_outdated = any(row.requested_at < self._returned_at for row in rows)
        if is_outdated or not self._buffer.is_open:
            self._changed.set()

    def wait(self, consumer: object) -> Awaitable[bool]:
        """Wait until a row is offered to the consumer; False if it was dismissed."""
        if self._buffer.unclaimed:
            self._claims_wanted.set()
        return self._buffer.wait(consumer)

    def is_waiting(self, consumer: object) -> bool:
        """Whether this consumer waits here without an offer."""
        return self._buffer.is_waiting(consumer)

    def dismiss(self, consumer: object) -> None:
        """End the consumer's wait, unless it has an offer already."""
        self._buffer.dismiss(consumer)

    def pass_on(self) -> None:
        """Offer what is left to the next consumer, before this one awaits something."""
        self._buffer.pass_on()

    def take(self) -> ClaimedRow | None:
        """Accept an offer; None if no row is left, or rows may not be taken now."""
        row = self._buffer.take()
        if self._buffer.claimed <= self._ahead // 2 and self._buffer.unclaimed:
            self._claims_wanted.set()
        return row

    async def wait_for_claim(self, consumer: object) -> ClaimedRow | None:
        """Wait for a row of a pointer that was offered, at once after `take` returned None.

        None if no row can come, and if the consumer was dismissed.
        """
        began_at = self._clock()
        self._claims_wanted.set()
        row = await self._buffer.wait_for_claim(consumer)
        if row is not None:
            self._measurements.claim_waited(self._clock() - began_at)
        return row

    def decline(self) -> None:
        """Return an offer, which goes to the next waiting consumer."""
        self._buffer.decline()

    def put_back(self, row: ClaimedRow) -> None:
        """Undo the acceptance of an offer whose row cannot be sent just now; the offer stays."""
        self._buffer.put_back(row)
        if not self._buffer.is_open:
            self._changed.set()

    async def run_attempt(self, row: ClaimedRow) -> None:
        """Run the attempt of a row taken from here. Raises what the attempt raises."""
        self._calls.begin(row)
        self._in_flight.started()
        self._measurements.peak_use.add(self.in_use)
        self._buffer.pass_on()
        try:
            timing = await self._attempts.attempt(row)
            self._measurements.attempt_finished(timing)
            if timing.answered:
                self._calls.answered_at = self._clock()
        finally:
            self._calls.end(row)
            self._in_flight.finished()

    def set_consumers(
        self,
        consumers: int,
        *,
        limited_by: Limit,
        may_take: bool,
        is_probe: bool = False,
        rate_per_s: float | None = None,
    ) -> None:
        """Prepare for `consumers`, reserved included; they get rows only if `may_take`.

        With `is_probe` only one row is claimed and sent at a time, beside the calls from before.
        `rate_per_s` is this worker's part of the provider's rate.
        """
        self.consumers = consumers
        self.limited_by = limited_by
        self._provider_rate_per_s = inf if rate_per_s is None else rate_per_s
        if not is_probe:
            self._probe_since = None
        elif self._probe_since is None:
            self._probe_since = self._clock()
        self._was_full = self._was_full and self.is_full
        if not self._is_closed:
            self._set_prefetch(self._wanted_prefetch(consumers, rate_per_s) if may_take else 0)
        if self._has_surplus():
            self._changed.set()
        if self._buffer.unclaimed:
            self._claims_wanted.set()

    def _wanted_prefetch(self, consumers: int, rate_per_s: float | None) -> int:
        if self._probe_since is not None:
            return 1
        own = self.rule.consumer_rate
        provider = None if rate_per_s is None else _power_of_two_below(rate_per_s)
        rates = [provider, None if own is None else own * consumers]
        wanted = prefetch_for(
            consumers,
            rate_per_s=min((rate for rate in rates if rate is not None), default=None),
            ahead=self._ahead,
            message_size=self._held.size.pointers,
            tails=self._held.tails(self._clock(), consumers_wait=self._buffer.has_waiting_consumer),
        )
        return wanted if is_worth_a_change(wanted, self._prefetch) else self._prefetch

    def suspend(self) -> None:
        """Give no row to a consumer until the next `set_consumers`. A probe has ended."""
        self._probe_since = None
        self._was_suspended = True
        self._set_prefetch(0)

    def return_claims(self) -> None:
        """Give back all rows that were claimed until now and that no consumer has taken."""
        self._returned_at = self._clock()
        self._changed.set()

    def stop_taking(self) -> None:
        """Give no row to a consumer from now on, and claim none."""
        self._is_closed = True
        self._buffer.close()
        self._set_prefetch(0)

    async def close(self) -> None:
        """End the subscription and give the buffer back; returns when that is confirmed.

        Call `stop_taking` first, and wait for the claims under way. Cancelled, it leaves unclaimed
        pointers to the broker, which delivers them again.
        """
        self._applied.clear()
        self._changed.set()
        await self._applied.wait()

    def abandon(self) -> None:
        """Leave the claimed rows that are still here to the release of orphans."""
        self._attempts.abandon(self._buffer.remove_rows(claimed_before=inf))

    async def run(self) -> None:
        """Apply the prefetch and give back what is surplus, until cancelled."""
        applied = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._subscription is not None and applied and self._was_suspended:
                # What is held by calls that hang must not count against the next prefetch.
                applied = 0
                await self._subscription.set_prefetch(0)
            self._was_suspended = False
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
        self._peers_idle = peer_load.idle
        if self.rule.claims_ahead:
            ahead_s = AHEAD_OF_SLOTS_S if self.rule.has_rate else AHEAD_S
            self._ahead = min(int(self._measurements.done_per_s * ahead_s), MAX_AHEAD)

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

    @property
    def open_consumers(self) -> int:
        """The consumers that work here; 0 after `stop_taking`."""
        return 0 if self._is_closed else self.consumers

    def figures(self) -> QueueFigures:
        """This worker's side of the queue, for the heartbeat."""
        now = self._clock()
        return QueueFigures(
            consumers=self.open_consumers,
            busy=self.busy,
            held=self.held,
            done=self._measurements.done,
            done_per_s=self._measurements.done_per_s,
            service_s=self._measurements.service_s,
            capacity_per_s=self._capacity_per_s(),
            limited_by=self.limited_by,
            held_since=self._held.published_since,
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
        consumers = max(0, self.consumers - self._calls.stuck)
        own = inf if self.rule.consumer_rate is None else self.rule.consumer_rate
        return min(consumers * min(1 / call_s, own), self._provider_rate_per_s)

    def _set_prefetch(self, prefetch: int) -> None:
        if prefetch == self._prefetch:
            return
        self._has_shrunk = prefetch < self._prefetch
        self._prefetch = prefetch
        # Blocked here at once: the broker may take long to stop delivering.
        self._buffer.set_blocked(blocked=prefetch == 0)
        self._claims_wanted.set()
        self._applied.clear()
        self._changed.set()

    def _has_surplus(self) -> bool:
        buffer, now = self._buffer, self._clock()
        put_at, claimed_at = buffer.oldest_put_at(), buffer.oldest_claim_at()
        return bool(
            (put_at is not None and put_at < now - self._max_buffered_s)
            or (claimed_at is not None and claimed_at < now - MAX_CLAIMED_S)
            or buffer.unclaimed > self._max_unclaimed
        )

    @property
    def _max_unclaimed(self) -> float:
        """The number of unclaimed pointers that may stay."""
        if not self._has_shrunk:
            return inf  # only a lower prefetch leaves too many
        size = self._held.size.pointers
        return self._prefetch if size == 1 else 2 * size * self._prefetch

    @property
    def _max_buffered_s(self) -> float:
        """How long unclaimed pointers may stay."""
        is_busy = not self._buffer.has_waiting_consumer and not self.rule.has_rate
        return MAX_BUFFERED_BESIDE_IDLE_S if is_busy and self._peers_idle else MAX_BUFFERED_S

    async def _give_surplus_back(self) -> None:
        buffer, now = self._buffer, self._clock()
        is_open = buffer.is_open
        oldest = max(now - MAX_CLAIMED_S, self._returned_at)
        rows = buffer.remove_rows(claimed_before=oldest if is_open else inf)
        pointers = buffer.remove_pointers(
            received_before=now - self._max_buffered_s if is_open else inf
        )
        pointers += buffer.remove_newest(keep=self._max_unclaimed)
        if rows or pointers:
            await self._give_back(rows, pointers)

    async def _give_back(self, rows: Sequence[ClaimedRow], pointers: Sequence[LanePointer]) -> None:
        while True:
            try:
                return await self._attempts.give_back(rows, pointers)
            except InfrastructureError:
                await asyncio.sleep(GIVE_BACK_RETRY_S)


def _power_of_two_below(rate_per_s: float) -> float:
    """The power of two at or below a rate: while a rate grows, the prefetch changes rarely."""
    return 2.0 ** floor(log2(rate_per_s)) if rate_per_s > 0 else 0.0
