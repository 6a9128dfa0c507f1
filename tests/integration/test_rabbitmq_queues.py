"""The exchange, the queues and the messages in RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import uuid
from typing import Any
from urllib.parse import urlsplit

import aiormq
import pytest
import structlog.testing
from pamqp.commands import Basic

from harness.rabbitmq import RabbitmqNode
from notifier.adapters.rabbitmq.broker import open_rabbitmq_broker
from notifier.domain.errors import ConfigError
from notifier.domain.notification import QueueKey
from notifier.embedded.rabbitmq_management import HEADERS
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE, Broker
from tests.conformance.receiving import (
    EMAIL_LOW,
    QUEUES,
    TIMEOUT_S,
    CountingObserver,
    pointers,
    publish_until_confirmed,
    subscribed,
    wait_until_ready,
)

ID = str(uuid.uuid4())
GOOD = {"pointers": [[ID, 3]], "published_at": 1.5}
UNREADABLE = [
    b"",
    b"\xff\xfe",
    b"not json",
    b"[]",
    b"{}",
    json.dumps(GOOD | {"pointers": [["someone@example.org", 3]]}).encode(),
    json.dumps(GOOD | {"pointers": [[ID, "3"]]}).encode(),
    json.dumps(GOOD | {"pointers": [[ID, -1]]}).encode(),
    json.dumps(GOOD | {"pointers": [[ID, 2**31]]}).encode(),
    json.dumps(GOOD | {"pointers": [[ID]]}).encode(),
    json.dumps(GOOD | {"pointers": []}).encode(),
    json.dumps(GOOD | {"pointers": [[ID, 3]] * (MAX_POINTERS_PER_MESSAGE + 1)}).encode(),
    json.dumps(GOOD | {"published_at": None}).encode(),
    json.dumps({"pointers": [[ID, 3]]}).encode(),
    json.dumps(GOOD | {"sizes": [1, 2]}).encode(),
    json.dumps(GOOD | {"sizes": [-1]}).encode(),
    json.dumps(GOOD | {"sizes": [2**31]}).encode(),
    json.dumps(GOOD | {"deaths": -1}).encode(),
    json.dumps(GOOD | {"deaths": 2**15}).encode(),
    json.dumps(GOOD | {"deployment": "someone@example.org"}).encode(),
    json.dumps(GOOD | {"deployment": "a" * 65}).encode(),
    json.dumps(GOOD | {"deployment": 1}).encode(),
    b'{"pointers":[["' + ID.encode() + b'",1]],"published_at":1e999}',
]


def _manage(server: RabbitmqNode, path: str, url: str) -> Any:
    """Return what RabbitMQ's HTTP API lists for the vhost of an AMQP URL."""
    vhost = urlsplit(url).path.removeprefix("/")
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.management_url).port)
    with contextlib.closing(connection):
        connection.request("GET", f"{path}/{vhost}", headers=HEADERS)
        return json.load(connection.getresponse())


async def test_nine_quorum_queues_are_declared_and_a_second_declare_succeeds(
    rabbitmq_server: RabbitmqNode, vhost_url: str
) -> None:
    for _ in range(2):
        async with open_rabbitmq_broker(vhost_url, QUEUES, observer=CountingObserver()) as broker:
            assert await broker.probe()
    declared = {
        queue["name"]: queue for queue in _manage(rabbitmq_server, "/api/queues", vhost_url)
    }
    assert set(declared) == {f"notifier.{queue}" for queue in QUEUES}
    for queue in declared.values():
        assert queue["durable"]
        assert queue["arguments"] == {"x-queue-type": "quorum", "x-delivery-limit": 1000}
    bindings = _manage(rabbitmq_server, "/api/bindings", vhost_url)
    assert {
        (binding["source"], binding["routing_key"], binding["destination"])
        for binding in bindings
        if binding["source"]
    } == {("notifier", str(queue), f"notifier.{queue}") for queue in QUEUES}


