"""A consumer pool with the in-process broker, a fake deployment and a virtual clock, for tests.

On a virtual clock seconds of work are exact and take no time, and a lost wake-up is an error: the
loop raises when every task waits and no timer is left.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from random import Random
from uuid import UUID

import msgspec

from notifier.adapters.inprocess.broker import open_inprocess_broker
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.controls import SendPermission
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Claimed, NotificationId, Priority, QueueKey
from notifier.domain.timing import AttemptTiming
from notifier.ports.attempts import ClaimedRow, HeldPointer
from notifier.ports.broker import Broker, Depth, Message, Pointer, Receiver, Subscription
from notifier.ports.controls import Permissions
from notifier.ports.store import Waiting
from notifier.scheduling.cluster.peer_load import PeerLoad
from notifier.scheduling.consumers.deployment import CallLimits, Cluster, Deployment, NoCallLimits
from notifier.scheduling.consumers.lane import QueueRule
from notifier.scheduling.consumers.pool import (
    ConsumerPool,
    PoolPorts,
    PoolSettings,
    open_consumer_pool,
)
from notifier.scheduling.rates.provider_rate import ProviderRate
from tests.builders import QUEUES, claim_request

WEIGHTS = {Priority.HIGH: 8.0, Priority.MEDIUM: 3.0, Priority.LOW: 1.0}
TARGETS = {Priority.HIGH: 1.0, Priority.MEDIUM: 10.0, Priority.LOW: 60.0}


def now() -> float:
    """The time of the running loop."""
    return asyncio.get_running_loop().time()


class SingleWorker:
    """A deployment without other workers; `part` is this worker's share of the consumers."""

    def __init__(self, part: float = 1.0) -> None:
        self._part = part

    def share(self) -> float:
        return self._part

    def peer_load(self) -> Mapping[QueueKey, PeerLoad]:
        return {}

    def is_alive(self) -> bool:
        return True


class Peers(SingleWorker):
    """A deployment of several workers of equal size, each pool knowing the figures of the others.

    `me` is this worker's index in `pools`, which may be filled later.
    """

    def __init__(self, pools: Sequence[ConsumerPool], me: int, workers: int) -> None:
        super().__init__(1 / workers)
        self._pools = pools
        self._me = me

    def peer_load(self) -> Mapping[QueueKey, PeerLoad]:
        figures = [pool.figures() for number, pool in enumerate(self._pools) if number != self._me]
        queues = {queue for peer in figures for queue in peer}
        return {
            queue: PeerLoad(
                sum(peer[queue].held for peer in figures),
                sum(peer[queue].done_per_s for peer in figures),
                sum(max(0, peer[queue].consumers - peer[queue].busy) for peer in figures),
            )
            for queue in queues
        }


class FakeGates:
    """Permissions set by the test; a queue that is not set is ALLOWED."""

    def __init__(self) -> None:
        self.permissions: dict[QueueKey, SendPermission] = {}

    def permission(self, queue: QueueKey) -> SendPermission:
        return self.permissions.get(queue, SendPermission.ALLOWED)


def deployment(
    *,
    cluster: Cluster | None = None,
    gates: Permissions | None = None,
    rates: Mapping[QueueKey, ProviderRate] | None = None,
    call_limits: CallLimits | None = None,
) -> Deployment:
    """A single worker whose queues are all allowed and have no provider rate."""
    return Deployment(
        cluster=cluster or SingleWorker(),
        gates=gates or FakeGates(),
        rates=rates or {},
        call_limits=call_limits or NoCallLimits(),
    )


def claimed_of(pointer: Pointer) -> Claimed:
    """What a successful claim of this pointer returns."""
    return Claimed(
        id=pointer.id,
        claim=pointer.claim + 1,
        queue=pointer.queue,
        recipient="someone",
        content=b"{}",
        tries=0,
        max_tries=None,
        waited_s=0.0,
    )


@dataclass(frozen=True, slots=True)
class ClaimBatch:
    """One call of `claim`."""

    at: float
    pointers: Sequence[Pointer]
    is_urgent: bool


