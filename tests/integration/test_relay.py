"""The relay, from real rows into a real broker in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

import pytest

from notifier.adapters.inprocess.broker import InProcessBroker
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.publish_backoff import PublishBackoff
from notifier.delivery.publish_window import (
    MAX_POINTERS_PER_MESSAGE,
    MIN_WINDOW,
    QueueThroughput,
)
from notifier.delivery.relay import POLL_INTERVAL_S, Relay, Relays
from notifier.domain.controls import SendPermission
from notifier.domain.notification import Claimed, Priority, QueueKey, Status
from notifier.lifecycle import background_task
from notifier.ports.broker import ONE_EACH, Delivery, Pointer
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    QUEUES,
    SMS_HIGH,
    a_notification,
    a_result,
    claim_request,
    quotas,
    worker_id,
)


class Refusing(InProcessBroker):
    """The broker in memory, until it is told to confirm nothing."""

    is_refusing = False
    refused: QueueKey | None = None

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = ONE_EACH
    ) -> Sequence[bool]:
        if self.is_refusing:
            return [False] * len(pointers)
        taken = [pointer for pointer in pointers if pointer.queue != self.refused]
        await super().publish(taken, max_batch)
        return [pointer.queue != self.refused for pointer in pointers]

    async def probe(self) -> bool:
        return not self.is_refusing


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
def broker() -> Refusing:
    return Refusing(QUEUES)


class FixedCluster:
    """A cluster of `relays` registered processes, each queue drained at the same rate."""

    def __init__(self, relays: int = 1, drain_per_s: float = 0.0) -> None:
        self.relays = relays
        self.drain_per_s = drain_per_s

    def throughput(self) -> Mapping[QueueKey, QueueThroughput]:
        return dict.fromkeys(QUEUES, QueueThroughput(1, self.drain_per_s))

    def relay_count(self) -> int:
        return self.relays

    def is_registered(self) -> bool:
        return True


class FixedGates:
    """Gates that allow what the mapping says; every other queue is allowed."""

    def __init__(self, permissions: Mapping[QueueKey, SendPermission]) -> None:
        self.permissions = permissions

    def permission(self, queue: QueueKey) -> SendPermission:
        return self.permissions.get(queue, SendPermission.ALLOWED)


def relay_of(
    store: PostgresStore,
    broker: InProcessBroker,
    *,
    queues: Sequence[QueueKey] = QUEUES,
    drain_per_s: float = 0.0,
    relays: int = 1,
    permissions: Mapping[QueueKey, SendPermission] = {},
) -> Relay:
    return Relay(
        store=store,
        broker=broker,
        observer=Metrics(QUEUES, {}, version="0"),
        queues=queues,
        cluster=FixedCluster(relays, drain_per_s),
        gates=FixedGates(permissions),
    )


def relays_of(store: PostgresStore, broker: InProcessBroker) -> Relays:
    return Relays(
        store=store,
        broker=broker,
        observer=Metrics(QUEUES, {}, version="0"),
        queues=QUEUES,
        cluster=FixedCluster(),
        gates=FixedGates({}),
    )


async def ready(broker: InProcessBroker) -> dict[str, int]:
    return {str(queue): depth.ready for queue, depth in (await broker.depths()).items()}


async def due(store: PostgresStore) -> int:
    return sum(waiting.due for waiting in (await store.waiting(QUEUES)).values())


async def test_due_rows_become_pointers_in_their_queues(
    store: PostgresStore, broker: Refusing
) -> None:
    await store.insert([a_notification(queue) for queue in QUEUES])
    assert await relay_of(store, broker).run_once() == 9
    assert await ready(broker) == {str(queue): 1 for queue in QUEUES}
    assert await due(store) == 0


async def test_a_backlog_stays_in_postgres_beyond_the_window(
    store: PostgresStore, broker: Refusing
) -> None:
    await store.insert([a_notification(EMAIL_LOW) for _ in range(300)])
    relay = relay_of(store, broker)
    for _ in range(5):
        await relay.run_once()
    assert (await ready(broker))["email.low"] == MIN_WINDOW
    assert await due(store) == 300 - MIN_WINDOW


async def test_two_relays_fill_a_window_once_between_them(
    store: PostgresStore, broker: Refusing
) -> None:
    await store.insert([a_notification(EMAIL_LOW) for _ in range(300)])
    one, other = (relay_of(store, broker, drain_per_s=100, relays=2) for _ in range(2))
    assert await one.run_once() == 50
    assert await other.run_once() == 50


async def test_a_full_pass_starves_no_queue(store: PostgresStore, broker: Refusing) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(400)])
    await store.insert([a_notification(EMAIL_LOW) for _ in range(400)])
    relay = relay_of(store, broker, drain_per_s=2000)
    taken = [await relay.run_once() for _ in range(3)]
    assert taken == [500, 300, 0]
    assert await ready(broker) == {
        str(queue): 400 if queue in {EMAIL_HIGH, EMAIL_LOW} else 0 for queue in QUEUES
    }


async def test_what_is_not_confirmed_is_due_again_and_nothing_more_is_taken(
    store: PostgresStore, broker: Refusing
) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(40)])
    relay = relay_of(store, broker)
    broker.is_refusing = True
    await relay.run_once()
    assert await due(store) == 40
    assert await relay.run_once() == 0
    assert await due(store) == 40
    broker.is_refusing = False
    assert await relay.run_once() >= MIN_WINDOW - 1  # one place is kept for a retry


async def test_a_queue_that_takes_no_publishes_holds_up_no_other(
    store: PostgresStore, broker: Refusing
) -> None:
    await store.insert([a_notification(EMAIL_LOW) for _ in range(40)])
    relay = relay_of(store, broker)
    broker.refused = EMAIL_LOW
    await store.insert([a_notification(EMAIL_HIGH)])
    await relay.run_once()
    for _ in range(3):
        await store.insert([a_notification(EMAIL_HIGH)])
        assert await relay.run_once() == 1
    assert (await ready(broker))["email.high"] == 4
    assert await due(store) == 40


def test_a_queue_rests_ever_longer_and_is_tried_with_one_pointer() -> None:
    backoff = PublishBackoff()
    assert backoff.limit(0.0, 500) == 500
    assert [backoff.record_failure(100.0 * n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.record_failure(730.0) == 30
    assert (backoff.limit(759.0, 500), backoff.limit(760.0, 500)) == (0, 1)
    backoff.reset()
    assert backoff.limit(0.0, 500) == 500


async def test_waking_it_publishes_at_once(
    store: PostgresStore, broker: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.relay.POLL_INTERVAL_S", 3600)
    arrived = asyncio.Event()
    relay = relay_of(store, broker)
    async with (
        broker.subscribe(
            EMAIL_HIGH, on_delivery=lambda _: arrived.set(), on_lost=lambda: None
        ) as lane,
        background_task(relay.run, "relay"),
    ):
        await lane.set_prefetch(1)
        for _ in range(2):  # the second after it has come to rest
            arrived.clear()
            await store.insert([a_notification(EMAIL_HIGH)])
            relay.wake()
            await arrived.wait()
            await lane.set_prefetch(2)
        relay.wake()  # to see that it is to stop


async def test_a_backlog_is_taken_pass_after_pass_without_a_rest(
    store: PostgresStore, broker: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no retry waits, for which each pass leaves a place."""
    monkeypatch.setattr("notifier.delivery.relay.POLL_INTERVAL_S", 3600)
    for _ in range(4):
        await store.insert([a_notification(EMAIL_HIGH) for _ in range(500)])
    relay = relay_of(store, broker, drain_per_s=10_000)
    async with background_task(relay.run, "relay"):
        while (await ready(broker))["email.high"] < 1900:
            await asyncio.sleep(0.01)
        relay.wake()  # to see that it is to stop


