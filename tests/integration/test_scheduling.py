"""The whole crew with the in-process broker, on a loop whose clock jumps instead of waiting.

Such a loop makes seconds of work exact and quick, and a wake-up that was lost an error: it raises
when nothing is left that could ever wake anybody.
"""

from __future__ import annotations

import asyncio
import selectors
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from itertools import count, pairwise
from random import Random
from typing import TypeVar
from uuid import UUID

import pytest

from notifier.adapters.inprocess.broker import open_inprocess_broker
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.controls import SendPermission
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Channel, NotificationId, Priority, QueueKey
from notifier.domain.timing import AttemptTiming
from notifier.ports.broker import Broker, Delivery, Depth, Pointer, Receiver, Subscription
from notifier.ports.rates import Slice
from notifier.ports.store import Waiting
from notifier.scheduling.consumers.deployment import Deployment
from notifier.scheduling.consumers.lane import QueueRule
from notifier.scheduling.consumers.pool import (
    ConsumerPool,
    PoolPorts,
    PoolSettings,
    open_consumer_pool,
)
from notifier.scheduling.rates.provider_rate import ProviderRate
from tests.scheduling_fakes import FakeGates, Peers, SingleWorker, deployment

T = TypeVar("T")
WEIGHTS = {Priority.HIGH: 8.0, Priority.MEDIUM: 3.0, Priority.LOW: 1.0}
TARGETS = {Priority.HIGH: 1.0, Priority.MEDIUM: 10.0, Priority.LOW: 60.0}
QUEUES = tuple(
    QueueKey(Channel(channel), priority)
    for channel in ("email", "sms", "push")
    for priority in Priority
)
EMAIL_HIGH = QueueKey(Channel("email"), Priority.HIGH)
EMAIL_LOW = QueueKey(Channel("email"), Priority.LOW)
SMS_HIGH = QueueKey(Channel("sms"), Priority.HIGH)


# ---- a clock that jumps


class JumpingSelector(selectors.DefaultSelector):
    """Never waits: a wait moves the clock."""

    now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits and nobody will come")
        self.now += max(1e-9, timeout)  # a clock that stands still is one no limiter expects
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def play(scene: Awaitable[T]) -> T:
    async def run() -> T:
        return await scene

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(run())


def now() -> float:
    return asyncio.get_running_loop().time()


# ---- the world around the crew


