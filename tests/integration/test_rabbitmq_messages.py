"""Messages that carry several pointers, on a real RabbitMQ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator

import aiormq
import pytest

from notifier.adapters.rabbitmq.broker import open_rabbitmq_broker
from notifier.domain.notification import Channel, Priority, QueueKey
from notifier.ports.broker import Broker, Pointer
from tests.conformance.taking import (
    EMAIL_LOW,
    QUEUES,
    CountingObserver,
    pointers,
    taking,
    until_ready,
)

EMAIL_HIGH = QueueKey(Channel("email"), Priority.HIGH)
PREFETCH = 64


@pytest.fixture
async def broker(vhost_url: str) -> AsyncIterator[Broker]:
    async with open_rabbitmq_broker(vhost_url, QUEUES, observer=CountingObserver()) as broker:
        yield broker


def of_one_take(count: int, queue: QueueKey = EMAIL_LOW, *, at: float = 1.5) -> list[Pointer]:
    """Pointers of one instant: only they share messages."""
    return [
        Pointer(queue=queue, id=each.id, claim=each.claim, published_at=at)
        for each in pointers(count, queue)
    ]


async def bodies(vhost_url: str, queue: QueueKey = EMAIL_LOW) -> list[list[list[object]]]:
    """The pointers of each message of a queue, which is empty then."""
    found = list[list[list[object]]]()
    async with aiormq.connect(vhost_url) as connection:
        channel = await connection.channel()
        while body := (await channel.basic_get(f"notifier.{queue}", no_ack=True)).body:
            found.append(json.loads(body)["pointers"])
    return found


async def test_pointers_of_a_queue_share_messages_up_to_what_is_allowed(
    broker: Broker, vhost_url: str
) -> None:
    low, high, later = of_one_take(7), of_one_take(2, EMAIL_HIGH), of_one_take(1, at=2.5)
    mixed = [*low[:3], high[0], *later, *low[3:], high[1]]
    assert all(await broker.publish(mixed, {EMAIL_LOW: 3}))
    assert await bodies(vhost_url) == [
        [[str(each.id), each.claim] for each in message]
        for message in (low[:3], low[3:6], low[6:], later)
    ]
    assert [len(message) for message in await bodies(vhost_url, EMAIL_HIGH)] == [1, 1]


async def test_a_message_is_acknowledged_when_the_last_of_its_pointers_is(broker: Broker) -> None:
    sent = of_one_take(3)
    assert all(await broker.publish(sent, {EMAIL_LOW: 3}))
    async with taking(broker, prefetch=8) as first:
        await first.has(3)
        assert [each.pointer for each in first.deliveries] == sent
        first.ack(first.deliveries[:2])
        first.ack(first.deliveries[:2])
    async with taking(broker, prefetch=8) as again:
        await again.has(3)
        assert all(each.redelivered for each in again.deliveries)
        again.ack(reversed(again.deliveries))
    async with taking(broker, prefetch=8) as none:
        await until_ready(broker, 0)
        assert not none.deliveries


async def test_what_cannot_be_routed_is_refused_as_a_whole(broker: Broker) -> None:
    fax = QueueKey(Channel("fax"), Priority.LOW)
    mixed = [*of_one_take(4, fax), *of_one_take(4)]
    answers = await broker.publish(mixed, {fax: 4, EMAIL_LOW: 4})
    assert list(answers) == [False] * 4 + [True] * 4


async def test_the_depth_is_told_in_pointers(broker: Broker) -> None:
    assert all(await broker.publish(of_one_take(1_600), {EMAIL_LOW: 16}))
    depth = (await broker.depths([EMAIL_LOW]))[EMAIL_LOW]
    assert depth.ready == pytest.approx(1_600, rel=0.05)


async def test_a_subscription_holds_about_as_many_pointers_whatever_a_message_carries(
    broker: Broker,
) -> None:
    """It learns from what comes, and all of it comes, each once."""
    sent = of_one_take(9_600)
    assert all(await broker.publish(sent, {EMAIL_LOW: 16}))
    async with taking(broker, prefetch=PREFETCH) as taker:
        acked = 0
        while acked < len(sent):
            await taker.has(acked + 1)
            held = len(taker.deliveries) - acked
            if acked > len(sent) * 3 // 4:
                assert held <= taker.subscription.max_held
            taker.ack(taker.deliveries[acked : acked + 16])
            acked = min(acked + 16, len(taker.deliveries))
        assert PREFETCH < taker.subscription.max_held <= 4 * PREFETCH
        assert Counter(taker.ids) == Counter(each.id for each in sent)
        singles = pointers(400)
        assert all(await broker.publish(singles))
        while acked < len(sent) + len(singles):
            await taker.has(acked + 1)
            taker.ack(taker.deliveries[acked:])
            acked = len(taker.deliveries)
        assert taker.subscription.max_held == PREFETCH
