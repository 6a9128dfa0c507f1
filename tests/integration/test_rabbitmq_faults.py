"""Faults of RabbitMQ: restarts, lost data, alarms, cut connections. The broker recovers."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import pytest
import structlog.testing

from harness.rabbitmq import RabbitmqNode
from harness.tcp_proxy import open_proxy_for
from notifier.adapters.rabbitmq.broker import RabbitBroker, open_rabbitmq_broker
from notifier.adapters.rabbitmq.subscription import RabbitSubscription
from notifier.embedded.process import Steps, run_steps_async
from notifier.embedded.rabbitmq import RabbitmqInstall
from notifier.embedded.rabbitmq_node import environment
from notifier.ports.broker import Broker, Pointer
from tests.conformance.receiving import (
    EMAIL_LOW,
    QUEUES,
    TIMEOUT_S,
    CountingObserver,
    RecordingReceiver,
    pointers,
    publish_until_confirmed,
    subscribed,
    wait_until_ready,
)


@asynccontextmanager
async def _opened(url: str, *, publish_timeout_s: float = 5.0) -> AsyncIterator[Broker]:
    async with open_rabbitmq_broker(
        url, QUEUES, observer=CountingObserver(), publish_timeout_s=publish_timeout_s
    ) as broker:
        yield broker


async def _wait_for_probe(broker: Broker, expected: bool) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while await broker.probe() is not expected:
            await asyncio.sleep(0.02)


class _Load:
    """Publishes small batches until `stop`; records the confirmed pointers."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.confirmed: list[Pointer] = []
        self.refused = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        while not self._stop.is_set():
            batch = pointers(20)
            confirmed = await self._broker.publish(batch)
            self.confirmed += [pointer for pointer, ok in zip(batch, confirmed, strict=True) if ok]
            self.refused += list(confirmed).count(False)
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()


@pytest.mark.parametrize(
    ("fault", "keeps"), [("restarting", True), ("killing", True), ("wiping", False)]
)
async def test_after_a_node_restarts_confirmed_pointers_arrive(
    private_rabbitmq: RabbitmqNode, private_vhost_url: str, fault: str, keeps: bool
) -> None:
    async with (
        _opened(private_vhost_url) as broker,
        subscribed(broker, prefetch=50, acks=True) as receiver,
        asyncio.TaskGroup() as group,
    ):
        load = _Load(broker)
        group.create_task(load.run(), name="load")
        await receiver.wait_for(100)
        steps: Steps = getattr(private_rabbitmq, fault)()
        await run_steps_async(steps)
        if fault == "killing":
            await run_steps_async(private_rabbitmq.starting())
        marker = pointers(20)
        await publish_until_confirmed(broker, marker)
        await receiver.wait_for_all(marker)
        load.stop()
        if keeps:
            await receiver.wait_for_all(load.confirmed)
        assert load.refused > 0
        assert receiver.connection_losses >= 1


async def test_while_the_node_is_down_calls_return_without_error_and_confirm_nothing(
    private_rabbitmq: RabbitmqNode, private_vhost_url: str
) -> None:
    async with _opened(private_vhost_url) as broker, subscribed(broker, prefetch=4) as receiver:
        assert all(await broker.publish(pointers(4)))
        await receiver.wait_for(4)
        await run_steps_async(private_rabbitmq.killing())
        await receiver.wait_for_loss(1)
        await _wait_for_probe(broker, expected=False)
        assert not any(await broker.publish(pointers(3)))
        assert await broker.depths() == {}
        receiver.ack(receiver.messages)
        await receiver.subscription.set_prefetch(8)
        await run_steps_async(private_rabbitmq.starting())
        await receiver.wait_for(8)
        assert all(message.redelivered for message in receiver.messages[4:])
        assert receiver.connection_losses == 1
        receiver.ack(receiver.messages[4:])
        sent = pointers(8)
        await publish_until_confirmed(broker, sent)
        await receiver.wait_for_all(sent)


async def test_a_queue_deleted_under_an_open_subscription_is_declared_and_consumed_again(
    vhost_url: str,
) -> None:
    async with _opened(vhost_url) as broker, subscribed(broker, prefetch=10) as receiver:
        assert all(await broker.publish(pointers(3)))
        await receiver.wait_for(3)
        async with aiormq.connect(vhost_url) as connection:
            channel = await connection.channel()
            await channel.queue_delete("notifier.email.low")
        await receiver.wait_for_loss(1)
        receiver.ack(receiver.messages)
        sent = pointers(5)
        await publish_until_confirmed(broker, sent)
        await receiver.wait_for_all(sent)