class World:
    """A provider that takes `latency_s`, a Postgres in memory, and a record of their calls.

    It implements ports.attempts.AttemptRunner and the store's `waiting`.
    """

    def __init__(self) -> None:
        self.latency_s = 0.02
        self.calls: list[tuple[float, QueueKey, NotificationId]] = []
        self.by_consumer: dict[str, list[float]] = defaultdict(list)
        self.acked: Counter[NotificationId] = Counter()
        self.returned: list[Pointer] = []
        self.refusals = 0
        self.on_return: Callable[[], None] = lambda: None
        self.cancelled = 0
        self.due: dict[QueueKey, Waiting] = {}
        self.polled: list[float] = []
        self.moved: Counter[QueueKey] = Counter()
        self._ids = count(1)

    async def attempt(self, delivery: Delivery, ack: Callable[[Delivery], None]) -> AttemptTiming:
        pointer, began = delivery.pointer, now()
        self.calls.append((began, pointer.queue, pointer.id))
        task = asyncio.current_task()
        self.by_consumer[task.get_name() if task else ""].append(began)
        try:
            await asyncio.sleep(self.latency_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.acked[pointer.id] += 1
        ack(delivery)
        return AttemptTiming(now() - began, answered=True)

    async def give_back_pointers(self, pointers: Sequence[Pointer]) -> None:
        await asyncio.sleep(0.005)
        self.on_return()
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable
        self.returned.extend(pointers)

    async def waiting(self, _queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        self.polled.append(now())
        await asyncio.sleep(0.002)
        return self.due

    def pointers(self, queue: QueueKey, number: int) -> list[Pointer]:
        return [
            Pointer(
                queue=queue,
                id=NotificationId(UUID(int=next(self._ids))),
                claim=0,
                published_at=now(),
            )
            for _ in range(number)
        ]

    def ids_called(self) -> Counter[NotificationId]:
        return Counter(id_ for _, _, id_ in self.calls)

    def calls_of(self, queue: QueueKey) -> list[float]:
        return [at for at, of, _ in self.calls if of == queue]


class Counting(Metrics):
    """An observer that tells the world of the moves."""

    def __init__(self, world: World) -> None:
        super().__init__((), {}, version="0")
        self._world = world

    def consumers_moved(self, queue: QueueKey, count: int) -> None:
        self._world.moved[queue] += count


class FragileBroker:
    """The in-process broker behind connections that can be lost and that can answer slowly."""

    def __init__(self, inner: Broker) -> None:
        self._inner = inner
        self._wires: list[Wire] = []
        self.stuck: set[QueueKey] = set()
        self.publish = inner.publish
        self.probe = inner.probe

    async def depths(self, queues: Collection[QueueKey] = ()) -> Mapping[QueueKey, Depth]:
        return await self._inner.depths(queues)

    @asynccontextmanager
    async def subscribe(self, queue: QueueKey, receiver: Receiver) -> AsyncIterator[Subscription]:
        async with AsyncExitStack() as stack:
            wire = Wire(self, queue, stack, receiver)
            await wire.connect(self._inner)
            self._wires.append(wire)
            yield wire

    async def lose(self) -> None:
        for wire in self._wires:
            await wire.cut()


class Wire:
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
            subscription = inner.subscribe(self._queue, self._receiver)
            self._inner = await self._stack.enter_async_context(subscription)
            await self._inner.set_prefetch(self._prefetch)

        self._reconnect = reconnect
        await reconnect()

    async def set_prefetch(self, prefetch: int) -> None:
        if self._queue in self._broker.stuck:
            await asyncio.sleep(3600)
        self._prefetch = prefetch
        await self._inner.set_prefetch(prefetch)

    @property
    def max_held(self) -> int:
        return self._inner.max_held

    def ack(self, delivery: Delivery) -> None:
        self._inner.ack(delivery)

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


def ports_of(world: World, broker: Broker) -> PoolPorts:
    return PoolPorts(broker=broker, store=world, attempts=world, observer=Counting(world))


@asynccontextmanager
async def at_work(
    world: World,
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
            ports_of(world, broker),
            environment or deployment(),
            clock=asyncio.get_running_loop().time,
            random=Random(1),
        ) as pool:
            yield pool, broker


def most_in_any_second(moments: Sequence[float]) -> int:
    moments = sorted(moments)
    return max(
        (bisect_left(moments, at + 1 - 1e-9) - first for first, at in enumerate(moments)),
        default=0,
    )


# ---- they move


def test_five_thousand_low_draw_the_crew_and_a_high_one_is_still_taken_at_once() -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world) as (pool, broker):
            await asyncio.sleep(1)
            await broker.publish(world.pointers(EMAIL_LOW, 5_000))
            await asyncio.sleep(0.5)
            assert pool.figures()[EMAIL_LOW].consumers >= 0.8 * 64
            assert pool.figures()[EMAIL_LOW].busy >= 0.8 * 64
            asked = now()
            await broker.publish(world.pointers(SMS_HIGH, 1))
            await asyncio.sleep(0.001)
            assert world.calls_of(SMS_HIGH) == [pytest.approx(asked, abs=1e-6)]
            await asyncio.sleep(2)
            assert len(world.acked) == 5_001
            assert set(world.ids_called().values()) == {1}

    play(scene())


def test_rows_that_are_due_count_before_they_are_published() -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world) as (pool, _):
            backlog = Waiting(due=1_000, is_ceiling=True, oldest_wait=timedelta(seconds=1))
            world.due = {EMAIL_LOW: backlog}
            await asyncio.sleep(0.5)
            assert pool.figures()[EMAIL_LOW].consumers == 65
            assert pool.figures()[EMAIL_LOW].limited_by == "consumers"

    play(scene())


