"""Messages that carry several pointers, on a real RabbitMQ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator

import aiormq
import pytest
from msgspec.structs import replace

from notifier.adapters.rabbitmq.broker import open_rabbitmq_broker
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.broker import Broker, Pointer
from tests.conformance.receiving import (
    EMAIL_LOW,
    QUEUES,
    CountingObserver,
    pointers,
    subscribed,
    wait_until_ready,
)

EMAIL_HIGH = QueueKey(Channel("email"), Priority.HIGH)
PREFETCH = 64


@pytest.fixture
async def broker(vhost_url: str) -> AsyncIterator[Broker]:
    async with open_rabbitmq_broker(vhost_url, QUEUES, observer=CountingObserver()) as broker:
        yield broker


def of_one_instant(count: int, queue: QueueKey = EMAIL_LOW, *, at: float = 1.5) -> list[Pointer]:
    """Return pointers with one `published_at`: only such pointers share messages."""
    return [
        Pointer(queue=queue, id=pointer.id, claim=pointer.claim, published_at=at)
        for pointer in pointers(count, queue)
    ]


async def bodies(vhost_url: str, queue: QueueKey = EMAIL_LOW) -> list[list[list[object]]]:
    """Take all messages of a queue; return the pointers of pointer."""
    messages = list[list[list[object]]]()
    async with aiormq.connect(vhost_url) as connection:
        channel = await connection.channel()
        while body := (await channel.basic_get(f"notifier.{queue}", no_ack=True)).body:
            messages.append(json.loads(body)["pointers"])
    return messages


async def test_pointers_of_a_queue_share_messages_up_to_the_maximum_batch(
    broker: Broker, vhost_url: str
) -> None:
    low, high, later = of_one_instant(7), of_one_instant(2, EMAIL_HIGH), of_one_instant(1, at=2.5)
    mixed = [*low[:3], high[0], *later, *low[3:], high[1]]
    assert all(await broker.publish(mixed, {EMAIL_LOW: 3}))
    assert await bodies(vhost_url) == [
        [[str(pointer.id), pointer.claim] for pointer in message]
        for message in (low[:3], low[3:6], low[6:], later)
    ]
    assert [len(message) for message in await bodies(vhost_url, EMAIL_HIGH)] == [1, 1]


async def test_a_pointer_with_deaths_travels_alone(broker: Broker, vhost_url: str) -> None:
    innocent = of_one_instant(4)
    suspects = [replace(pointer, deaths=n) for n, pointer in enumerate(of_one_instant(2), start=1)]
    mixed = [innocent[0], suspects[0], *innocent[1:3], suspects[1], innocent[3]]
    assert all(await broker.publish(mixed, {EMAIL_LOW: 64}))
    assert await bodies(vhost_url) == [
        [[str(pointer.id), pointer.claim] for pointer in message]
        for message in (innocent, suspects[:1], suspects[1:])
    ]


async def test_the_sizes_and_deaths_of_pointers_arrive(broker: Broker) -> None:
    sent = [replace(pointer, size=n) for n, pointer in enumerate(of_one_instant(3))]
    sent[1] = replace(sent[1], deaths=2)
    assert all(await broker.publish(sent, {EMAIL_LOW: 3}))
    async with subscribed(broker, prefetch=8, acks=True) as receiver:
        await receiver.wait_for(3)
        arrived = {delivery.pointer.id: delivery.pointer for delivery in receiver.deliveries}
        assert arrived == {pointer.id: pointer for pointer in sent}


async def test_a_message_is_acked_once_all_its_pointers_are_acked(broker: Broker) -> None:
    sent = of_one_instant(3)
    assert all(await broker.publish(sent, {EMAIL_LOW: 3}))
    async with subscribed(broker, prefetch=8) as first:
        await first.wait_for(3)
        assert [delivery.pointer for delivery in first.deliveries] == sent
        first.ack(first.deliveries[:2])
        first.ack(first.deliveries[:2])
    async with subscribed(broker, prefetch=8) as again:
        await again.wait_for(3)
        assert all(delivery.redelivered for delivery in again.deliveries)
        again.ack(reversed(again.deliveries))
    async with subscribed(broker, prefetch=8) as none:
        await wait_until_ready(broker, 0)
        assert not none.deliveries


async def test_no_pointer_of_an_unroutable_message_is_confirmed(broker: Broker) -> None:
    fax = QueueKey(Channel("fax"), Priority.LOW)
    mixed = [*of_one_instant(4, fax), *of_one_instant(4)]
    confirmed = await broker.publish(mixed, {fax: 4, EMAIL_LOW: 4})
    assert list(confirmed) == [False] * 4 + [True] * 4


async def test_the_depth_is_in_pointers(broker: Broker) -> None:
    assert all(await broker.publish(of_one_instant(1_600), {EMAIL_LOW: 16}))
    depth = (await broker.depths([EMAIL_LOW]))[EMAIL_LOW]
    assert depth.ready == pytest.approx(1_600, rel=0.05)


async def test_a_subscription_holds_a_bounded_number_of_pointers_at_every_batch_size(
    broker: Broker,
) -> None:
    """The prefetch follows the batch sizes, and every pointer arrives once."""
    sent = of_one_instant(9_600)
    assert all(await broker.publish(sent, {EMAIL_LOW: 16}))
    async with subscribed(broker, prefetch=PREFETCH) as receiver:
        acked = 0
        while acked < len(sent):
            await receiver.wait_for(acked + 1)
            held = len(receiver.deliveries) - acked
            if acked > len(sent) * 3 // 4:
                assert held <= receiver.subscription.max_held
            receiver.ack(receiver.deliveries[acked : acked + 16])
            acked = min(acked + 16, len(receiver.deliveries))
        assert PREFETCH < receiver.subscription.max_held <= 4 * PREFETCH
        assert Counter(receiver.ids) == Counter(pointer.id for pointer in sent)
        singles = pointers(400)
        assert all(await broker.publish(singles))
        while acked < len(sent) + len(singles):
            await receiver.wait_for(acked + 1)
            receiver.ack(receiver.deliveries[acked:])
            acked = len(receiver.deliveries)
        assert receiver.subscription.max_held == PREFETCH