async def test_two_processes_opening_an_empty_broker_at_once_both_work(vhost_url: str) -> None:
    observer = CountingObserver()
    async with (
        open_rabbitmq_broker(vhost_url, QUEUES, observer=observer) as first,
        open_rabbitmq_broker(vhost_url, QUEUES, observer=observer) as second,
    ):
        assert all(await first.publish(pointers(5)))
        assert all(await second.publish(pointers(5)))
        await wait_until_ready(first, 10)


async def test_the_body_holds_only_the_pointer(vhost_url: str) -> None:
    async with open_rabbitmq_broker(vhost_url, QUEUES, observer=CountingObserver()) as broker:
        (sent,) = pointers(1)
        assert all(await broker.publish([sent]))
    async with aiormq.connect(vhost_url) as connection:
        channel = await connection.channel()
        message = await channel.basic_get("notifier.email.low", no_ack=True)
    assert json.loads(message.body) == {
        "pointers": [[str(sent.id), sent.claim]],
        "published_at": sent.published_at,
        "sizes": [0],
    }
    properties = message.header.properties
    assert properties.delivery_mode == 2
    assert set(properties.headers or {}) <= {"x-delivery-count"}


async def test_unreadable_messages_are_counted_and_acked_and_their_body_is_not_logged(
    vhost_url: str,
) -> None:
    observer = CountingObserver()
    async with open_rabbitmq_broker(vhost_url, QUEUES, observer=observer) as broker:
        async with aiormq.connect(vhost_url) as connection:
            channel = await connection.channel()
            for body in UNREADABLE:
                await channel.basic_publish(body, exchange="notifier", routing_key="email.low")
            await channel.basic_publish(
                json.dumps(GOOD).encode(), exchange="", routing_key="notifier.email.low"
            )
        sent = pointers(1)
        assert all(await broker.publish(sent))
        with structlog.testing.capture_logs() as logs:
            async with subscribed(broker, prefetch=100, acks=True) as receiver:
                await receiver.wait_for_all(sent)
                assert len(receiver.messages) == 1
            async with subscribed(broker, prefetch=1) as receiver:
                await wait_until_ready(broker, 0)
                assert not receiver.messages
    assert observer.unreadable_count == len(UNREADABLE) + 1
    records = [record for record in logs if record["event"] == "message_unreadable"]
    assert len(records) == len(UNREADABLE) + 1
    assert "someone@example.org" not in str(logs)


async def test_a_message_of_a_later_version_with_more_fields_is_read(vhost_url: str) -> None:
    async with open_rabbitmq_broker(vhost_url, QUEUES, observer=CountingObserver()) as broker:
        async with aiormq.connect(vhost_url) as connection:
            channel = await connection.channel()
            await channel.basic_publish(
                json.dumps(GOOD | {"of_a_later_version": 1}).encode(),
                exchange="notifier",
                routing_key="email.low",
                properties=Basic.Properties(delivery_mode=2),
            )
        async with subscribed(broker, prefetch=1, acks=True) as receiver:
            await receiver.wait_for(1)
            [pointer] = receiver.pointers
            assert (pointer.queue, pointer.claim) == (EMAIL_LOW, 3)


@pytest.mark.parametrize("url", ["", "http://localhost/", "amqp://", "amqp://host:port/", "guest"])
async def test_a_url_that_is_not_of_amqp_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"broker\.url"):
        async with open_rabbitmq_broker(url, QUEUES, observer=CountingObserver()):
            pass


async def test_a_queue_with_other_arguments_is_named_and_the_other_queues_work(
    vhost_url: str,
) -> None:
    await foreign_queue(vhost_url, EMAIL_LOW)
    observer = CountingObserver()
    with structlog.testing.capture_logs() as logs:
        async with open_rabbitmq_broker(vhost_url, QUEUES, observer=observer) as broker:
            others = [queue for queue in QUEUES if queue != EMAIL_LOW]
            for queue in others:
                sent = pointers(1, queue)
                assert all(await broker.publish(sent))
                async with subscribed(broker, queue, prefetch=1, acks=True) as receiver:
                    await receiver.wait_for_all(sent)
            assert await broker.probe()
            assert not any(await broker.publish(pointers(1)))
            assert set(broker.refused_queues()) == {EMAIL_LOW}
            assert "inequivalent arg 'x-" in broker.refused_queues()[EMAIL_LOW]
            assert set(await broker.depths()) == set(others)
    assert observer.refused_count == 1
    named = [record for record in logs if record["event"] == "queue_refused"]
    assert [record["queue"] for record in named] == ["email.low"]
    assert not [record for record in logs if record["event"] == "broker_unavailable"]