def test_a_poke_ends_the_rest_early_but_not_again_and_again_for_nothing() -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world) as (pool, _):
            for _ in range(2_000):
                await asyncio.sleep(0.001)
                pool.wake()
        gaps = [later - before for before, later in pairwise(world.polled)]
        assert min(gaps) >= 0.05
        assert len(world.polled) <= 12

    play(scene())


def test_a_lane_that_fills_up_wakes_the_scheduler() -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world) as (pool, broker):
            await asyncio.sleep(1.01)
            published = now()
            await broker.publish(world.pointers(EMAIL_LOW, 5_000))
            while pool.figures()[EMAIL_LOW].consumers < 64:
                await asyncio.sleep(0.001)
            assert now() - published < 0.1

    play(scene())


class FaultyStore(World):
    """A store that refuses or hangs when it is asked what waits."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    async def waiting(self, _queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        if self._fault == "hangs":
            await asyncio.sleep(3600)
        raise StoreUnavailable


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_a_postgres_that_is_away_stops_nobody_from_moving(fault: str) -> None:
    async def scene() -> None:
        async with at_work(world := FaultyStore(fault)) as (pool, broker):
            await broker.publish(world.pointers(EMAIL_LOW, 5_000))
            await asyncio.sleep(2.5)
            assert pool.figures()[EMAIL_LOW].done > 3_000

    play(scene())


def test_a_lane_whose_broker_does_not_answer_delays_no_other() -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world) as (pool, broker):
            await asyncio.sleep(1)
            broker.stuck = {SMS_HIGH}
            await broker.publish(world.pointers(SMS_HIGH, 3_000))
            await asyncio.sleep(0.5)
            await broker.publish(world.pointers(EMAIL_HIGH, 500))
            await asyncio.sleep(2)
            assert pool.figures()[EMAIL_HIGH].done == 500

    play(scene())


# ---- many workers


@asynccontextmanager
async def three_workers(world: World) -> AsyncIterator[tuple[list[ConsumerPool], Broker]]:
    """Each with 64 that move, at one broker; what they know of each other is a second old."""
    pools: list[ConsumerPool] = []
    async with open_inprocess_broker(QUEUES) as broker, AsyncExitStack() as stack:
        for number in range(3):
            worker = open_consumer_pool(
                PoolSettings(rules=[rule(queue) for queue in QUEUES]),
                ports_of(world, broker),
                deployment(cluster=Peers(pools, number, workers=3)),
                clock=asyncio.get_running_loop().time,
                random=Random(number),
            )
            pools.append(await stack.enter_async_context(worker))
        yield pools, broker


def test_three_workers_draw_to_a_burst_each_and_a_high_one_is_still_taken_at_once() -> None:
    async def scene() -> None:
        world = World()
        async with three_workers(world) as (pools, broker):
            await asyncio.sleep(1)
            await broker.publish(world.pointers(EMAIL_LOW, 15_000))
            await asyncio.sleep(0.5)
            for pool in pools:
                assert pool.figures()[EMAIL_LOW].consumers >= 0.8 * 64
            asked = now()
            await broker.publish(world.pointers(SMS_HIGH, 1))
            await asyncio.sleep(0.001)
            assert world.calls_of(SMS_HIGH) == [pytest.approx(asked, abs=1e-6)]
            await asyncio.sleep(5)
            assert len(world.acked) == 15_001

    play(scene())


def test_three_workers_move_for_their_part_of_what_waits_and_not_for_all_of_it() -> None:
    async def scene() -> None:
        world = World()
        async with three_workers(world) as (pools, _):
            # A third of 300 is 100: at 20 ms (0.1 s until known) cleared in two ticks by 20.
            due = Waiting(due=300, is_ceiling=False, oldest_wait=timedelta(0))
            world.due = {EMAIL_LOW: due}
            await asyncio.sleep(0.5)
            assert [pool.figures()[EMAIL_LOW].consumers for pool in pools] == [20, 20, 20]

    play(scene())


# ---- what is held back


def test_a_queue_that_is_broken_calls_nobody_and_one_that_probes_one_at_a_time() -> None:
    async def scene() -> None:
        world, gates = World(), FakeGates()
        async with at_work(world, environment=deployment(gates=gates)) as (pool, broker):
            await broker.publish(world.pointers(SMS_HIGH, 50_000))
            await asyncio.sleep(2)
            gates.permissions[SMS_HIGH] = SendPermission.BREAKER_OPEN
            await asyncio.sleep(1)
            figures, calls = pool.figures()[SMS_HIGH], len(world.calls)
            assert (figures.busy, figures.held, figures.limited_by) == (0, 0, "breaker")
            gates.permissions[SMS_HIGH] = SendPermission.PROBE
            for _ in range(2_000):
                await asyncio.sleep(0.001)
                assert pool.figures()[SMS_HIGH].held <= 1
            figures = pool.figures()[SMS_HIGH]
            assert (figures.consumers, figures.limited_by) == (1, "breaker")
            assert 1 <= len(world.calls) - calls <= 100
            gates.permissions[SMS_HIGH] = SendPermission.ALLOWED
            await asyncio.sleep(1)
            assert pool.figures()[SMS_HIGH].busy > 40

    play(scene())


def test_a_paused_queue_calls_nobody_and_the_others_go_on() -> None:
    async def scene() -> None:
        world, gates = World(), FakeGates()
        gates.permissions[SMS_HIGH] = SendPermission.PAUSED
        async with at_work(world, environment=deployment(gates=gates)) as (pool, broker):
            await broker.publish(world.pointers(SMS_HIGH, 100))
            await broker.publish(world.pointers(EMAIL_LOW, 5_000))
            await asyncio.sleep(3)
            assert not world.calls_of(SMS_HIGH)
            assert pool.figures()[SMS_HIGH].limited_by == "pause"
            assert len(world.calls_of(EMAIL_LOW)) == 5_000

    play(scene())


@pytest.mark.parametrize("permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN])
def test_a_queue_held_back_begins_nothing_though_the_broker_is_slow_to_stop(
    permission: SendPermission,
) -> None:
    async def scene() -> None:
        world, gates = World(), FakeGates()
        async with at_work(world, environment=deployment(gates=gates)) as (pool, broker):
            await broker.publish(world.pointers(SMS_HIGH, 50_000))
            await asyncio.sleep(2)
            broker.stuck.add(SMS_HIGH)
            gates.permissions[SMS_HIGH] = permission
            pool.apply_permissions()
            begun = len(world.calls_of(SMS_HIGH)) + 1  # one may stand between its turn and its call
            await asyncio.sleep(5)
            assert len(world.calls_of(SMS_HIGH)) <= begun
            broker.stuck.clear()
            gates.permissions[SMS_HIGH] = SendPermission.ALLOWED
            await asyncio.sleep(2)
            assert len(world.calls_of(SMS_HIGH)) > begun + 100

    play(scene())


def test_a_channel_calls_no_more_at_once_than_its_bulkhead() -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world, bulkhead=8) as (pool, broker):
            await asyncio.sleep(1)
            for queue in QUEUES:
                await broker.publish(world.pointers(queue, 2_000))
            for _ in range(100):
                await asyncio.sleep(0.02)
                figures = pool.figures()
                assert sum(figures[queue].busy for queue in QUEUES if queue.channel == "sms") <= 8
            assert pool.figures()[SMS_HIGH].limited_by == "connections"

    play(scene())


class Closed:
    """A store of rates that gives no slot."""

    async def reserve(self, provider: str, rate_per_s: float, count: int) -> Slice:
        raise StoreUnavailable(f"{count} of {rate_per_s}/s for {provider}")

    async def cut(self, provider: str) -> bool:
        raise StoreUnavailable(provider)


@pytest.mark.parametrize(("share", "consumers"), [(1.0, 30), (0.25, 9)])
def test_a_worker_holds_what_its_part_of_the_providers_rate_employs(
    share: float, consumers: int
) -> None:
    """200/s at 100 ms, in whole: 1.25 * 20 in calls, 4 reserved, one that waits."""

    async def scene() -> None:
        world = World()
        rate = ProviderRate(
            "smtp",
            200.0,
            store=Closed(),
            observer=Counting(world),
            clock=now,
            random=Random(1),
        )
        environment = deployment(cluster=SingleWorker(share), rates={EMAIL_LOW: rate})
        async with at_work(world, environment=environment) as (pool, broker):
            await broker.publish(world.pointers(EMAIL_LOW, 5_000))
            await asyncio.sleep(2)
            figures = pool.figures()[EMAIL_LOW]
            assert (figures.consumers, figures.limited_by) == (consumers, "rate")
            assert figures.held <= 32

    play(scene())


class HangingWorld(World):
    """A provider of sms that may hang: its calls then time out after 20 s without an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.is_hung = False
        self.seconds = 20.0

    async def attempt(self, delivery: Delivery, ack: Callable[[Delivery], None]) -> AttemptTiming:
        if delivery.pointer.queue.channel != "sms" or not self.is_hung:
            return await super().attempt(delivery, ack)
        await asyncio.sleep(self.seconds)
        ack(delivery)
        return AttemptTiming(self.seconds, answered=False)


