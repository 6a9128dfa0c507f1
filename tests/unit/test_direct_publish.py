"""Direct publish: new rows reserve places in the window, and their pointers are published."""

from __future__ import annotations

import asyncio
import time

import pytest

from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.direct_publish import DirectPublishing
from notifier.delivery.publish_window import MIN_WINDOW
from notifier.domain.controls import SendPermission
from notifier.domain.notification import QueueKey
from notifier.ports.broker import Pointer
from tests.builders import EMAIL_HIGH, EMAIL_LOW, QUEUES, SMS_HIGH, new_id
from tests.publishing import FaultyBroker, FixedCluster, FixedGates, FixedLeases


def direct_publishing(
    broker: FaultyBroker | None = None,
    *,
    apis: int = 1,
    gates: FixedGates | None = None,
    leases: FixedLeases | None = None,
) -> DirectPublishing:
    return DirectPublishing(
        broker=broker or FaultyBroker(),
        observer=Metrics(QUEUES, {}, version="0"),
        queues=QUEUES,
        cluster=FixedCluster(apis=apis),
        gates=gates or FixedGates(),
        backlog=leases or FixedLeases(),
    )


def reserve(publishing: DirectPublishing, queue: QueueKey, wanted: int) -> int:
    return publishing.reserve({queue: wanted})[queue]


def pointers(*queues: QueueKey) -> list[Pointer]:
    return [
        Pointer(queue=queue, id=new_id(), claim=0, published_at=time.time()) for queue in queues
    ]


async def publish(publishing: DirectPublishing, *queues: QueueKey) -> None:
    """Enqueue a pointer for each queue, and run until they are published."""
    for queue in queues:
        publishing.reserve({queue: 1})
    publishing.enqueue(pointers(*queues))
    publishing.close()
    await publishing.run()


async def test_new_rows_reserve_the_places_left_in_the_window() -> None:
    publishing = direct_publishing()
    assert reserve(publishing, EMAIL_HIGH, 10) == 10
    assert reserve(publishing, EMAIL_HIGH, 1000) == MIN_WINDOW - 10
    assert reserve(publishing, EMAIL_HIGH, 1) == 0
    assert reserve(publishing, EMAIL_LOW, 1) == 1
    publishing.release({EMAIL_HIGH: 5})
    assert reserve(publishing, EMAIL_HIGH, 1000) == 5


async def test_the_processes_with_an_api_share_the_window() -> None:
    assert reserve(direct_publishing(apis=4), EMAIL_HIGH, 1000) == MIN_WINDOW / 4


async def test_enqueued_pointers_are_published_until_closed_and_take_their_room() -> None:
    broker = FaultyBroker()
    publishing = direct_publishing(broker)
    await publish(publishing, *QUEUES, EMAIL_HIGH)
    assert [await broker.ready(queue) for queue in QUEUES] == [2, *[1] * 8]
    assert reserve(publishing, EMAIL_HIGH, 1000) == MIN_WINDOW - 2


async def test_room_that_the_consumers_have_drained_is_found_by_a_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifier.delivery.publisher.DEPTH_INTERVAL_S", 0)
    broker = FaultyBroker()
    publishing = direct_publishing(broker)
    await publish(publishing, EMAIL_HIGH)
    await broker.drain(EMAIL_HIGH)
    await publishing.watch_broker_once()
    assert reserve(publishing, EMAIL_HIGH, 1000) == MIN_WINDOW


async def test_only_the_depths_of_queues_that_were_published_to_are_polled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifier.delivery.publisher.DEPTH_INTERVAL_S", 0)
    broker = FaultyBroker()
    publishing = direct_publishing(broker)
    await publishing.watch_broker_once()
    await publish(publishing, EMAIL_HIGH)
    await publishing.watch_broker_once()
    await broker.drain(EMAIL_HIGH)
    for _ in range(3):
        await publishing.watch_broker_once()
    assert broker.polled == [[EMAIL_HIGH], [EMAIL_HIGH]]


@pytest.mark.parametrize(
    "permission", [SendPermission.PAUSED, SendPermission.BREAKER_OPEN, SendPermission.PROBE]
)
async def test_no_place_is_reserved_in_a_queue_that_may_not_send(
    permission: SendPermission,
) -> None:
    publishing = direct_publishing(gates=FixedGates({EMAIL_HIGH: permission}))
    assert reserve(publishing, EMAIL_HIGH, 1) == 0
    assert reserve(publishing, EMAIL_LOW, 1) == 1


async def test_no_place_is_reserved_while_older_rows_wait() -> None:
    leases = FixedLeases(backlogged={EMAIL_HIGH})
    publishing = direct_publishing(leases=leases)
    assert reserve(publishing, EMAIL_HIGH, 1) == 0
    assert reserve(publishing, EMAIL_LOW, 1) == 1
    leases.backlogged.clear()
    assert reserve(publishing, EMAIL_HIGH, 1) == 1


async def test_a_queue_that_refuses_a_publish_backs_off_and_the_others_go_on() -> None:
    broker = FaultyBroker()
    broker.refused = EMAIL_HIGH
    publishing = direct_publishing(broker)
    await publish(publishing, EMAIL_HIGH, EMAIL_LOW)
    assert [pointer.queue for pointer in broker.published] == [EMAIL_LOW]
    assert reserve(publishing, EMAIL_HIGH, 1) == 0
    assert reserve(publishing, EMAIL_LOW, 1) == 1


async def test_nothing_is_reserved_while_the_broker_takes_nothing_until_a_probe_succeeds() -> None:
    broker = FaultyBroker()
    broker.is_refusing = True
    publishing = direct_publishing(broker)
    await publish(publishing, EMAIL_HIGH)
    await publishing.watch_broker_once()
    assert reserve(publishing, SMS_HIGH, 1) == 0
    broker.is_refusing = False
    await publishing.watch_broker_once()
    assert reserve(publishing, EMAIL_HIGH, 1000) == MIN_WINDOW


async def test_pointers_enqueued_after_a_pause_are_left_to_the_relay() -> None:
    broker, gates = FaultyBroker(), FixedGates()
    publishing = direct_publishing(broker, gates=gates)
    assert reserve(publishing, EMAIL_HIGH, 1) == 1
    gates.permissions[EMAIL_HIGH] = SendPermission.PAUSED
    await publish(publishing, EMAIL_HIGH, EMAIL_LOW)
    assert [pointer.queue for pointer in broker.published] == [EMAIL_LOW]


async def test_a_late_confirm_stops_direct_publishing_to_its_queue_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("notifier.delivery.direct_publisher.PUBLISH_LATE_S", 0.0)
    broker = FaultyBroker(slow=EMAIL_HIGH)
    publishing = direct_publishing(broker)
    assert reserve(publishing, EMAIL_HIGH, 1) == 1
    async with asyncio.TaskGroup() as group:
        group.create_task(publishing.run())
        publishing.enqueue(pointers(EMAIL_HIGH))
        await broker.is_waiting.wait()
        assert reserve(publishing, EMAIL_HIGH, 1) == 0
        assert reserve(publishing, SMS_HIGH, 1) == 1
        publishing.enqueue(pointers(SMS_HIGH))
        while not broker.published:
            await asyncio.sleep(0)
        broker.may_confirm.set()
        while len(broker.published) < 2:
            await asyncio.sleep(0)
        publishing.close()
    assert reserve(publishing, EMAIL_HIGH, 1000) == MIN_WINDOW - 1
