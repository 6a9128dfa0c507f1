"""The relay, from rows in a real Postgres to the in-process broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.publish_window import MIN_WINDOW
from notifier.delivery.relay import (
    MAX_PASS_ROWS,
    MAX_READ_QUEUES,
    POLL_INTERVAL_S,
    READ_IN_TURN,
    Relay,
    Relays,
)
from notifier.domain.controls import SendPermission
from notifier.domain.due import DueClass
from notifier.domain.notification import (
    Channel,
    Claimed,
    NewNotification,
    Priority,
    QueueKey,
    Status,
)
from notifier.lifecycle import background_task
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE
from notifier.ports.leases import Progress
from notifier.ports.store import ClaimRequest, DueRange, DueRead, RelayStore
from tests.builders import (
    EMAIL_HIGH,
    EMAIL_LOW,
    QUEUES,
    SMS_HIGH,
    a_notification,
    a_result,
    claim_request,
    due_ranges,
    row_pointer,
    worker_id,
)
from tests.publishing import FaultyBroker, FixedCluster, FixedGates, FixedLeases


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
def broker() -> FaultyBroker:
    return FaultyBroker()


class Deployment:
    """What a relay depends on, apart from the store and the broker."""

    def __init__(self, *, drain_per_s: float = 0.0, worker_capacity_per_s: float = 0.0) -> None:
        self.leases = FixedLeases()
        self.gates = FixedGates()
        self.cluster = FixedCluster(drain_per_s, worker_capacity_per_s)

    def relay(self, store: RelayStore, broker: FaultyBroker) -> Relay:
        return Relay(
            store=store,
            broker=broker,
            observer=Metrics(QUEUES, {}, version="0"),
            queues=QUEUES,
            leases=self.leases,
            cluster=self.cluster,
            gates=self.gates,
        )

    def relays(self, store: PostgresStore, broker: FaultyBroker) -> Relays:
        return Relays(
            store=store,
            broker=broker,
            observer=Metrics(QUEUES, {}, version="0"),
            queues=QUEUES,
            leases=self.leases,
            cluster=self.cluster,
            gates=self.gates,
        )


async def insert(store: PostgresStore, queue: QueueKey, count: int) -> list[NewNotification]:
    items = [a_notification(queue) for _ in range(count)]
    await store.insert(items)
    return items


async def insert_retry(store: PostgresStore) -> None:
    """Insert a row of email.high that failed once and is due again."""
    [item] = await insert(store, EMAIL_HIGH, 1)
    [claimed] = await claim(store, [item])
    await store.record([a_result(claimed, Status.RETRYING, after=timedelta(0))])


async def claim(store: PostgresStore, items: Sequence[NewNotification]) -> list[Claimed]:
    """Claim these rows."""
    ids = {item.id for item in items}
    pointers = [row_pointer(row) for row in (await store.read_due(due_ranges())).rows]
    wanted = [claim_request(pointer) for pointer in pointers if pointer.id in ids]
    replies = await store.claim(wanted)
    return [reply for reply in replies if isinstance(reply, Claimed)]


async def passes(relay: Relay, count: int) -> list[int]:
    return [await relay.run_once() for _ in range(count)]


async def test_due_rows_become_pointers_in_their_queues(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    items = [a_notification(queue, content=b'{"a":1}') for queue in QUEUES]
    before = await store.database_now()
    await store.insert(items)
    assert await Deployment().relay(store, broker).run_once() == 9
    for item, pointer in zip(items, broker.published, strict=True):
        assert (pointer.queue, pointer.id) == (item.queue, item.id)
        assert (pointer.claim, pointer.size, pointer.deaths) == (0, 7, 0)
        assert before <= pointer.published_at <= await store.database_now()


async def test_a_published_row_is_published_once(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    relay = Deployment().relay(store, broker)
    await insert(store, EMAIL_HIGH, 3)
    assert await passes(relay, 5) == [3, 0, 0, 0, 0]


async def test_claimed_and_expired_rows_are_passed_over(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    await claim(store, await insert(store, EMAIL_HIGH, 40))
    await store.insert([a_notification(ttl=timedelta(0)) for _ in range(40)])
    [item] = await insert(store, EMAIL_HIGH, 1)
    async with background_task(Deployment().relay(store, broker), "relay"):
        while not broker.published:
            await asyncio.sleep(0.01)
    assert [pointer.id for pointer in broker.published] == [item.id]


async def test_a_backlog_stays_in_postgres_beyond_the_window(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    await insert(store, EMAIL_LOW, 300)
    await passes(Deployment().relay(store, broker), 5)
    assert await broker.ready(EMAIL_LOW) == MIN_WINDOW


async def test_a_pass_takes_at_most_the_rows_of_a_pass_of_one_queue_and_starves_no_other(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    for queue in (EMAIL_HIGH, EMAIL_LOW):
        await insert(store, queue, 1200)
    relay = Deployment(drain_per_s=5000).relay(store, broker)
    first, *others = await passes(relay, 3)
    assert MAX_PASS_ROWS <= first <= 2 * MAX_PASS_ROWS
    assert first + sum(others) == 2400
    queues = [pointer.queue for pointer in broker.published[:first]]
    assert queues.count(EMAIL_LOW) == queues.count(EMAIL_HIGH)


async def test_rows_given_back_come_first_and_those_published_directly_once_they_are_2_s_old(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    items = await insert(store, EMAIL_HIGH, 4)
    claimed = await claim(store, items[2:])
    await store.give_back([ClaimRequest(id=each.id, claim=each.claim - 1) for each in claimed])
    direct = a_notification(EMAIL_HIGH)
    await store.insert([direct], direct={direct.id})
    relay = Deployment().relay(store, broker)
    while len(broker.published) < 5:
        await relay.run_once()
    published = [pointer.id for pointer in broker.published]
    assert set(published[:2]) == {item.id for item in items[2:]}
    assert published[2:4] == [item.id for item in items[:2]]
    assert published[4] == direct.id


async def test_only_queues_whose_lease_is_held_are_published(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    deployment = Deployment()
    del deployment.leases.leases[EMAIL_LOW]
    relay = deployment.relay(store, broker)
    for queue in (EMAIL_HIGH, EMAIL_LOW):
        await insert(store, queue, 1)
    assert await relay.run_once() == 1
    assert set(relay.cursors()) == set(QUEUES) - {EMAIL_LOW}
    deployment.leases.acquire(EMAIL_LOW, Progress(), term=7)
    assert await relay.run_once() == 1
    assert set(relay.cursors()) == set(QUEUES)


async def test_the_next_holder_continues_from_the_progress_in_the_lease(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    old, new = Deployment(), Deployment()
    old_relay = old.relay(store, broker)
    await insert(store, EMAIL_HIGH, 20)
    await passes(old_relay, 3)
    progress = old.leases.leases[EMAIL_HIGH].progress
    broker.published.clear()
    new.leases.acquire(EMAIL_HIGH, progress, term=2)
    items = await insert(store, EMAIL_HIGH, 3)
    await passes(new.relay(store, broker), 2)
    assert [pointer.id for pointer in broker.published] == [item.id for item in items]


async def test_a_new_term_begins_with_the_progress_of_the_holder_before(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    deployment = Deployment()
    relay = deployment.relay(store, broker)
    await insert(store, EMAIL_HIGH, 3)
    assert await passes(relay, 2) == [3, 0]
    deployment.leases.acquire(EMAIL_HIGH, Progress(), term=2)
    assert await passes(relay, 2) == [3, 0]


async def test_a_lease_that_lapses_for_a_moment_keeps_its_cursor(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    deployment = Deployment()
    relay = deployment.relay(store, broker)
    await insert(store, EMAIL_HIGH, 3)
    assert await relay.run_once() == 3
    lease = deployment.leases.leases.pop(EMAIL_HIGH)
    assert await relay.run_once() == 0
    assert EMAIL_HIGH not in relay.cursors()
    deployment.leases.leases[EMAIL_HIGH] = lease
    assert await passes(relay, 2) == [0, 0]


class LosingStore:
    """The store; while rows are read, the leases of `lost` are lost."""

    def __init__(self, store: PostgresStore, leases: FixedLeases, lost: QueueKey) -> None:
        self._store = store
        self._leases = leases
        self._lost = lost
        self.find_due = store.find_due

    async def read_due(self, ranges: Sequence[DueRange]) -> DueRead:
        read = await self._store.read_due(ranges)
        self._leases.leases.pop(self._lost, None)
        return read


async def test_rows_are_not_published_if_the_lease_is_lost_while_they_are_read(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    deployment = Deployment()
    lease = deployment.leases.leases[EMAIL_LOW]
    relay = deployment.relay(LosingStore(store, deployment.leases, EMAIL_LOW), broker)
    for queue in (EMAIL_HIGH, EMAIL_LOW):
        await insert(store, queue, 1)
    await relay.run_once()
    assert [pointer.queue for pointer in broker.published] == [EMAIL_HIGH]
    deployment.leases.acquire(EMAIL_LOW, lease.progress, term=2)
    await deployment.relay(store, broker).run_once()
    assert [pointer.queue for pointer in broker.published] == [EMAIL_HIGH, EMAIL_LOW]


async def test_a_pass_is_recorded_in_each_lease_also_where_nothing_may_be_published(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    deployment = Deployment()
    deployment.gates.permissions[EMAIL_HIGH] = SendPermission.PAUSED
    for lease in deployment.leases.leases.values():
        lease.passed_at = 0.0
    await insert(store, EMAIL_LOW, MIN_WINDOW + 20)
    relay = deployment.relay(store, broker)
    await passes(relay, 2)
    leases = deployment.leases.leases
    assert all(lease.passed_at > 0 for lease in leases.values())
    assert all(lease.unpublishable_since is None for lease in leases.values())
    backlogged = {queue for queue, lease in leases.items() if lease.progress.is_backlogged}
    assert backlogged == {EMAIL_LOW, EMAIL_HIGH}, "rows of a paused queue may wait"


async def test_unconfirmed_rows_are_published_later_and_none_before_a_probe_succeeds(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    deployment = Deployment()
    leases = deployment.leases.leases
    items = await insert(store, EMAIL_HIGH, MIN_WINDOW + 8)
    relay = deployment.relay(store, broker)
    broker.is_refusing = True
    await passes(relay, 3)
    assert all(lease.unpublishable_since for lease in leases.values())
    assert leases[EMAIL_HIGH].progress.floor(DueClass.FIRST).id < items[0].id
    broker.is_refusing = False
    await passes(relay, 2)
    assert not any(lease.unpublishable_since for lease in leases.values())
    published = [pointer.id for pointer in broker.published]
    assert published == [item.id for item in items][: len(published)]
    assert len(published) >= MIN_WINDOW - 1  # one place is kept for a retry


async def test_a_queue_that_refuses_publishes_does_not_delay_the_others(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    deployment = Deployment()
    relay = deployment.relay(store, broker)
    broker.refused = EMAIL_LOW
    await insert(store, EMAIL_LOW, 40)
    await insert(store, EMAIL_HIGH, 1)
    await relay.run_once()
    for _ in range(3):
        await insert(store, EMAIL_HIGH, 1)
        await relay.run_once()
    assert await broker.ready(EMAIL_HIGH) == 4
    assert deployment.leases.leases[EMAIL_LOW].unpublishable_since is None


async def test_a_woken_relay_publishes_at_once(
    store: PostgresStore, broker: FaultyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.relay.POLL_INTERVAL_S", 3600)
    relay = Deployment().relay(store, broker)
    async with background_task(relay, "relay"):
        for count in (1, 2):  # the second one while it waits for work
            await insert(store, EMAIL_HIGH, 1)
            relay.wake()
            while len(broker.published) < count:
                await asyncio.sleep(0.01)
        relay.wake()  # so that it notices the stop


async def test_a_backlog_is_published_in_passes_without_a_wait_between(
    store: PostgresStore, broker: FaultyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when no retry waits, although each pass keeps one place for a retry."""
    monkeypatch.setattr("notifier.delivery.relay.POLL_INTERVAL_S", 3600)
    await insert(store, EMAIL_HIGH, 4000)
    relay = Deployment(drain_per_s=10_000).relay(store, broker)
    async with background_task(relay, "relay"):
        while len(broker.published) < 4000:
            await asyncio.sleep(0.01)
        relay.wake()  # so that it notices the stop