async def keep_busy(
    world: World, broker: Broker, queues: Sequence[QueueKey], span_s: float
) -> None:
    """1,000 a second, a third of what the crew is able to."""
    for _ in range(round(span_s / 0.02)):
        for queue in queues:
            await broker.publish(world.pointers(queue, 20 // len(queues)))
        await asyncio.sleep(0.02)


def test_a_provider_that_hangs_holds_a_quarter_and_is_back_when_it_answers() -> None:
    async def scene() -> None:
        world = HangingWorld()
        sms = [queue for queue in QUEUES if queue.channel == "sms"]
        async with at_work(world) as (pool, broker):
            async with asyncio.TaskGroup() as group:
                group.create_task(keep_busy(world, broker, [SMS_HIGH, EMAIL_HIGH], 120))
                await asyncio.sleep(10)
                world.is_hung = True
                await asyncio.sleep(35)
                for _ in range(200):
                    await asyncio.sleep(0.25)
                    figures = pool.figures()
                    assert sum(figures[queue].consumers for queue in sms) <= 16
                    assert sum(figures[queue].busy for queue in sms) <= 16
                    assert figures[SMS_HIGH].limited_by == "hang"
                    # Each is begun at once: none waits for a consumer that is not there.
                    assert figures[EMAIL_HIGH].held <= 3 * 20
                world.is_hung = False
                while pool.figures()[SMS_HIGH].limited_by == "hang":
                    await asyncio.sleep(0.01)
                answered = now()
                done = pool.figures()[SMS_HIGH].done
                await asyncio.sleep(2)
                assert now() - answered == pytest.approx(2)
                assert pool.figures()[SMS_HIGH].done - done > 1_000
            await asyncio.sleep(60)
            assert sum(pool.figures()[queue].held for queue in QUEUES) == 0

    play(scene())


def test_whoever_is_still_in_a_call_that_hangs_is_given_to_no_other_queue() -> None:
    async def scene() -> None:
        world = HangingWorld()
        world.is_hung = True
        async with at_work(world) as (pool, broker):
            await broker.publish(world.pointers(SMS_HIGH, 200))
            await asyncio.sleep(12)
            hung = pool.figures()[SMS_HIGH]
            assert (hung.busy, hung.consumers) == (40, 14)
            await broker.publish(world.pointers(EMAIL_LOW, 10_000))
            await asyncio.sleep(0.6)
            email = pool.figures()[EMAIL_LOW]
            assert email.busy == email.consumers == 1 + 64 - 39  # one of the 40 is standing

    play(scene())


# ---- no message is lost, none is handed out twice


@pytest.mark.parametrize("seed", range(5))
def test_whatever_moves_and_breaks_every_message_is_carried_out(seed: int) -> None:
    """Connections lost, bursts, slow and quick sends: each message at least once, and more than
    once only if the broker delivered it again or it was given back."""

    async def scene() -> None:
        world, random = World(), Random(seed)
        async with at_work(world, consumers=16) as (pool, broker):
            published: list[Pointer] = []
            losses = 0
            for _ in range(60):
                world.latency_s = random.choice([0.0, 0.001, 0.03, 0.3])
                batch = world.pointers(random.choice(QUEUES), random.choice([1, 2, 40, 400]))
                published += batch
                await broker.publish(batch)
                await asyncio.sleep(random.choice([0.0, 0.01, 0.2, 0.7]))
                if random.random() < 0.1:
                    await broker.lose()
                    losses += 1
            world.latency_s = 0.001
            for _ in range(400):
                again, world.returned = world.returned, []
                published_again = await broker.publish(again)
                assert all(published_again)
                await asyncio.sleep(0.1)
            assert set(world.acked) == {pointer.id for pointer in published}
            assert losses or set(world.ids_called().values()) == {1}
            assert all(side.held == 0 for side in pool.figures().values())

    play(scene())


def test_without_a_fault_each_message_is_carried_out_or_given_back_never_both() -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world) as (pool, broker):
            world.latency_s = 0.3
            low = world.pointers(EMAIL_LOW, 2_000)
            await broker.publish(low)
            await asyncio.sleep(2)
            await broker.publish(world.pointers(EMAIL_HIGH, 5_000))
            await asyncio.sleep(5)
            assert pool.figures()[EMAIL_LOW].consumers < 32
            called = {id_ for _, _, id_ in world.calls}
            returned = {pointer.id for pointer in world.returned}
            assert returned
            assert not called & returned

    play(scene())


def test_after_a_loss_the_buffer_is_dropped_and_what_is_in_flight_goes_on() -> None:
    async def scene() -> None:
        world = World()
        world.latency_s = 1.0
        async with at_work(world, [EMAIL_LOW], consumers=3) as (pool, broker):
            await broker.publish(world.pointers(EMAIL_LOW, 8))
            await asyncio.sleep(0.5)
            assert (pool.figures()[EMAIL_LOW].busy, pool.figures()[EMAIL_LOW].held) == (4, 4)
            await broker.lose()
            assert (pool.figures()[EMAIL_LOW].busy, pool.figures()[EMAIL_LOW].held) == (4, 0)
            await asyncio.sleep(5)
            # The four that were in flight came again: here the attempt's claim would refuse them.
            assert pool.figures()[EMAIL_LOW].done == 12
            assert len(world.acked) == 8

    play(scene())


# ---- going back through Postgres


def test_what_waits_for_a_minute_goes_back_and_is_acked_only_then() -> None:
    async def scene() -> None:
        world = World()
        rate = 0.005
        async with at_work(world, [EMAIL_LOW], consumers=1, consumer_rate=rate) as (pool, broker):
            pointers = world.pointers(EMAIL_LOW, 4)
            await broker.publish(pointers)
            await asyncio.sleep(1)
            assert len(world.calls) == 2
            world.refusals = 2
            held_at_return: list[int] = []
            world.on_return = lambda: held_at_return.append(pool.figures()[EMAIL_LOW].held)
            await asyncio.sleep(200)
            taken = {id_ for _, _, id_ in world.calls}
            assert not taken & {pointer.id for pointer in world.returned}
            assert taken | {pointer.id for pointer in world.returned} == {
                pointer.id for pointer in pointers
            }
            assert pool.figures()[EMAIL_LOW].held == 0
            assert world.refusals == 0
            assert held_at_return[:3] == [1, 1, 1]

    play(scene())


def test_stopping_gives_the_buffers_back_lets_attempts_finish_and_cancels_the_rest() -> None:
    async def scene() -> None:
        world = World()
        world.latency_s = 2.0
        async with at_work(world, [EMAIL_LOW, EMAIL_HIGH], consumers=4) as (pool, broker):
            await broker.publish(world.pointers(EMAIL_LOW, 20))
            await asyncio.sleep(1.5)
            running = pool.busy
            await pool.stop_taking()
            assert world.returned
            assert pool.figures()[EMAIL_LOW].held == running
            await broker.publish(world.pointers(EMAIL_HIGH, 5))
            assert await pool.finish(0.1) == running > 0
            assert await pool.finish(5) == 0
            calls = len(world.calls)
            await asyncio.sleep(5)
            assert len(world.calls) == calls
            assert not world.ids_called().keys() & {pointer.id for pointer in world.returned}
            assert (await broker.depths())[EMAIL_HIGH] == Depth(5, 0)
        assert world.cancelled == 0

    play(scene())


def test_what_does_not_finish_is_cancelled_at_the_end() -> None:
    async def scene() -> None:
        world = World()
        world.latency_s = 3600
        async with at_work(world, [EMAIL_LOW], consumers=4) as (pool, broker):
            await broker.publish(world.pointers(EMAIL_LOW, 3))
            await asyncio.sleep(0.5)
            await pool.stop_taking()
            assert await pool.finish(10) == 3
        assert world.cancelled == 3

    play(scene())


class FailingAttempts(World):
    """A world whose attempts raise."""

    async def attempt(self, _: Delivery, __: Callable[[Delivery], None]) -> AttemptTiming:
        raise ZeroDivisionError


def test_an_attempt_that_raises_ends_the_pool() -> None:
    async def scene() -> None:
        async with at_work(world := FailingAttempts()) as (_, broker):
            await broker.publish(world.pointers(EMAIL_LOW, 1))
            await asyncio.sleep(3600)

    with pytest.raises(ExceptionGroup) as caught:
        play(scene())
    assert caught.group_contains(ZeroDivisionError, depth=1)


# ---- rates


@pytest.mark.parametrize(("consumers", "most"), [(0, 5), (1, 10)])
def test_each_consumer_keeps_its_rate_in_any_second(consumers: int, most: int) -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world, [EMAIL_LOW], consumers=consumers, consumer_rate=5) as (_, broker):
            await asyncio.sleep(10)
            await broker.publish(world.pointers(EMAIL_LOW, 1_000))
            await asyncio.sleep(60)
            assert most_in_any_second(world.calls_of(EMAIL_LOW)) == most
            assert len(world.calls) >= 0.96 * most * 60

    play(scene())