async def test_a_queue_deleted_without_subscribers_is_declared_again_by_publishing(
    vhost_url: str,
) -> None:
    async with _opened(vhost_url) as broker:
        async with aiormq.connect(vhost_url) as connection:
            channel = await connection.channel()
            await channel.queue_delete("notifier.email.low")
            await channel.queue_delete("notifier.sms.high")
        await publish_until_confirmed(broker, pointers(2))
        await publish_until_confirmed(broker, pointers(2, QUEUES[3]))
        await wait_until_ready(broker, 2)


async def test_a_consumer_that_the_broker_lost_is_created_again(vhost_url: str) -> None:
    async with _opened(vhost_url) as broker, subscribed(broker, prefetch=10, acks=True) as receiver:
        subscription = receiver.subscription
        assert isinstance(subscription, RabbitSubscription)
        session = subscription._session
        assert session is not None
        assert session.consumer_tag is not None
        await session.channel.basic_cancel(session.consumer_tag)  # unknown to the subscription
        sent = pointers(3)
        assert all(await broker.publish(sent))
        await receiver.wait_for_all(sent)


async def test_a_publish_that_is_cancelled_leaves_the_channel_usable(vhost_url: str) -> None:
    async with _opened(vhost_url) as broker:
        assert isinstance(broker, RabbitBroker)
        channel = broker._publisher._channel
        async with asyncio.TaskGroup() as group:
            for waits in range(8):
                publishing = group.create_task(broker.publish(pointers(500)), name="publishing")
                for _ in range(waits * 3):
                    await asyncio.sleep(0)
                publishing.cancel()
        assert all(await broker.publish(pointers(10)))
        assert broker._publisher._channel is channel


async def test_a_publish_that_times_out_leaves_the_channel_usable(vhost_url: str) -> None:
    async with _opened(vhost_url, publish_timeout_s=0.01) as broker:
        assert isinstance(broker, RabbitBroker)
        channel = broker._publisher._channel
        assert not all(await broker.publish(pointers(3_000)))
        async with asyncio.timeout(TIMEOUT_S):
            while not all(await broker.publish(pointers(1))):
                await asyncio.sleep(0.01)
        assert broker._publisher._channel is channel


async def test_a_broker_that_is_down_at_open_is_used_once_it_is_up(vhost_url: str) -> None:
    async with open_proxy_for(vhost_url) as proxy:
        proxy.cut()
        with structlog.testing.capture_logs() as logs:
            async with (
                _opened(proxy.url(vhost_url)) as broker,
                subscribed(broker, prefetch=10, acks=True) as receiver,
            ):
                assert not await broker.probe()
                assert list(await broker.publish(pointers(2))) == [False, False]
                assert await broker.depths() == {}
                assert [record["event"] for record in logs] == ["broker_unavailable"]
                proxy.heal()
                sent = pointers(5)
                await publish_until_confirmed(broker, sent)
                await receiver.wait_for_all(sent)
                assert [record["event"] for record in logs] == [
                    "broker_unavailable",
                    "broker_connected",
                ]


async def test_a_cut_connection_is_reopened_and_held_messages_are_redelivered(
    vhost_url: str,
) -> None:
    async with (
        open_proxy_for(vhost_url) as proxy,
        _opened(proxy.url(vhost_url)) as broker,
        subscribed(broker, prefetch=10) as receiver,
    ):
        assert all(await broker.publish(pointers(10)))
        for cut in (1, 2, 3):
            await receiver.wait_for(10 * cut)
            proxy.cut()
            await receiver.wait_for_loss(cut)
            receiver.ack(receiver.messages)
            proxy.heal()
        await receiver.wait_for(40)
        receiver.ack(receiver.messages)
        sent = pointers(10)
        await publish_until_confirmed(broker, sent)
        await receiver.wait_for_all(sent)
        assert len(set(receiver.ids)) == 20
        assert all(message.redelivered for message in receiver.messages[10:40])


async def test_a_publish_whose_confirm_is_lost_is_not_confirmed(vhost_url: str) -> None:
    async with (
        open_proxy_for(vhost_url) as proxy,
        _opened(proxy.url(vhost_url)) as broker,
        _opened(vhost_url) as other,
        asyncio.TaskGroup() as group,
    ):
        proxy.swallow_replies()
        publishing = group.create_task(broker.publish(pointers(3)), name="publishing")
        await wait_until_ready(other, 3)
        await proxy.swallowed.wait()
        proxy.cut()
        assert not any(await publishing)