class FakeBackend:
    """A provider that takes `latency_s`, a Postgres in memory, and a record of their use.

    It implements ports.attempts.AttemptRunner and the store's `waiting`. Its rows have a claim
    number: a pointer with an old number claims nothing. A claim takes `claim_s`, a record
    `record_s`. While `is_ready` is not set nothing may be claimed.
    """

    def __init__(self) -> None:
        self.latency_s = 0.02
        self.claim_s = 0.0
        self.record_s = 0.0
        self.return_s = 0.005
        self.is_ready = asyncio.Event()
        self.is_ready.set()
        self.loses_reply: Callable[[], bool] = lambda: False
        self.claims: list[ClaimBatch] = []
        self.calls: list[tuple[float, QueueKey, NotificationId]] = []
        self.by_consumer: dict[str, list[float]] = defaultdict(list)
        self.recorded: Counter[NotificationId] = Counter()
        self.returned: list[Pointer] = []
        """Pointers to the rows given back, as the relay publishes them again."""
        self.returned_rows: list[tuple[float, NotificationId]] = []
        """When which claimed row was given back."""
        self.refusals = 0
        self.on_return: Callable[[], None] = lambda: None
        self.cancelled = 0
        self.abandoned: list[ClaimedRow] = []
        self.due: dict[QueueKey, Waiting] = {}
        self.polled: list[float] = []
        self.moved: Counter[QueueKey] = Counter()
        self._ids = count(1)
        self._claim_numbers: Counter[NotificationId] = Counter()
        self._claimed: set[NotificationId] = set()

    async def wait_until_ready(self) -> None:
        await self.is_ready.wait()

    async def claim(
        self, pointers: Sequence[HeldPointer], *, is_urgent: bool
    ) -> Sequence[ClaimedRow]:
        requested_at = now()
        self.claims.append(ClaimBatch(requested_at, [held.pointer for held in pointers], is_urgent))
        rows = [
            ClaimedRow(claimed_of(held.pointer), claim_request(held.pointer), requested_at, held)
            for held in pointers
            if self._claim(held.pointer)
        ]
        is_lost = self.loses_reply()
        await asyncio.sleep(self.claim_s)
        claimed = {row.held for row in rows}
        for held in pointers:
            if held not in claimed:
                held.settle()
        if is_lost:
            self._write_returns(rows, ())
            return []
        return rows

    async def attempt(self, row: ClaimedRow) -> AttemptTiming:
        claimed, started_at = row.claimed, now()
        self.calls.append((started_at, claimed.queue, claimed.id))
        task = asyncio.current_task()
        self.by_consumer[task.get_name() if task else ""].append(started_at)
        try:
            answered = await self.call(row)
        except asyncio.CancelledError:
            self.cancelled += 1
            self._record(row)
            raise
        if self.record_s:
            asyncio.get_running_loop().call_later(self.record_s, self._record, row)
        else:
            self._record(row)
        return AttemptTiming(now() - started_at, answered=answered)

    async def call(self, _row: ClaimedRow) -> bool:
        """Call the provider; return whether it answered."""
        await asyncio.sleep(self.latency_s)
        return True

    async def give_back(
        self, rows: Sequence[ClaimedRow], pointers: Sequence[HeldPointer] = ()
    ) -> None:
        await asyncio.sleep(self.return_s)
        self.on_return()
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable
        self._write_returns(rows, pointers)

    def abandon(self, rows: Sequence[ClaimedRow]) -> None:
        self.abandoned += rows

    async def waiting(self, _queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        self.polled.append(now())
        await asyncio.sleep(0.002)
        return self.due

    def pointers(
        self, queue: QueueKey, number: int, *, size: int = 0, deaths: int = 0
    ) -> list[Pointer]:
        return [
            Pointer(
                queue=queue,
                id=NotificationId(UUID(int=next(self._ids))),
                claim=0,
                published_at=now(),
                size=size,
                deaths=deaths,
            )
            for _ in range(number)
        ]

    @property
    def rows_claimed(self) -> int:
        """How many rows were asked for in all claims."""
        return sum(len(batch.pointers) for batch in self.claims)

    def ids_called(self) -> Counter[NotificationId]:
        return Counter(id_ for _, _, id_ in self.calls)

    def calls_of(self, queue: QueueKey) -> list[float]:
        return [at for at, of, _ in self.calls if of == queue]

    def _claim(self, pointer: Pointer) -> bool:
        if pointer.id in self._claimed or self._claim_numbers[pointer.id] != pointer.claim:
            return False
        self._claimed.add(pointer.id)
        self._claim_numbers[pointer.id] += 1
        return True

    def _record(self, row: ClaimedRow) -> None:
        self.recorded[row.claimed.id] += 1
        row.held.settle()

    def _write_returns(self, rows: Sequence[ClaimedRow], pointers: Sequence[HeldPointer]) -> None:
        for row in rows:
            self._claimed.discard(row.claimed.id)
            self.returned_rows.append((now(), row.claimed.id))
            self.returned.append(msgspec.structs.replace(row.held.pointer, claim=row.claimed.claim))
        self.returned += [held.pointer for held in pointers]
        for held in (*(row.held for row in rows), *pointers):
            held.settle()


class CountingObserver(Metrics):
    """An observer that counts the moves in the backend."""

    def __init__(self, backend: FakeBackend) -> None:
        super().__init__((), {}, version="0")
        self._world = backend

    def consumers_moved(self, queue: QueueKey, count: int) -> None:
        self._world.moved[queue] += count


class FragileBroker:
    """The in-process broker behind connections that a test can cut or block.

    A queue in `stuck` does not reply to `set_prefetch`.
    """

    def __init__(self, inner: Broker) -> None:
        self._inner = inner
        self._subscriptions: list[FragileSubscription] = []
        self.stuck: set[QueueKey] = set()
        self.publish = inner.publish
        self.probe = inner.probe
        self.refused_queues = inner.refused_queues
        self.foreign_pointers = inner.foreign_pointers

    async def depths(self, queues: Collection[QueueKey] = ()) -> Mapping[QueueKey, Depth]:
        return await self._inner.depths(queues)

    @asynccontextmanager
    async def subscribe(self, queue: QueueKey, receiver: Receiver) -> AsyncIterator[Subscription]:
        async with AsyncExitStack() as stack:
            subscription = FragileSubscription(self, queue, stack, receiver)
            await subscription.connect(self._inner)
            self._subscriptions.append(subscription)
            yield subscription

    async def cut(self) -> None:
        for subscription in self._subscriptions:
            await subscription.cut()


class FragileSubscription:
    def __init__(
        self,
        broker: FragileBroker,
        queue: QueueKey,
        stack: AsyncExitStack,
        receiver: Receiver,
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._stack = stack
        self._receiver = receiver
        self._prefetch = 0

    async def connect(self, inner: Broker) -> None:
        async def reconnect() -> None:
            inner_subscription = inner.subscribe(self._queue, self._receiver)
            self._inner = await self._stack.enter_async_context(inner_subscription)
            await self._inner.set_prefetch(self._prefetch)

        self._reconnect = reconnect
        await reconnect()

    async def set_prefetch(self, prefetch: int) -> None:
        if self._queue in self._broker.stuck:
            await asyncio.sleep(3600)
        self._prefetch = prefetch
        await self._inner.set_prefetch(prefetch)

    def ack(self, message: Message) -> None:
        self._inner.ack(message)

    async def cut(self) -> None:
        self._receiver.connection_lost()
        await self._stack.aclose()
        await self._reconnect()


def rule(
    queue: QueueKey, consumer_rate: float | None = None, bulkhead: int | None = None
) -> QueueRule:
    return QueueRule(
        queue=queue,
        weight=WEIGHTS[queue.priority],
        target_wait_s=TARGETS[queue.priority],
        consumer_rate=consumer_rate,
        bulkhead=bulkhead,
    )


def ports_of(backend: FakeBackend, broker: Broker) -> PoolPorts:
    return PoolPorts(
        broker=broker, store=backend, attempts=backend, observer=CountingObserver(backend)
    )


@asynccontextmanager
async def open_pool(
    backend: FakeBackend,
    queues: Sequence[QueueKey] = QUEUES,
    *,
    consumers: int = 64,
    consumer_rate: float | None = None,
    bulkhead: int | None = None,
    environment: Deployment | None = None,
) -> AsyncIterator[tuple[ConsumerPool, FragileBroker]]:
    async with open_inprocess_broker(queues) as inner:
        broker = FragileBroker(inner)
        async with open_consumer_pool(
            PoolSettings(
                rules=[rule(queue, consumer_rate, bulkhead) for queue in queues],
                consumers=consumers,
            ),
            ports_of(backend, broker),
            environment or deployment(),
            clock=asyncio.get_running_loop().time,
            random=Random(1),
        ) as pool:
            yield pool, broker


def max_in_any_second(moments: Sequence[float]) -> int:
    moments = sorted(moments)
    return max(
        (bisect_left(moments, at + 1 - 1e-9) - first for first, at in enumerate(moments)),
        default=0,
    )


@asynccontextmanager
async def three_workers(backend: FakeBackend) -> AsyncIterator[tuple[list[ConsumerPool], Broker]]:
    """Three pools with 64 floating consumers each, on one broker."""
    pools: list[ConsumerPool] = []
    async with open_inprocess_broker(QUEUES) as broker, AsyncExitStack() as stack:
        for number in range(3):
            worker = open_consumer_pool(
                PoolSettings(rules=[rule(queue) for queue in QUEUES]),
                ports_of(backend, broker),
                deployment(cluster=Peers(pools, number, workers=3)),
                clock=asyncio.get_running_loop().time,
                random=Random(number),
            )
            pools.append(await stack.enter_async_context(worker))
        yield pools, broker
