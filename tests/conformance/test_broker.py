"""What every broker does: one suite, run on the in-process one and on RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from notifier.adapters.inprocess.broker import InProcessBroker, open_inprocess_broker
from notifier.adapters.rabbitmq.broker import open_rabbitmq_broker
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.broker import Broker, Depth
from tests.conformance.taking import (
    EMAIL_LOW,
    QUEUES,
    CountingObserver,
    pointers,
    taking,
    until_ready,
)

OpenBroker = Callable[[], AbstractAsyncContextManager[Broker]]


def _one_for_all() -> OpenBroker:
    """In one process every opening is the same broker."""
    opened: list[InProcessBroker] = []

    @asynccontextmanager
    async def again() -> AsyncIterator[Broker]:
        if not opened:
            opened.append(InProcessBroker(QUEUES))
        yield opened[0]

    return again


@pytest.fixture(params=["inprocess", "rabbitmq"])
def open_broker(request: pytest.FixtureRequest) -> OpenBroker:
    """Opens a broker; the second opening stands for another process on the same queues."""
    if request.param == "inprocess":
        return _one_for_all()
    url = request.getfixturevalue("vhost_url")
    return lambda: open_rabbitmq_broker(url, QUEUES, observer=CountingObserver())


async def test_a_confirmed_pointer_arrives_as_it_was_published(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker, prefetch=5) as taker:
        sent = pointers(1)
        assert list(await broker.publish(sent)) == [True]
        await taker.has(1)
        assert taker.deliveries[0].pointer == sent[0]
        assert not taker.deliveries[0].redelivered


async def test_publishing_nothing_confirms_nothing(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert list(await broker.publish([])) == []


async def test_a_pointer_for_an_unknown_queue_is_not_confirmed_and_harms_no_neighbour(
    open_broker: OpenBroker,
) -> None:
    fax = QueueKey(Channel("fax"), Priority.HIGH)
    async with open_broker() as broker, taking(broker, prefetch=5) as taker:
        first, last = pointers(2)
        assert list(await broker.publish([first, *pointers(1, fax), last])) == [True, False, True]
        await taker.has_all([first, last])


async def test_a_subscription_to_an_unknown_queue_is_a_mistake(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        with pytest.raises(ValueError, match=r"fax\.high"):
            async with taking(broker, QueueKey(Channel("fax"), Priority.HIGH)):
                pass


async def test_publishing_is_possible_while_the_broker_is_there(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert await broker.probe()


async def test_every_queue_keeps_its_own_messages_in_order(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        sent = {queue: pointers(50, queue) for queue in QUEUES}
        assert all(await broker.publish([each for batch in sent.values() for each in batch]))
        for queue, batch in sent.items():
            async with taking(broker, queue, prefetch=50, acks=True) as taker:
                await taker.has(50)
                assert taker.ids == [pointer.id for pointer in batch]


async def test_no_more_than_the_prefetch_is_held(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker, prefetch=3) as taker:
        assert all(await broker.publish(pointers(10)))
        await taker.has(3)
        await until_ready(broker, 7)
        assert len(taker.deliveries) == 3
        taker.ack(taker.deliveries[:2])
        await taker.has(5)
        await until_ready(broker, 5)
        assert len(taker.deliveries) == 5


async def test_depth_counts_what_waits_and_not_what_is_held(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert all(await broker.publish(pointers(10)))
        assert await until_ready(broker, 10) == Depth(10, 0)
        async with taking(broker, prefetch=4) as taker:
            await taker.has(4)
            assert await until_ready(broker, 6) == Depth(6, 1)


async def test_the_depth_of_every_queue_is_told(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert set(await broker.depths()) == set(QUEUES)


async def test_a_subscription_begins_with_nothing(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker) as taker:
        assert all(await broker.publish(pointers(3)))
        await until_ready(broker, 3)
        assert not taker.deliveries


async def test_a_larger_prefetch_takes_more_while_messages_are_held(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker, taking(broker, prefetch=2) as taker:
        sent = pointers(40)
        assert all(await broker.publish(sent))
        await taker.has(2)
        await taker.subscription.set_prefetch(8)
        await taker.has(8)
        assert len(taker.deliveries) <= 2 + 8
        taker.ack(taker.deliveries)
        await taker.has(16)
        while len(taker.deliveries) < 40:
            taker.ack(taker.deliveries)
            await taker.has(min(40, len(taker.deliveries) + 1))
        assert taker.ids == [pointer.id for pointer in sent]


async def test_a_smaller_prefetch_keeps_what_is_held(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker, prefetch=8) as taker:
        assert all(await broker.publish(pointers(30)))
        await taker.has(8)
        await taker.subscription.set_prefetch(2)
        held = len(taker.deliveries)
        taker.ack(taker.deliveries)
        await taker.until(lambda: len(taker.deliveries) > held)
        assert not any(delivery.redelivered for delivery in taker.deliveries)
        assert len(set(taker.ids)) == len(taker.ids)


async def test_after_a_smaller_prefetch_no_more_than_it_is_held(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker, prefetch=8) as taker:
        await taker.subscription.set_prefetch(2)
        assert all(await broker.publish(pointers(30)))
        await taker.has(2)
        await until_ready(broker, 28)
        assert len(taker.deliveries) == 2


async def test_prefetch_zero_stops_deliveries_and_what_is_held_can_be_acked(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker:
        async with taking(broker, prefetch=4) as taker:
            assert all(await broker.publish(pointers(4)))
            await taker.has(4)
            await taker.subscription.set_prefetch(0)
            assert all(await broker.publish(pointers(5)))
            await until_ready(broker, 5)
            assert len(taker.deliveries) == 4
            taker.ack(taker.deliveries)
        await until_ready(broker, 5)


async def test_a_stopped_subscription_can_begin_again(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker, prefetch=4, acks=True) as taker:
        await taker.subscription.set_prefetch(0)
        sent = pointers(20)
        assert all(await broker.publish(sent))
        await taker.subscription.set_prefetch(4)
        await taker.has(20)
        assert taker.ids == [pointer.id for pointer in sent]


async def test_a_negative_prefetch_is_a_mistake(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker) as taker:
        with pytest.raises(ValueError, match="-1"):
            await taker.subscription.set_prefetch(-1)


async def test_what_was_acked_never_returns(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        async with taking(broker, prefetch=100, acks=True) as taker:
            assert all(await broker.publish(pointers(100)))
            await taker.has(100)
        await until_ready(broker, 0)


async def test_acks_out_of_order_and_in_part_settle_only_what_they_name(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker:
        async with taking(broker, prefetch=10) as taker:
            assert all(await broker.publish(pointers(10)))
            await taker.has(10)
            for place in (7, 1, 0, 9, 3, 2):
                taker.ack([taker.deliveries[place]])
                await asyncio.sleep(0)
            left = [taker.ids[place] for place in (4, 5, 6, 8)]
        async with taking(broker, prefetch=10) as taker:
            await taker.has(4)
            await until_ready(broker, 0)
            assert sorted(taker.ids) == sorted(left)


async def test_acking_twice_is_harmless(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker, prefetch=1) as taker:
        assert all(await broker.publish(pointers(3)))
        for n in (1, 2, 3):
            await taker.has(n)
            taker.ack(taker.deliveries)
            await asyncio.sleep(0)
            taker.ack(taker.deliveries)
        await until_ready(broker, 0)
        assert taker.losses == 0


async def test_what_is_unacked_at_the_end_returns_in_order_and_says_so(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker:
        sent = pointers(6)
        assert all(await broker.publish(sent))
        async with taking(broker, prefetch=4) as taker:
            await taker.has(4)
        async with taking(broker, prefetch=10) as taker:
            await taker.has(6)
            assert taker.ids == [pointer.id for pointer in sent]
            assert [each.redelivered for each in taker.deliveries] == [True] * 4 + [False] * 2
            assert taker.losses == 0


async def test_an_ack_after_the_end_does_nothing(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert all(await broker.publish(pointers(1)))
        async with taking(broker, prefetch=1) as taker:
            await taker.has(1)
        taker.ack(taker.deliveries)
        await until_ready(broker, 1)


async def test_two_subscribers_share_a_queue_and_nothing_is_taken_twice(
    open_broker: OpenBroker,
) -> None:
    async with (
        open_broker() as broker,
        open_broker() as other,
        taking(broker, prefetch=5, acks=True) as one,
        taking(other, prefetch=5, acks=True) as two,
    ):
        sent = pointers(200)
        assert all(await broker.publish(sent))
        await until_ready(broker, 0)
        await one.until(lambda: len(one.deliveries) > 0)
        await two.until(lambda: len(two.deliveries) > 0)
    assert sorted(one.ids + two.ids) == sorted(pointer.id for pointer in sent)


async def test_when_one_subscriber_leaves_the_other_gets_its_messages(
    open_broker: OpenBroker,
) -> None:
    async with (
        open_broker() as broker,
        open_broker() as other,
        taking(broker, acks=True) as stays,
    ):
        sent = pointers(60)
        async with taking(other, prefetch=10) as leaves:
            assert all(await broker.publish(sent))
            await leaves.has(10)
            await stays.subscription.set_prefetch(100)
            await stays.has(50)
        await stays.has_all(sent)
        assert len(stays.deliveries) == 60


async def test_an_open_broker_left_and_entered_again_has_lost_nothing(
    open_broker: OpenBroker,
) -> None:
    sent = pointers(50)
    async with open_broker() as broker:
        assert all(await broker.publish(sent))
        async with taking(broker, prefetch=20) as taker:
            await taker.has(20)
            taker.ack(taker.deliveries[:10])
    async with open_broker() as broker, taking(broker, prefetch=50, acks=True) as taker:
        await taker.has_all(sent[10:])
        assert taker.ids == [pointer.id for pointer in sent[10:]]


async def test_five_thousand_at_once_all_arrive(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker, prefetch=256, acks=True) as taker:
        sent = pointers(5_000)
        assert all(await broker.publish(sent))
        await taker.has(5_000)
        assert taker.ids == [pointer.id for pointer in sent]


async def test_twenty_quick_resizes_lose_nothing(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, taking(broker, prefetch=1, acks=True) as taker:
        sent = pointers(2_000)
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(broker.publish(sent), name="publishing")
            for prefetch in (4, 64, 1, 0, 16, 2, 128, 0, 8, 32) * 2:
                await taker.subscription.set_prefetch(prefetch)
        assert all(publishing.result())
        await taker.has_all(sent)
        assert len(taker.deliveries) == 2_000


async def test_a_resize_whose_caller_is_cancelled_takes_effect_and_harms_nothing(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker, taking(broker, prefetch=2) as taker:
        assert all(await broker.publish(pointers(20)))
        await taker.has(2)
        async with asyncio.TaskGroup() as group:
            resizing = group.create_task(taker.subscription.set_prefetch(10), name="resizing")
            await asyncio.sleep(0)
            resizing.cancel()
        await taker.has(10)
        assert taker.losses == 0


async def test_opening_the_inprocess_broker_gives_an_empty_one() -> None:
    async with open_inprocess_broker(QUEUES) as broker:
        assert (await broker.depths())[EMAIL_LOW] == Depth(0, 0)