def test_a_rate_above_ten_is_kept_within_its_stated_burst_and_used() -> None:
    async def scene() -> None:
        world = World()
        world.latency_s = 0.001
        async with at_work(world, [EMAIL_LOW], consumers=0, consumer_rate=100) as (_, broker):
            await asyncio.sleep(10)
            await broker.publish(world.pointers(EMAIL_LOW, 20_000))
            await asyncio.sleep(60)
            assert most_in_any_second(world.calls_of(EMAIL_LOW)) <= 105
            assert len(world.calls) >= 0.99 * 100 * 60

    play(scene())


def test_moving_gives_a_consumer_no_new_burst() -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world, consumers=4, consumer_rate=5) as (_, broker):
            for turn in range(40):
                queue = (EMAIL_LOW, EMAIL_HIGH)[turn % 2]
                await broker.publish(world.pointers(queue, 60))
                await asyncio.sleep(1.5)
            assert world.moved[EMAIL_LOW]
            assert world.moved[EMAIL_HIGH]
            for name, moments in world.by_consumer.items():
                assert most_in_any_second(moments) <= 5, name

    play(scene())


# ---- what the heartbeat says


def test_the_figures_say_what_is_held_and_for_how_long_a_queue_was_drained() -> None:
    async def scene() -> None:
        world = World()
        async with at_work(world, [EMAIL_LOW], consumers=2) as (pool, broker):
            await broker.publish(world.pointers(EMAIL_LOW, 1))
            published = now()
            await asyncio.sleep(8)
            figures = pool.figures()[EMAIL_LOW]
            assert figures.watermark is None
            assert 6 < figures.drained_s < 8
            assert (figures.consumers, figures.busy, figures.held) == (3, 0, 0)
            assert figures.service_s == pytest.approx(0.02)
            await asyncio.sleep(3)
            assert pool.figures()[EMAIL_LOW].watermark == pytest.approx(published, abs=1e-6)
            world.latency_s = 5
            await broker.publish(world.pointers(EMAIL_LOW, 1))
            taken = now()
            await asyncio.sleep(1)
            figures = pool.figures()[EMAIL_LOW]
            assert (figures.busy, figures.held) == (1, 1)
            assert figures.held_since == pytest.approx(taken, abs=1e-6)
            assert figures.drained_s == 0

    play(scene())