@pytest.mark.parametrize("permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN])
async def test_nothing_is_taken_of_what_is_held_back_and_the_rest_goes_on(
    store: PostgresStore, broker: Refusing, permission: SendPermission
) -> None:
    await store.insert([a_notification(queue) for queue in (EMAIL_HIGH, EMAIL_LOW)])
    permissions = {EMAIL_HIGH: permission}
    relay = relay_of(store, broker, permissions=permissions)
    assert await relay.run_once() == 1
    assert await relay.run_once() == 0
    assert (await ready(broker))["email.high"] == 0
    assert await due(store) == 1
    permissions.clear()
    assert await relay.run_once() == 1


async def test_a_window_does_not_grow_while_its_queue_is_held_back(
    store: PostgresStore, broker: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.relay.POLL_INTERVAL_S", 0)
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(400)])
    permissions = dict[QueueKey, SendPermission]()
    relay = relay_of(store, broker, permissions=permissions)
    await relay.run_once()
    await drained(broker, EMAIL_HIGH)
    permissions[EMAIL_HIGH] = SendPermission.PAUSED
    for _ in range(10):
        await relay.run_once()
    permissions.clear()
    assert await relay.run_once() <= 2 * MIN_WINDOW


async def drained(broker: Refusing, queue: QueueKey) -> None:
    """Take and settle all that is ready there."""
    held = list[Delivery]()
    async with broker.subscribe(queue, on_delivery=held.append, on_lost=lambda: None) as lane:
        await lane.set_prefetch(1000)
        while (await ready(broker))[str(queue)]:
            await asyncio.sleep(0)
        await lane.set_prefetch(0)
        for delivery in held:
            lane.ack(delivery)