async def test_a_silent_connection_confirms_nothing_within_the_timeout(
    vhost_url: str,
) -> None:
    async with (
        open_proxy_for(vhost_url) as proxy,
        _opened(proxy.url(vhost_url), publish_timeout_s=2) as broker,
    ):
        await publish_until_confirmed(broker, pointers(3))
        proxy.blackhole()
        assert not any(await broker.publish(pointers(3)))
        assert not await broker.probe()
        assert await broker.depths() == {}
        proxy.heal()
        await publish_until_confirmed(broker, pointers(3))


async def test_a_memory_alarm_stops_publishing_only_until_it_ends(
    private_rabbitmq: RabbitmqNode, private_vhost_url: str, rabbitmq_install: RabbitmqInstall
) -> None:
    async with (
        _opened(private_vhost_url, publish_timeout_s=1.0) as broker,
        subscribed(broker, acks=True) as receiver,
    ):
        before = pointers(5)
        await publish_until_confirmed(broker, before)
        _set_memory_limit(private_rabbitmq, rabbitmq_install, 1)
        try:
            assert not any(await broker.publish(pointers(5)))
            assert not await broker.probe()
            assert not any(await broker.publish(pointers(5)))
            await receiver.subscription.set_prefetch(10)
            await receiver.wait_for_all(before)
        finally:
            _set_memory_limit(private_rabbitmq, rabbitmq_install, 512_000_000)
        await _wait_for_probe(broker, expected=True)
        after = pointers(5)
        await publish_until_confirmed(broker, after)
        await receiver.wait_for_all(after)


@pytest.mark.parametrize("part", ["password", "vhost"])
async def test_a_refusal_is_logged_once_with_its_reason_and_without_the_password(
    vhost_url: str, part: str
) -> None:
    wrong = {
        "password": vhost_url.replace("guest:guest", "guest:correct-horse"),
        "vhost": vhost_url + "-of-nobody",
    }[part]
    with structlog.testing.capture_logs() as logs:
        async with _opened(wrong) as broker, subscribed(broker, prefetch=1):
            assert not await broker.probe()
            assert not any(await broker.publish(pointers(1)))
            assert await broker.depths() == {}
    assert [(record["event"], record["log_level"]) for record in logs] == [
        ("broker_unavailable", "warning")
    ]
    assert logs[0]["refused"]
    assert {"password": "ACCESS_REFUSED", "vhost": "vhost was refused"}[part] in logs[0]["reason"]
    assert "correct-horse" not in str(logs)


async def test_a_lost_channel_is_logged_once_and_the_broker_is_not_reported_unavailable(
    vhost_url: str,
) -> None:
    async with _opened(vhost_url) as broker, subscribed(broker, prefetch=5) as receiver:
        with structlog.testing.capture_logs() as logs:
            async with aiormq.connect(vhost_url) as connection:
                channel = await connection.channel()
                await channel.queue_delete("notifier.email.low")
            await receiver.wait_for_loss(1)
            sent = pointers(3)
            await publish_until_confirmed(broker, sent)
            await receiver.wait_for_all(sent)
        lost = [record for record in logs if record.get("channel") == "email.low"]
        assert [record["event"] for record in lost] == ["broker_channel_closed"]
        assert "cancelled the consumer" in lost[0]["reason"]
        assert "broker_unavailable" not in [record["event"] for record in logs]


async def test_closing_while_the_broker_is_silent_takes_bounded_time(vhost_url: str) -> None:
    async with (
        open_proxy_for(vhost_url) as proxy,
        asyncio.timeout(TIMEOUT_S),
        _opened(proxy.url(vhost_url)) as broker,
        subscribed(broker, prefetch=5) as receiver,
    ):
        assert all(await broker.publish(pointers(5)))
        await receiver.wait_for(5)
        proxy.blackhole()


async def test_an_error_of_the_receiver_is_raised(vhost_url: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await _subscribe_with_a_failing_receiver(vhost_url)
    assert caught.group_contains(ZeroDivisionError)


async def _subscribe_with_a_failing_receiver(url: str) -> None:
    class FailingReceiver(RecordingReceiver):
        def deliver(self, _: object) -> None:
            raise ZeroDivisionError

    async with (
        _opened(url) as broker,
        broker.subscribe(EMAIL_LOW, FailingReceiver(acks=False)) as subscription,
    ):
        await subscription.set_prefetch(1)
        await broker.publish(pointers(1))
        await asyncio.Event().wait()


def _set_memory_limit(server: RabbitmqNode, install: RabbitmqInstall, limit: int) -> None:
    ctl = install.server.with_name("rabbitmqctl")
    node = ["-n", "notifier@localhost", "set_vm_memory_high_watermark", "absolute", str(limit)]
    subprocess.run(
        [ctl, *node],
        env=environment(server._folder, server.ports, install.path),
        check=True,
        capture_output=True,
        timeout=60,
    )