async def test_a_paused_queue_is_left_alone_and_the_others_go_on(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    for queue in (EMAIL_HIGH, EMAIL_LOW):
        await insert(store, queue, 1)
    deployment = Deployment()
    deployment.gates.permissions[EMAIL_HIGH] = SendPermission.PAUSED
    relay = deployment.relay(store, broker)
    assert await passes(relay, 2) == [1, 0]
    assert await broker.ready(EMAIL_HIGH) == 0
    deployment.gates.permissions.clear()
    assert await relay.run_once() == 1


async def test_a_window_does_not_grow_while_its_queue_may_not_send(
    store: PostgresStore, broker: FaultyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.publisher.DEPTH_INTERVAL_S", 0)
    await insert(store, EMAIL_HIGH, 400)
    deployment = Deployment()
    relay = deployment.relay(store, broker)
    await relay.run_once()
    await broker.drain(EMAIL_HIGH)
    deployment.gates.permissions[EMAIL_HIGH] = SendPermission.PAUSED
    await passes(relay, 10)
    deployment.gates.permissions.clear()
    assert await relay.run_once() <= 2 * MIN_WINDOW


async def test_a_queue_that_may_send_again_is_published_at_once(
    store: PostgresStore, broker: FaultyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.relay.POLL_INTERVAL_S", 3600)
    await insert(store, EMAIL_HIGH, 1)
    deployment = Deployment()
    deployment.gates.permissions[EMAIL_HIGH] = SendPermission.PAUSED
    relays = deployment.relays(store, broker)
    async with background_task(relays, "relays"):
        while not relays.cursors():
            await asyncio.sleep(0.01)
        deployment.gates.permissions.clear()
        relays.permissions_changed()
        while not broker.published:
            await asyncio.sleep(0.01)
        relays.permissions_changed()  # so that they notice the stop


@pytest.mark.parametrize("permission", [SendPermission.PROBE, SendPermission.BREAKER_OPEN])
async def test_one_pointer_is_ready_for_the_probe_whoever_sends_it(
    store: PostgresStore,
    broker: FaultyBroker,
    monkeypatch: pytest.MonkeyPatch,
    permission: SendPermission,
) -> None:
    monkeypatch.setattr("notifier.delivery.publisher.DEPTH_INTERVAL_S", 0)
    await insert(store, EMAIL_HIGH, 40)
    deployment = Deployment()
    deployment.gates.permissions[EMAIL_HIGH] = permission
    relay = deployment.relay(store, broker)
    assert await passes(relay, 4) == [1, 0, 0, 0]
    await broker.drain(EMAIL_HIGH)
    assert await passes(relay, 4) == [1, 0, 0, 0]


async def test_a_probe_may_be_a_retry(store: PostgresStore, broker: FaultyBroker) -> None:
    await insert_retry(store)
    deployment = Deployment()
    deployment.gates.permissions[EMAIL_HIGH] = SendPermission.PROBE
    assert await passes(deployment.relay(store, broker), 3) == [1, 0, 0]


async def test_the_relay_waits_between_passes_while_no_queue_may_send(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    await insert(store, EMAIL_HIGH, 600)
    deployment = Deployment()
    deployment.gates.permissions |= dict.fromkeys(QUEUES, SendPermission.PAUSED)
    began, checks_per_pass = time.monotonic(), 2 * len(QUEUES)
    async with background_task(deployment.relay(store, broker), "relay"):
        while deployment.gates.checks < 5 * checks_per_pass:
            await asyncio.sleep(0.01)
    count = deployment.gates.checks / checks_per_pass
    assert count <= 2 + (time.monotonic() - began) / POLL_INTERVAL_S
    assert not broker.published


async def test_an_urgent_queue_does_not_wait_for_the_confirm_of_another(
    store: PostgresStore,
) -> None:
    broker = FaultyBroker(slow=EMAIL_LOW)
    relays = Deployment().relays(store, broker)
    await insert(store, EMAIL_LOW, 1)
    async with background_task(relays, "relays"):
        await broker.is_waiting.wait()
        await insert(store, EMAIL_HIGH, 1)
        while await broker.ready(EMAIL_HIGH) == 0:
            await asyncio.sleep(0.01)
        assert await broker.ready(EMAIL_LOW) == 0
        broker.may_confirm.set()
    assert await broker.ready(EMAIL_LOW) == 1


async def test_what_is_published_again_does_not_wait_for_a_queue_that_backs_off(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    relay = Deployment().relay(store, broker)
    await insert(store, EMAIL_LOW, 1)
    broker.refused = EMAIL_LOW
    await relay.run_once()
    read = await store.read_due(due_ranges(EMAIL_LOW))
    calls = len(broker.max_batches)
    assert await relay.publish(read.rows, read.now) == read.rows
    assert len(broker.max_batches) == calls


async def test_a_stop_waits_for_the_confirms_and_their_progress(store: PostgresStore) -> None:
    broker, deployment = FaultyBroker(slow=EMAIL_LOW), Deployment()
    lease = deployment.leases.leases[EMAIL_LOW]
    relays = deployment.relays(store, broker)
    [item] = await insert(store, EMAIL_LOW, 1)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(relays.run(stop))
        await broker.is_waiting.wait()
        stop.set()
        assert lease.progress == Progress()
        broker.may_confirm.set()
    assert [pointer.id for pointer in broker.published] == [item.id]
    assert lease.progress != Progress()


async def test_rows_published_outside_of_a_pass_take_room_and_report_what_is_not_confirmed(
    store: PostgresStore, broker: FaultyBroker
) -> None:
    deployment = Deployment()
    relays = deployment.relays(store, broker)
    await insert(store, EMAIL_HIGH, MIN_WINDOW)
    read = await store.read_due(due_ranges(EMAIL_HIGH))
    assert list(await relays.publish(read.rows, read.now)) == read.rows  # no lease is known yet
    async with background_task(relays, "relays"):
        while len(broker.published) < MIN_WINDOW:
            await asyncio.sleep(0.01)
    assert not await relays.publish(read.rows, read.now)
    assert await broker.ready(EMAIL_HIGH) == 2 * MIN_WINDOW
    broker.refused = EMAIL_HIGH
    assert list(await relays.publish(read.rows, read.now)) == read.rows


async def test_messages_carry_several_pointers_where_a_worker_has_the_capacity(
    store: PostgresStore,
) -> None:
    for capacity_per_s, batch_sizes in ((0.0, 1), (170.0, 5), (1e6, MAX_POINTERS_PER_MESSAGE)):
        await insert(store, SMS_HIGH, 1)
        broker = FaultyBroker()
        await Deployment(worker_capacity_per_s=capacity_per_s).relay(store, broker).run_once()
        assert broker.max_batches[-1][SMS_HIGH] == batch_sizes


MANY = tuple(
    QueueKey(Channel(f"c{number:02}"), Priority.HIGH) for number in range(4 * MAX_READ_QUEUES)
)


class CountingStore:
    """The store, with the queues of each read."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self.find_due = store.find_due
        self.reads = list[set[QueueKey]]()

    async def read_due(self, ranges: Sequence[DueRange]) -> DueRead:
        self.reads.append({range_.queue for range_ in ranges})
        return await self._store.read_due(ranges)


@pytest.fixture
def many(store: PostgresStore) -> tuple[Relay, FaultyBroker, CountingStore, FixedLeases]:
    """A relay of many queues, its broker, its store and its leases."""
    broker, leases, counting = FaultyBroker(queues=MANY), FixedLeases(), CountingStore(store)
    for queue in MANY:
        leases.acquire(queue, Progress(), term=1)
    relay = Relay(
        store=counting,
        broker=broker,
        observer=Metrics(MANY, {}, version="0"),
        queues=MANY,
        leases=leases,
        cluster=FixedCluster(),
        gates=FixedGates(),
    )
    return relay, broker, counting, leases


async def test_the_next_pass_over_many_queues_publishes_what_is_due_in_any_of_them(
    store: PostgresStore, many: tuple[Relay, FaultyBroker, CountingStore, FixedLeases]
) -> None:
    relay, broker, _, _ = many
    await passes(relay, 3)
    for queue in MANY:
        await insert(store, queue, 1)
        assert await relay.run_once() == 1
        assert broker.published[-1].queue == queue
    assert await passes(relay, 3) == [0, 0, 0]


async def test_a_pass_over_many_idle_queues_reads_few_of_them_and_counts_for_all(
    many: tuple[Relay, FaultyBroker, CountingStore, FixedLeases],
) -> None:
    relay, _, counting, leases = many
    await relay.run_once()
    for lease in leases.leases.values():
        lease.passed_at = 0.0
    counting.reads.clear()
    await passes(relay, 2)
    assert len(set().union(*counting.reads)) <= READ_IN_TURN
    assert all(leases.leases[queue].passed_at > 0 for queue in MANY)


async def test_each_of_many_idle_queues_is_read_in_its_turn(
    many: tuple[Relay, FaultyBroker, CountingStore, FixedLeases],
) -> None:
    relay, _, counting, _ = many
    async with background_task(relay, "relay"):
        while set().union(*counting.reads) != {*MANY}:
            await asyncio.sleep(0.01)


async def test_many_queues_without_publish_permission_report_that_rows_may_wait(
    store: PostgresStore, many: tuple[Relay, FaultyBroker, CountingStore, FixedLeases]
) -> None:
    relay, broker, _, leases = many
    await relay.run_once()
    broker.is_refusing = True
    await insert(store, MANY[7], 1)
    await passes(relay, 2)
    assert all(leases.leases[queue].unpublishable_since for queue in MANY)
    broker.is_refusing = False
    await passes(relay, 3)
    assert [pointer.queue for pointer in broker.published] == [MANY[7]]