async def test_a_probe_is_one_pointer_at_a_time(store: PostgresStore, broker: Refusing) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(40)])
    relay = relay_of(store, broker, permissions={EMAIL_HIGH: SendPermission.PROBE})
    for _ in range(6):
        await relay.run_once()
    assert (await ready(broker))["email.high"] == 1


async def test_a_probe_may_be_a_retry_and_is_still_one(
    store: PostgresStore, broker: Refusing
) -> None:
    await a_retry_is_due(store)
    permissions = {EMAIL_HIGH: SendPermission.PROBE}
    relay = relay_of(store, broker, permissions=permissions)
    assert sum([await relay.run_once() for _ in range(2)]) == 1
    await drained(broker, EMAIL_HIGH)
    await a_retry_is_due(store)
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(3)])
    relay = relay_of(store, broker, permissions=permissions)
    assert sum([await relay.run_once() for _ in range(4)]) == 1


async def a_retry_is_due(store: PostgresStore) -> None:
    """A row of email.high that failed once and is due again."""
    await store.insert([a_notification(EMAIL_HIGH)])
    ((pointer, _),) = await store.take_due(quotas(EMAIL_HIGH), 10)
    (claimed,) = await store.claim([claim_request(pointer)])
    assert isinstance(claimed, Claimed)
    await store.record([a_result(claimed, Status.RETRYING, after=timedelta(0))])


async def test_the_probe_goes_first_to_what_is_ready_already(
    store: PostgresStore, broker: Refusing
) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(40)])
    permissions = dict[QueueKey, SendPermission]()
    relay = relay_of(store, broker, permissions=permissions)
    taken = await relay.run_once()
    permissions[EMAIL_HIGH] = SendPermission.PROBE
    assert [await relay.run_once() for _ in range(3)] == [0, 0, 0]
    assert (await ready(broker))["email.high"] == taken


async def test_it_rests_while_all_that_is_due_is_held_back(
    store: PostgresStore, broker: Refusing
) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(600)])

    class Paused:
        checks = 0

        def permission(self, _: QueueKey) -> SendPermission:
            self.checks += 1
            return SendPermission.PAUSED

    gates = Paused()
    relay = Relay(
        store=store,
        broker=broker,
        observer=Metrics(QUEUES, {}, version="0"),
        queues=QUEUES,
        cluster=FixedCluster(),
        gates=gates,
    )
    began = time.monotonic()
    async with background_task(relay.run, "relay"):
        await asyncio.sleep(0.55)
    passes = gates.checks / len(QUEUES)
    assert 1 <= passes <= 2 + (time.monotonic() - began) / POLL_INTERVAL_S
    assert await due(store) == 600


class Slow(InProcessBroker):
    """The broker in memory, which confirms one queue's messages when it is told to."""

    def __init__(self, queues: Sequence[QueueKey], slow: QueueKey) -> None:
        super().__init__(queues)
        self.slow = slow
        self.asked = asyncio.Event()
        self.confirms = asyncio.Event()

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = ONE_EACH
    ) -> Sequence[bool]:
        if any(pointer.queue == self.slow for pointer in pointers):
            self.asked.set()
            await self.confirms.wait()
        return await super().publish(pointers, max_batch)


