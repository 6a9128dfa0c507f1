"""One suite for every broker: it runs on the in-process broker and on RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from msgspec.structs import replace

from notifier.adapters.inprocess.broker import InProcessBroker, open_inprocess_broker
from notifier.adapters.rabbitmq.broker import open_rabbitmq_broker
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.broker import Broker, Depth
from tests.conformance.receiving import (
    EMAIL_LOW,
    QUEUES,
    CountingObserver,
    pointers,
    subscribed,
    wait_until_ready,
)

OpenBroker = Callable[[], AbstractAsyncContextManager[Broker]]


def _one_shared_broker() -> OpenBroker:
    """Return a function that opens the same in-process broker every time."""
    opened: list[InProcessBroker] = []

    @asynccontextmanager
    async def again() -> AsyncIterator[Broker]:
        if not opened:
            opened.append(InProcessBroker(QUEUES))
        yield opened[0]

    return again


PUBLISH_TIMEOUT_S = 600.0
"""RabbitMQ syncs each message to disk. Only a publish that hangs reaches it: where the connection
is lost, a publish ends at once."""


@pytest.fixture(params=["inprocess", "rabbitmq"])
def open_broker(request: pytest.FixtureRequest) -> OpenBroker:
    """Opens a broker. A second one represents another process on the same queues."""
    if request.param == "inprocess":
        return _one_shared_broker()
    url = request.getfixturevalue("vhost_url")
    return lambda: open_rabbitmq_broker(
        url, QUEUES, observer=CountingObserver(), publish_timeout_s=PUBLISH_TIMEOUT_S
    )


async def test_a_confirmed_pointer_arrives_as_it_was_published(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=5) as receiver:
        sent = pointers(1)
        assert list(await broker.publish(sent)) == [True]
        await receiver.wait_for(1)
        assert list(receiver.messages[0].pointers) == sent
        assert receiver.messages[0].published_at == sent[0].published_at
        assert not receiver.messages[0].redelivered


async def test_publishing_nothing_confirms_nothing(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert list(await broker.publish([])) == []


async def test_a_pointer_for_an_unknown_queue_is_not_confirmed_and_the_others_are(
    open_broker: OpenBroker,
) -> None:
    fax = QueueKey(Channel("fax"), Priority.HIGH)
    async with open_broker() as broker, subscribed(broker, prefetch=5) as receiver:
        first, last = pointers(2)
        assert list(await broker.publish([first, *pointers(1, fax), last])) == [True, False, True]
        await receiver.wait_for_all([first, last])


async def test_a_subscription_to_an_unknown_queue_is_an_error(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        with pytest.raises(ValueError, match=r"fax\.high"):
            async with subscribed(broker, QueueKey(Channel("fax"), Priority.HIGH)):
                pass


async def test_a_probe_of_an_available_broker_succeeds(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert await broker.probe()


async def test_every_queue_keeps_its_messages_in_order(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        sent = {queue: pointers(50, queue) for queue in QUEUES}
        assert all(await broker.publish([pointer for batch in sent.values() for pointer in batch]))
        for queue, batch in sent.items():
            async with subscribed(broker, queue, prefetch=50, acks=True) as receiver:
                await receiver.wait_for(50)
                assert receiver.ids == [pointer.id for pointer in batch]


async def test_a_subscription_holds_at_most_its_prefetch(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=3) as receiver:
        assert all(await broker.publish(pointers(10)))
        await receiver.wait_for(3)
        await wait_until_ready(broker, 7)
        assert len(receiver.messages) == 3
        receiver.ack(receiver.messages[:2])
        await receiver.wait_for(5)
        await wait_until_ready(broker, 5)
        assert len(receiver.messages) == 5


async def test_the_pointers_of_a_publish_in_batches_arrive_once_and_within_the_prefetch(
    open_broker: OpenBroker,
) -> None:
    sent = [replace(pointer, published_at=1.5) for pointer in pointers(40)]
    async with open_broker() as broker, subscribed(broker, prefetch=2) as receiver:
        assert all(await broker.publish(sent, {EMAIL_LOW: 8}))
        acked = 0
        while len(receiver.ids) < 40:
            await receiver.wait_for(acked + 1)
            assert len(receiver.messages) <= acked + 2
            receiver.ack(receiver.messages[acked : acked + 1])
            acked += 1
        assert receiver.pointers == sent
        assert {message.published_at for message in receiver.messages} == {1.5}


async def test_depth_counts_ready_messages_and_not_held_ones(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert all(await broker.publish(pointers(10)))
        assert await wait_until_ready(broker, 10) == Depth(10, 0)
        async with subscribed(broker, prefetch=4) as receiver:
            await receiver.wait_for(4)
            assert await wait_until_ready(broker, 6) == Depth(6, 1)


async def test_the_depths_of_all_queues_are_read(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert set(await broker.depths()) == set(QUEUES)


async def test_a_new_subscription_receives_nothing(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker) as receiver:
        assert all(await broker.publish(pointers(3)))
        await wait_until_ready(broker, 3)
        assert not receiver.messages


async def test_a_larger_prefetch_receives_more_while_messages_are_held(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=2) as receiver:
        sent = pointers(40)
        assert all(await broker.publish(sent))
        await receiver.wait_for(2)
        await receiver.subscription.set_prefetch(8)
        await receiver.wait_for(8)
        assert len(receiver.messages) <= 2 + 8
        receiver.ack(receiver.messages)
        await receiver.wait_for(16)
        while len(receiver.messages) < 40:
            receiver.ack(receiver.messages)
            await receiver.wait_for(min(40, len(receiver.messages) + 1))
        assert receiver.ids == [pointer.id for pointer in sent]


async def test_after_a_smaller_prefetch_held_messages_stay_held(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=8) as receiver:
        assert all(await broker.publish(pointers(30)))
        await receiver.wait_for(8)
        await receiver.subscription.set_prefetch(2)
        held = len(receiver.messages)
        receiver.ack(receiver.messages)
        await receiver.wait_until(lambda: len(receiver.messages) > held)
        assert not any(message.redelivered for message in receiver.messages)
        assert len(set(receiver.ids)) == len(receiver.ids)


async def test_a_smaller_prefetch_limits_later_deliveries(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=8) as receiver:
        await receiver.subscription.set_prefetch(2)
        assert all(await broker.publish(pointers(30)))
        await receiver.wait_for(2)
        await wait_until_ready(broker, 28)
        assert len(receiver.messages) == 2


async def test_what_is_held_from_before_a_stop_does_not_count_against_the_next_prefetch(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=2) as receiver:
        assert all(await broker.publish(pointers(30)))
        await receiver.wait_for(2)
        await receiver.subscription.set_prefetch(0)
        await receiver.subscription.set_prefetch(2)
        await receiver.wait_for(4)
        await wait_until_ready(broker, 26)
        assert len(receiver.messages) == 4


async def test_prefetch_zero_stops_deliveries_and_held_messages_can_be_acked(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker:
        async with subscribed(broker, prefetch=4) as receiver:
            assert all(await broker.publish(pointers(4)))
            await receiver.wait_for(4)
            await receiver.subscription.set_prefetch(0)
            assert all(await broker.publish(pointers(5)))
            await wait_until_ready(broker, 5)
            assert len(receiver.messages) == 4
            receiver.ack(receiver.messages)
        await wait_until_ready(broker, 5)


async def test_a_stopped_subscription_can_be_resumed(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=4, acks=True) as receiver:
        await receiver.subscription.set_prefetch(0)
        sent = pointers(20)
        assert all(await broker.publish(sent))
        await receiver.subscription.set_prefetch(4)
        await receiver.wait_for(20)
        assert receiver.ids == [pointer.id for pointer in sent]


async def test_a_negative_prefetch_is_an_error(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker) as receiver:
        with pytest.raises(ValueError, match="-1"):
            await receiver.subscription.set_prefetch(-1)


async def test_an_acked_message_is_not_delivered_again(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        async with subscribed(broker, prefetch=100, acks=True) as receiver:
            assert all(await broker.publish(pointers(100)))
            await receiver.wait_for(100)
        await wait_until_ready(broker, 0)


async def test_acks_out_of_order_settle_only_their_own_messages(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker:
        async with subscribed(broker, prefetch=10) as receiver:
            assert all(await broker.publish(pointers(10)))
            await receiver.wait_for(10)
            for place in (7, 1, 0, 9, 3, 2):
                receiver.ack([receiver.messages[place]])
                await asyncio.sleep(0)
            unacked = [receiver.ids[place] for place in (4, 5, 6, 8)]
        async with subscribed(broker, prefetch=10) as receiver:
            await receiver.wait_for(4)
            await wait_until_ready(broker, 0)
            assert sorted(receiver.ids) == sorted(unacked)


async def test_a_second_ack_has_no_effect(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=1) as receiver:
        assert all(await broker.publish(pointers(3)))
        for n in (1, 2, 3):
            await receiver.wait_for(n)
            receiver.ack(receiver.messages)
            await asyncio.sleep(0)
            receiver.ack(receiver.messages)
        await wait_until_ready(broker, 0)
        assert receiver.connection_losses == 0


async def test_messages_unacked_at_the_end_are_redelivered_in_order(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker:
        sent = pointers(6)
        assert all(await broker.publish(sent))
        async with subscribed(broker, prefetch=4) as receiver:
            await receiver.wait_for(4)
        async with subscribed(broker, prefetch=10) as receiver:
            await receiver.wait_for(6)
            assert receiver.ids == [pointer.id for pointer in sent]
            assert [message.redelivered for message in receiver.messages] == [True] * 4 + [
                False
            ] * 2
            assert receiver.connection_losses == 0


async def test_an_ack_after_the_end_has_no_effect(open_broker: OpenBroker) -> None:
    async with open_broker() as broker:
        assert all(await broker.publish(pointers(1)))
        async with subscribed(broker, prefetch=1) as receiver:
            await receiver.wait_for(1)
        receiver.ack(receiver.messages)
        await wait_until_ready(broker, 1)


async def test_two_subscribers_of_a_queue_receive_each_message_once(
    open_broker: OpenBroker,
) -> None:
    async with (
        open_broker() as broker,
        open_broker() as other_process,
        subscribed(broker, prefetch=5, acks=True) as first,
        subscribed(other_process, prefetch=5, acks=True) as second,
    ):
        sent = pointers(200)
        assert all(await broker.publish(sent))
        await wait_until_ready(broker, 0)
        await first.wait_until(lambda: len(first.messages) > 0)
        await second.wait_until(lambda: len(second.messages) > 0)
    assert sorted(first.ids + second.ids) == sorted(pointer.id for pointer in sent)


async def test_the_messages_of_a_subscriber_that_leaves_go_to_the_other_one(
    open_broker: OpenBroker,
) -> None:
    async with (
        open_broker() as broker,
        open_broker() as other_process,
        subscribed(broker, acks=True) as stays,
    ):
        sent = pointers(60)
        async with subscribed(other_process, prefetch=10) as leaves:
            assert all(await broker.publish(sent))
            await leaves.wait_for(10)
            await stays.subscription.set_prefetch(100)
            await stays.wait_for(50)
        await stays.wait_for_all(sent)
        assert len(stays.messages) == 60


async def test_a_broker_that_is_reopened_has_all_unacked_messages(
    open_broker: OpenBroker,
) -> None:
    sent = pointers(50)
    async with open_broker() as broker:
        assert all(await broker.publish(sent))
        async with subscribed(broker, prefetch=20) as receiver:
            await receiver.wait_for(20)
            receiver.ack(receiver.messages[:10])
    async with open_broker() as broker, subscribed(broker, prefetch=50, acks=True) as receiver:
        await receiver.wait_for_all(sent[10:])
        assert receiver.ids == [pointer.id for pointer in sent[10:]]


async def test_five_thousand_messages_published_at_once_all_arrive(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=256, acks=True) as receiver:
        sent = pointers(5_000)
        assert all(await broker.publish(sent))
        await receiver.wait_for(5_000)
        assert receiver.ids == [pointer.id for pointer in sent]


async def test_twenty_quick_resizes_lose_no_message(open_broker: OpenBroker) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=1, acks=True) as receiver:
        sent = pointers(2_000)
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(broker.publish(sent), name="publishing")
            for prefetch in (4, 64, 1, 0, 16, 2, 128, 0, 8, 32) * 2:
                await receiver.subscription.set_prefetch(prefetch)
        assert all(publishing.result())
        await receiver.wait_for_all(sent)
        assert len(receiver.messages) == 2_000


async def test_a_resize_whose_caller_is_cancelled_takes_effect(
    open_broker: OpenBroker,
) -> None:
    async with open_broker() as broker, subscribed(broker, prefetch=2) as receiver:
        assert all(await broker.publish(pointers(20)))
        await receiver.wait_for(2)
        async with asyncio.TaskGroup() as group:
            resizing = group.create_task(receiver.subscription.set_prefetch(10), name="resizing")
            await asyncio.sleep(0)
            resizing.cancel()
        await receiver.wait_for(10)
        assert receiver.connection_losses == 0


async def test_the_inprocess_broker_is_empty_when_opened() -> None:
    async with open_inprocess_broker(QUEUES) as broker:
        assert (await broker.depths())[EMAIL_LOW] == Depth(0, 0)
