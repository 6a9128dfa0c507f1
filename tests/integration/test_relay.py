"""The relay, from rows in a real Postgres to the in-process broker."""

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
from notifier.delivery.publish_window import (
    MIN_WINDOW,
    QueueThroughput,
)
from notifier.delivery.relay import POLL_INTERVAL_S, Relay, Relays
from notifier.domain.controls import SendPermission
from notifier.domain.notification import Claimed, Priority, QueueKey, Status
from notifier.lifecycle import background_task
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE, UNBATCHED, Pointer
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
from tests.conformance.receiving import subscribed


class RefusingBroker(InProcessBroker):
    """Confirms no publish while `is_refusing`, and none to the queue `refused`."""

    is_refusing = False
    refused: QueueKey | None = None

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = UNBATCHED
    ) -> Sequence[bool]:
        if self.is_refusing:
            return [False] * len(pointers)
        accepted = [pointer for pointer in pointers if pointer.queue != self.refused]
        await super().publish(accepted, max_batch)
        return [pointer.queue != self.refused for pointer in pointers]

    async def probe(self) -> bool:
        return not self.is_refusing


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
def broker() -> RefusingBroker:
    return RefusingBroker(QUEUES)


class FixedCluster:
    """A cluster of `relays` registered processes with the same throughput of each queue."""

    def __init__(
        self, relays: int = 1, drain_per_s: float = 0.0, worker_capacity_per_s: float = 0.0
    ) -> None:
        self.relays = relays
        self.drain_per_s = drain_per_s
        self.worker_capacity_per_s = worker_capacity_per_s

    def throughput(self) -> Mapping[QueueKey, QueueThroughput]:
        return dict.fromkeys(
            QUEUES, QueueThroughput(1, self.drain_per_s, self.worker_capacity_per_s)
        )

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
    worker_capacity_per_s: float = 0.0,
    relays: int = 1,
    permissions: Mapping[QueueKey, SendPermission] = {},
) -> Relay:
    return Relay(
        store=store,
        broker=broker,
        observer=Metrics(QUEUES, {}, version="0"),
        queues=queues,
        cluster=FixedCluster(relays, drain_per_s, worker_capacity_per_s),
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


async def ready_counts(broker: InProcessBroker) -> dict[str, int]:
    return {str(queue): depth.ready for queue, depth in (await broker.depths()).items()}


async def due_count(store: PostgresStore) -> int:
    return sum(waiting.due for waiting in (await store.waiting(QUEUES)).values())


async def test_due_rows_become_pointers_in_their_queues(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    await store.insert([a_notification(queue) for queue in QUEUES])
    assert await relay_of(store, broker).run_once() == 9
    assert await ready_counts(broker) == {str(queue): 1 for queue in QUEUES}
    assert await due_count(store) == 0


async def test_a_backlog_stays_in_postgres_beyond_the_window(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    await store.insert([a_notification(EMAIL_LOW) for _ in range(300)])
    relay = relay_of(store, broker)
    for _ in range(5):
        await relay.run_once()
    assert (await ready_counts(broker))["email.low"] == MIN_WINDOW
    assert await due_count(store) == 300 - MIN_WINDOW


async def test_two_relays_fill_a_window_once_between_them(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    await store.insert([a_notification(EMAIL_LOW) for _ in range(300)])
    relays = [relay_of(store, broker, drain_per_s=100, relays=2) for _ in range(2)]
    assert [await relay.run_once() for relay in relays] == [50, 50]


async def test_a_full_pass_starves_no_queue(store: PostgresStore, broker: RefusingBroker) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(400)])
    await store.insert([a_notification(EMAIL_LOW) for _ in range(400)])
    relay = relay_of(store, broker, drain_per_s=2000)
    counts = [await relay.run_once() for _ in range(3)]
    assert counts == [500, 300, 0]
    assert await ready_counts(broker) == {
        str(queue): 400 if queue in {EMAIL_HIGH, EMAIL_LOW} else 0 for queue in QUEUES
    }


async def test_unconfirmed_rows_are_due_again_and_no_more_are_taken(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(40)])
    relay = relay_of(store, broker)
    broker.is_refusing = True
    await relay.run_once()
    assert await due_count(store) == 40
    assert await relay.run_once() == 0
    assert await due_count(store) == 40
    broker.is_refusing = False
    assert await relay.run_once() >= MIN_WINDOW - 1  # one place is kept for a retry


async def test_a_queue_that_refuses_publishes_does_not_delay_the_others(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    await store.insert([a_notification(EMAIL_LOW) for _ in range(40)])
    relay = relay_of(store, broker)
    broker.refused = EMAIL_LOW
    await store.insert([a_notification(EMAIL_HIGH)])
    await relay.run_once()
    for _ in range(3):
        await store.insert([a_notification(EMAIL_HIGH)])
        assert await relay.run_once() == 1
    assert (await ready_counts(broker))["email.high"] == 4
    assert await due_count(store) == 40


async def test_a_woken_relay_publishes_at_once(
    store: PostgresStore, broker: RefusingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.relay.POLL_INTERVAL_S", 3600)
    relay = relay_of(store, broker)
    async with (
        subscribed(broker, EMAIL_HIGH, prefetch=1) as subscriber,
        background_task(relay.run, "relay"),
    ):
        for count in (1, 2):  # the second one while it waits for work
            await store.insert([a_notification(EMAIL_HIGH)])
            relay.wake()
            await subscriber.wait_for(count)
            await subscriber.subscription.set_prefetch(2)
        relay.wake()  # so that it notices the stop


async def test_a_backlog_is_published_in_passes_without_a_wait_between(
    store: PostgresStore, broker: RefusingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when no retry waits, although each pass keeps one place for a retry."""
    monkeypatch.setattr("notifier.delivery.relay.POLL_INTERVAL_S", 3600)
    for _ in range(4):
        await store.insert([a_notification(EMAIL_HIGH) for _ in range(500)])
    relay = relay_of(store, broker, drain_per_s=10_000)
    async with background_task(relay.run, "relay"):
        while (await ready_counts(broker))["email.high"] < 1900:
            await asyncio.sleep(0.01)
        relay.wake()  # so that it notices the stop


@pytest.mark.parametrize("permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN])
async def test_a_queue_that_may_not_send_is_left_alone_and_the_others_go_on(
    store: PostgresStore, broker: RefusingBroker, permission: SendPermission
) -> None:
    await store.insert([a_notification(queue) for queue in (EMAIL_HIGH, EMAIL_LOW)])
    permissions = {EMAIL_HIGH: permission}
    relay = relay_of(store, broker, permissions=permissions)
    assert await relay.run_once() == 1
    assert await relay.run_once() == 0
    assert (await ready_counts(broker))["email.high"] == 0
    assert await due_count(store) == 1
    permissions.clear()
    assert await relay.run_once() == 1


async def test_a_window_does_not_grow_while_its_queue_may_not_send(
    store: PostgresStore, broker: RefusingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.relay.POLL_INTERVAL_S", 0)
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(400)])
    permissions = dict[QueueKey, SendPermission]()
    relay = relay_of(store, broker, permissions=permissions)
    await relay.run_once()
    await drain(broker, EMAIL_HIGH)
    permissions[EMAIL_HIGH] = SendPermission.PAUSED
    for _ in range(10):
        await relay.run_once()
    permissions.clear()
    assert await relay.run_once() <= 2 * MIN_WINDOW


async def drain(broker: RefusingBroker, queue: QueueKey) -> None:
    """Receive and ack everything that is ready in the queue."""
    async with subscribed(broker, queue, prefetch=1000) as subscriber:
        while (await ready_counts(broker))[str(queue)]:
            await asyncio.sleep(0)
        await subscriber.subscription.set_prefetch(0)
        subscriber.ack(subscriber.messages)


async def test_a_probe_publishes_one_pointer_at_a_time(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(40)])
    relay = relay_of(store, broker, permissions={EMAIL_HIGH: SendPermission.PROBE})
    for _ in range(6):
        await relay.run_once()
    assert (await ready_counts(broker))["email.high"] == 1


async def test_a_probe_may_be_a_retry_and_is_still_one_pointer(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    await insert_due_retry(store)
    permissions = {EMAIL_HIGH: SendPermission.PROBE}
    relay = relay_of(store, broker, permissions=permissions)
    assert sum([await relay.run_once() for _ in range(2)]) == 1
    await drain(broker, EMAIL_HIGH)
    await insert_due_retry(store)
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(3)])
    relay = relay_of(store, broker, permissions=permissions)
    assert sum([await relay.run_once() for _ in range(4)]) == 1


async def insert_due_retry(store: PostgresStore) -> None:
    """Insert a row of email.high that failed once and is due again."""
    await store.insert([a_notification(EMAIL_HIGH)])
    ((pointer, _),) = await store.take_due(quotas(EMAIL_HIGH), 10)
    (claimed,) = await store.claim([claim_request(pointer)])
    assert isinstance(claimed, Claimed)
    await store.record([a_result(claimed, Status.RETRYING, after=timedelta(0))])


async def test_no_probe_is_published_while_a_pointer_is_ready(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(40)])
    permissions = dict[QueueKey, SendPermission]()
    relay = relay_of(store, broker, permissions=permissions)
    published = await relay.run_once()
    permissions[EMAIL_HIGH] = SendPermission.PROBE
    assert [await relay.run_once() for _ in range(3)] == [0, 0, 0]
    assert (await ready_counts(broker))["email.high"] == published


async def test_the_relay_waits_between_passes_while_no_queue_may_send(
    store: PostgresStore, broker: RefusingBroker
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
    assert await due_count(store) == 600


class SlowBroker(InProcessBroker):
    """Confirms the messages of the queue `slow` only once the test sets `may_confirm`."""

    def __init__(self, queues: Sequence[QueueKey], slow: QueueKey) -> None:
        super().__init__(queues)
        self.slow = slow
        self.published = asyncio.Event()
        self.may_confirm = asyncio.Event()

    async def publish(
        self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = UNBATCHED
    ) -> Sequence[bool]:
        if any(pointer.queue == self.slow for pointer in pointers):
            self.published.set()
            await self.may_confirm.wait()
        return await super().publish(pointers, max_batch)


async def test_an_urgent_queue_does_not_wait_for_the_confirm_of_another(
    store: PostgresStore,
) -> None:
    broker = SlowBroker(QUEUES, EMAIL_LOW)
    relays = relays_of(store, broker)
    await store.insert([a_notification(EMAIL_LOW)])
    async with background_task(relays.run, "relays"):
        await broker.published.wait()
        await store.insert([a_notification(EMAIL_HIGH)])
        relays.wake([Priority.HIGH])
        while (await ready_counts(broker))["email.high"] == 0:
            await asyncio.sleep(0.01)
        assert (await ready_counts(broker))["email.low"] == 0
        broker.may_confirm.set()
        while (await ready_counts(broker))["email.low"] == 0:
            await asyncio.sleep(0.01)
        relays.close()


async def after_a_pass(relay: Relay) -> Relay:
    """Run one pass and return the relay."""
    await relay.run_once()
    return relay


async def test_new_rows_reserve_the_places_left_in_the_window(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    relay = await after_a_pass(relay_of(store, broker))
    assert relay.reserve(EMAIL_HIGH, 10) == 10
    assert relay.reserve(EMAIL_HIGH, 1000) == MIN_WINDOW - 10
    assert relay.reserve(EMAIL_HIGH, 1) == 0
    assert relay.reserve(EMAIL_LOW, 1) == 1
    relay.release(EMAIL_HIGH, 5)
    assert relay.reserve(EMAIL_HIGH, 1000) == 5
    other = await after_a_pass(relay_of(store, broker, relays=4))
    assert other.reserve(EMAIL_HIGH, 1000) == MIN_WINDOW / 4


async def test_reserved_places_are_not_used_for_due_rows(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    relay = await after_a_pass(relay_of(store, broker))
    relay.reserve(EMAIL_HIGH, 20)
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(100)])
    assert await relay.run_once() == MIN_WINDOW - 20


async def test_no_place_is_reserved_before_the_first_pass_or_long_after_the_last(
    store: PostgresStore, broker: RefusingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = relay_of(store, broker)
    assert relay.reserve(EMAIL_HIGH, 1) == 0
    assert (await after_a_pass(relay)).reserve(EMAIL_HIGH, 1) == 1
    monkeypatch.setattr("notifier.delivery.relay.RECENT_PASS_S", 0.0)
    assert relay.reserve(EMAIL_HIGH, 1) == 0


@pytest.mark.parametrize(
    "permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN, SendPermission.PROBE]
)
async def test_no_place_is_reserved_in_a_queue_that_may_not_send(
    store: PostgresStore, broker: RefusingBroker, permission: SendPermission
) -> None:
    relay = await after_a_pass(relay_of(store, broker, permissions={EMAIL_HIGH: permission}))
    assert relay.reserve(EMAIL_HIGH, 1) == 0
    assert relay.reserve(EMAIL_LOW, 1) == 1


async def test_no_place_is_reserved_after_a_pause_before_the_next_pass(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    permissions = {EMAIL_HIGH: SendPermission.PAUSED}
    relay = await after_a_pass(relay_of(store, broker, permissions=permissions))
    permissions.clear()
    assert relay.reserve(EMAIL_HIGH, 1) == 0
    assert (await after_a_pass(relay)).reserve(EMAIL_HIGH, 1) == 1


async def test_no_place_is_reserved_while_older_rows_wait(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    await store.insert([a_notification(EMAIL_HIGH) for _ in range(600)])
    relay = relay_of(store, broker, drain_per_s=2000)
    assert await relay.run_once() == 500  # a full pass: there is room for more
    assert relay.reserve(EMAIL_HIGH, 1) == 0


async def test_no_place_is_reserved_while_the_queue_or_the_broker_refuses_publishes(
    store: PostgresStore, broker: RefusingBroker
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


async def publish_directly(store: PostgresStore, relay: Relay, *queues: QueueKey) -> None:
    """Store new rows of these queues as published, and enqueue their pointers."""
    items = [a_notification(queue) for queue in queues]
    for pointer in await store.insert(items, published={item.id for item in items}):
        relay.enqueue(pointer)


async def test_enqueued_pointers_are_published_also_after_the_stop(
    store: PostgresStore, broker: RefusingBroker
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
    assert await ready_counts(broker) == {str(queue): 1 for queue in QUEUES}


async def test_enqueued_pointers_that_are_not_confirmed_are_due(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    broker.is_refusing = True
    relay = relay_of(store, broker)
    await publish_directly(store, relay, EMAIL_HIGH, EMAIL_HIGH, EMAIL_LOW)
    relay.close()
    await relay.publish_directly()
    assert await due_count(store) == 3
    assert await relay.run_once() == 0


async def test_pointers_enqueued_during_a_backoff_are_due_and_not_published(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    relay = relay_of(store, broker)
    broker.refused = EMAIL_HIGH
    await publish_directly(store, relay, EMAIL_HIGH)
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.publish_directly())
        while await due_count(store) < 1:
            await asyncio.sleep(0.01)
        broker.refused = None
        await publish_directly(store, relay, EMAIL_HIGH)
        relay.close()
    assert await due_count(store) == 2
    assert (await ready_counts(broker))["email.high"] == 0


async def test_pointers_enqueued_after_a_pause_are_due_and_not_published(
    store: PostgresStore, broker: RefusingBroker
) -> None:
    permissions = dict[QueueKey, SendPermission]()
    relay = await after_a_pass(relay_of(store, broker, permissions=permissions))
    assert relay.reserve(EMAIL_HIGH, 1) == 1
    permissions[EMAIL_HIGH] = SendPermission.PAUSED
    await publish_directly(store, relay, EMAIL_HIGH, EMAIL_LOW)
    relay.close()
    await relay.publish_directly()
    assert await due_count(store) == 1
    assert await ready_counts(broker) == {str(queue): queue == EMAIL_LOW for queue in QUEUES}


async def test_a_late_confirm_stops_direct_publishing_to_its_queue_only(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.direct_publisher.PUBLISH_LATE_S", 0.0)
    broker = SlowBroker(QUEUES, EMAIL_HIGH)
    relay = await after_a_pass(relay_of(store, broker))
    assert relay.reserve(EMAIL_HIGH, 1) == 1
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.publish_directly())
        await publish_directly(store, relay, EMAIL_HIGH)
        await broker.published.wait()
        await publish_directly(store, relay, SMS_HIGH)
        while (await ready_counts(broker))["sms.high"] == 0:
            await asyncio.sleep(0.01)
        await after_a_pass(relay)
        assert relay.reserve(EMAIL_HIGH, 1) == 0
        broker.may_confirm.set()
        relay.close()
    assert (await ready_counts(broker))["email.high"] == 1
    await after_a_pass(relay)
    assert relay.reserve(EMAIL_HIGH, 1000) == MIN_WINDOW - 1


async def test_messages_carry_several_pointers_where_a_worker_has_the_capacity(
    store: PostgresStore,
) -> None:
    published = list[Mapping[QueueKey, int]]()

    class RecordingBroker(InProcessBroker):
        async def publish(
            self, pointers: Sequence[Pointer], max_batch: Mapping[QueueKey, int] = UNBATCHED
        ) -> Sequence[bool]:
            published.append(max_batch)
            return await super().publish(pointers, max_batch)

    for capacity_per_s, batch_sizes in ((0.0, 1), (170.0, 5), (1e6, MAX_POINTERS_PER_MESSAGE)):
        await store.insert([a_notification(EMAIL_HIGH)])
        broker = RecordingBroker(QUEUES)
        await relay_of(store, broker, worker_capacity_per_s=capacity_per_s).run_once()
        assert published[-1][EMAIL_HIGH] == batch_sizes