async def test_what_is_urgent_waits_for_no_confirm_of_what_is_not(store: PostgresStore) -> None:
    broker = Slow(QUEUES, EMAIL_LOW)
    relays = relays_of(store, broker)
    await store.insert([a_notification(EMAIL_LOW)])
    async with background_task(relays.run, "relays"):
        await broker.asked.wait()
        await store.insert([a_notification(EMAIL_HIGH)])
        relays.wake([Priority.HIGH])
        while (await ready(broker))["email.high"] == 0:
            await asyncio.sleep(0.01)
        assert (await ready(broker))["email.low"] == 0
        broker.confirms.set()
        while (await ready(broker))["email.low"] == 0:
            await asyncio.sleep(0.01)
        relays.close()


async def looked(relay: Relay) -> Relay:
    """The relay, after a pass."""
    await relay.run_once()
    return relay


async def test_new_rows_are_admitted_to_what_is_left_of_the_window(
    store: PostgresStore, broker: Refusing
) -> None:
    relay = await looked(relay_of(store, broker))
    assert relay.reserve(EMAIL_HIGH, 10) == 10
    assert relay.reserve(EMAIL_HIGH, 1000) == MIN_WINDOW - 10
    assert relay.reserve(EMAIL_HIGH, 1) == 0
    assert relay.reserve(EMAIL_LOW, 1) == 1
    relay.release(EMAIL_HIGH, 5)
    assert relay.reserve(EMAIL_HIGH, 1000) == 5
    other = await looked(relay_of(store, broker, relays=4))
    assert other.reserve(EMAIL_HIGH, 1000) == MIN_WINDOW / 4


async def test_what_is_admitted_takes_the_room_of_what_is_due(
    store: PostgresStore, broker: Refusing
) -> None:
    relay = await looked(relay_of(store, broker))
    relay.reserve(EMAIL_HIGH, 20)
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(100)])
    assert await relay.run_once() == MIN_WINDOW - 20


async def test_none_is_admitted_before_the_relay_has_looked_nor_long_after(
    store: PostgresStore, broker: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = relay_of(store, broker)
    assert relay.reserve(EMAIL_HIGH, 1) == 0
    assert (await looked(relay)).reserve(EMAIL_HIGH, 1) == 1
    monkeypatch.setattr("notifier.delivery.relay.RECENT_PASS_S", 0.0)
    assert relay.reserve(EMAIL_HIGH, 1) == 0


@pytest.mark.parametrize(
    "permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN, SendPermission.PROBE]
)
async def test_none_is_admitted_to_what_is_held_back(
    store: PostgresStore, broker: Refusing, permission: SendPermission
) -> None:
    relay = await looked(relay_of(store, broker, permissions={EMAIL_HIGH: permission}))
    assert relay.reserve(EMAIL_HIGH, 1) == 0
    assert relay.reserve(EMAIL_LOW, 1) == 1


async def test_none_is_admitted_to_what_was_held_back_before_the_relay_has_looked_again(
    store: PostgresStore, broker: Refusing
) -> None:
    permissions = {EMAIL_HIGH: SendPermission.PAUSED}
    relay = await looked(relay_of(store, broker, permissions=permissions))
    permissions.clear()
    assert relay.reserve(EMAIL_HIGH, 1) == 0
    assert (await looked(relay)).reserve(EMAIL_HIGH, 1) == 1


async def test_none_is_admitted_before_those_that_wait(
    store: PostgresStore, broker: Refusing
) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(600)])
    relay = relay_of(store, broker, drain_per_s=2000)
    assert await relay.run_once() == 500  # a whole pass: there is room for the rest
    assert relay.reserve(EMAIL_HIGH, 1) == 0


async def test_none_is_admitted_while_the_queue_or_the_broker_takes_nothing(
    store: PostgresStore, broker: Refusing
) -> None:
    relay = relay_of(store, broker)
    broker.refused = EMAIL_HIGH
    await store.insert([a_notification(EMAIL_HIGH), a_notification(EMAIL_LOW)])
    await relay.run_once()
    assert relay.reserve(EMAIL_HIGH, 1) == 0
    assert relay.reserve(EMAIL_LOW, 1) == 1
    broker.is_refusing = True
    await store.insert([a_notification(EMAIL_LOW)])
    await relay.run_once()
    assert relay.reserve(SMS_HIGH, 1) == 0


