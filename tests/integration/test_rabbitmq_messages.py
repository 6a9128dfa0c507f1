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


@pytest.fixture
async def broker(vhost_url: str) -> AsyncIterator[Broker]:
    async with open_rabbitmq_broker(
        vhost_url, QUEUES, observer=CountingObserver(), publish_timeout_s=60.0
    ) as broker:
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
        await receiver.wait_for(2)
        assert [list(message.pointers) for message in receiver.messages] == [
            [sent[0], sent[2]],
            [sent[1]],
        ]


async def test_a_message_is_delivered_and_acked_as_one(broker: Broker) -> None:
    sent = of_one_instant(6)
    assert all(await broker.publish(sent, {EMAIL_LOW: 3}))
    async with subscribed(broker, prefetch=8) as first:
        await first.wait_for(2)
        assert [list(message.pointers) for message in first.messages] == [sent[:3], sent[3:]]
        assert not any(message.redelivered for message in first.messages)
        first.ack(first.messages[1:])
        first.ack(first.messages[1:])
    async with subscribed(broker, prefetch=8) as again:
        await again.wait_for(1)
        await wait_until_ready(broker, 0)
        [message] = again.messages
        assert list(message.pointers) == sent[:3]
        assert message.redelivered
        again.ack([message])
    async with subscribed(broker, prefetch=8) as none:
        await wait_until_ready(broker, 0)
        assert not none.messages


async def test_no_pointer_of_an_unroutable_message_is_confirmed(broker: Broker) -> None:
    fax = QueueKey(Channel("fax"), Priority.LOW)
    mixed = [*of_one_instant(4, fax), *of_one_instant(4)]
    confirmed = await broker.publish(mixed, {fax: 4, EMAIL_LOW: 4})
    assert list(confirmed) == [False] * 4 + [True] * 4


async def test_the_depth_is_in_pointers(broker: Broker) -> None:
    assert all(await broker.publish(of_one_instant(1_600), {EMAIL_LOW: 16}))
    depth = (await broker.depths([EMAIL_LOW]))[EMAIL_LOW]
    assert depth.ready == pytest.approx(1_600, rel=0.05)


@pytest.mark.parametrize("batch_size", [1, 16])
async def test_the_prefetch_counts_messages_whatever_they_carry(
    broker: Broker, batch_size: int
) -> None:
    sent = of_one_instant(40 * batch_size)
    assert all(await broker.publish(sent, {EMAIL_LOW: batch_size}))
    async with subscribed(broker, prefetch=3) as receiver:
        for acked in range(0, 40, 2):
            await receiver.wait_for(min(40, acked + 3))
            assert len(receiver.messages) == min(40, acked + 3)
            receiver.ack(receiver.messages[acked : acked + 2])
        assert Counter(receiver.ids) == Counter(pointer.id for pointer in sent)
        assert {len(message.pointers) for message in receiver.messages} == {batch_size}
