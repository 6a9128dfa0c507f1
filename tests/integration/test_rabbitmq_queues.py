"""The exchange, the queues and the messages in RabbitMQ."""

from __future__ import annotations

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
from notifier.embedded.rabbitmq_management import HEADERS
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE
from tests.conformance.receiving import (
    EMAIL_LOW,
    QUEUES,
    CountingObserver,
    pointers,
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