async def handed(store: PostgresStore, relay: Relay, *queues: QueueKey) -> None:
    """New rows of these queues, stored as taken and handed over."""
    items = [a_notification(queue) for queue in queues]
    for pointer in await store.insert(items, published={item.id for item in items}):
        relay.enqueue(pointer)


async def test_what_is_handed_over_is_published_also_after_the_stop(
    store: PostgresStore, broker: Refusing
) -> None:
    relays = relays_of(store, broker)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        run = group.create_task(relays.run(stop))
        while not relays.reserve({EMAIL_HIGH: 1})[EMAIL_HIGH]:
            await asyncio.sleep(0.01)
        stop.set()
        relays.wake()
        while relays.reserve({EMAIL_HIGH: 1})[EMAIL_HIGH]:
            await asyncio.sleep(0.01)
        items = [a_notification(queue) for queue in QUEUES]
        relays.enqueue(await store.insert(items, published={item.id for item in items}))
        assert not run.done()
        relays.close()
    assert await ready(broker) == {str(queue): 1 for queue in QUEUES}


async def test_what_is_handed_over_and_not_confirmed_is_due(
    store: PostgresStore, broker: Refusing
) -> None:
    broker.is_refusing = True
    relay = relay_of(store, broker)
    await handed(store, relay, EMAIL_HIGH, EMAIL_HIGH, EMAIL_LOW)
    relay.close()
    await relay.publish_directly()
    assert await due(store) == 3
    assert await relay.run_once() == 0


async def test_what_is_handed_over_while_its_queue_rests_is_due_and_not_published(
    store: PostgresStore, broker: Refusing
) -> None:
    relay = relay_of(store, broker)
    broker.refused = EMAIL_HIGH
    await handed(store, relay, EMAIL_HIGH)
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.publish_directly())
        while await due(store) < 1:
            await asyncio.sleep(0.01)
        broker.refused = None
        await handed(store, relay, EMAIL_HIGH)
        relay.close()
    assert await due(store) == 2
    assert (await ready(broker))["email.high"] == 0


async def test_what_is_handed_over_when_its_queue_was_paused_meanwhile_is_due_and_not_published(
    store: PostgresStore, broker: Refusing
) -> None:
    permissions = dict[QueueKey, SendPermission]()
    relay = await looked(relay_of(store, broker, permissions=permissions))
    assert relay.reserve(EMAIL_HIGH, 1) == 1
    permissions[EMAIL_HIGH] = SendPermission.PAUSED
    await handed(store, relay, EMAIL_HIGH, EMAIL_LOW)
    relay.close()
    await relay.publish_directly()
    assert await due(store) == 1
    assert await ready(broker) == {str(queue): queue == EMAIL_LOW for queue in QUEUES}


async def test_a_confirm_that_is_late_closes_its_queue_and_holds_up_no_other(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.direct_publisher.PUBLISH_LATE_S", 0.0)
    broker = Slow(QUEUES, EMAIL_HIGH)
    relay = await looked(relay_of(store, broker))
    assert relay.reserve(EMAIL_HIGH, 1) == 1
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.publish_directly())
        await handed(store, relay, EMAIL_HIGH)
        await broker.asked.wait()
        await handed(store, relay, SMS_HIGH)
        while (await ready(broker))["sms.high"] == 0:
            await asyncio.sleep(0.01)
        await looked(relay)
        assert relay.reserve(EMAIL_HIGH, 1) == 0
        broker.confirms.set()
        relay.close()
    assert (await ready(broker))["email.high"] == 1
    await looked(relay)
    assert relay.reserve(EMAIL_HIGH, 1000) == MIN_WINDOW - 1


async def test_messages_carry_several_pointers_where_a_lot_is_drained(
    store: PostgresStore,
) -> None:
    asked = list[Mapping[QueueKey, int]]()

    class Listening(Refusing):
        async def publish(
            self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = ONE_EACH
        ) -> Sequence[bool]:
            asked.append(max_batch)
            return await super().publish(pointers, max_batch)

    for drain_per_s, batch_sizes in ((0.0, 1), (170.0, 5), (1e6, MAX_POINTERS_PER_MESSAGE)):
        await store.insert([a_notification(EMAIL_HIGH)])
        await relay_of(store, Listening(QUEUES), drain_per_s=drain_per_s).run_once()
        assert asked[-1][EMAIL_HIGH] == batch_sizes