async def test_a_refused_queue_is_used_as_soon_as_it_is_deleted_and_its_messages_stay_until_then(
    vhost_url: str,
) -> None:
    await foreign_queue(vhost_url, EMAIL_LOW, b"of somebody else")
    observer = CountingObserver()
    async with (
        open_rabbitmq_broker(vhost_url, QUEUES, observer=observer) as broker,
        subscribed(broker, prefetch=10, acks=True) as receiver,
    ):
        assert set(broker.refused_queues()) == {EMAIL_LOW}
        async with aiormq.connect(vhost_url) as connection:
            channel = await connection.channel()
            assert (await channel.queue_delete("notifier.email.low")).message_count == 1
        sent = pointers(3)
        await publish_until_confirmed(broker, sent)
        await receiver.wait_for_all(sent)
        assert broker.refused_queues() == {}
    assert observer.refused_count == 0
    assert observer.unreadable_count == 0


async def test_a_queue_that_is_replaced_by_a_foreign_one_is_not_consumed_from(
    vhost_url: str,
) -> None:
    async with (
        open_rabbitmq_broker(vhost_url, QUEUES, observer=CountingObserver()) as broker,
        subscribed(broker, prefetch=10) as receiver,
    ):
        async with aiormq.connect(vhost_url) as connection:
            channel = await connection.channel()
            await channel.queue_delete("notifier.email.low")
            await channel.queue_declare("notifier.email.low", durable=True)
        await receiver.wait_for_loss(1)
        await publish_until_refused(broker)
        assert set(broker.refused_queues()) == {EMAIL_LOW}


async def test_queues_beyond_the_limit_of_the_vhost_are_named_and_the_others_work(
    rabbitmq_server: RabbitmqNode, vhost_url: str
) -> None:
    vhost = urlsplit(vhost_url).path.removeprefix("/")
    await rabbitmq_server.control("set_vhost_limits", "-p", vhost, '{"max-queues": 5}')
    async with open_rabbitmq_broker(vhost_url, QUEUES, observer=CountingObserver()) as broker:
        assert set(broker.refused_queues()) == set(QUEUES[5:])
        assert "queue limit in vhost" in broker.refused_queues()[QUEUES[8]]
        for queue in QUEUES[:5]:
            assert all(await broker.publish(pointers(1, queue)))
        await rabbitmq_server.control("clear_vhost_limits", "-p", vhost)
        await publish_until_confirmed(broker, pointers(1, QUEUES[8]))


async def test_a_user_without_any_right_is_refused_as_a_whole(
    rabbitmq_server: RabbitmqNode, vhost_url: str
) -> None:
    vhost = urlsplit(vhost_url).path.removeprefix("/")
    await rabbitmq_server.control("add_user", "reader", "reader")
    try:
        await rabbitmq_server.control(
            "set_permissions", "-p", vhost, "reader", r"^notifier$", "^$", ".*"
        )
        url = vhost_url.replace("guest:guest", "reader:reader")
        with structlog.testing.capture_logs() as logs:
            async with open_rabbitmq_broker(url, QUEUES, observer=CountingObserver()) as broker:
                assert not await broker.probe()
    finally:
        await rabbitmq_server.control("delete_user", "reader")
    (lost,) = [record for record in logs if record["event"] == "broker_unavailable"]
    assert lost["refused"]


async def foreign_queue(url: str, queue: QueueKey, *bodies: bytes) -> None:
    """Declare a queue of somebody else under the name of one of ours, with these messages."""
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        await channel.queue_declare(f"notifier.{queue}", durable=True)
        for body in bodies:
            await channel.basic_publish(body, routing_key=f"notifier.{queue}")


async def publish_until_refused(broker: Broker) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not broker.refused_queues():
            await broker.publish(pointers(1))
            await asyncio.sleep(0.05)
