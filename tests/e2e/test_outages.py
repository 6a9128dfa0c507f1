"""Outages of RabbitMQ and Postgres while our processes keep running."""

from __future__ import annotations

import operator
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from harness.client import Client, Document, open_client, orders, submit_body, until
from harness.rabbitmq import RabbitmqNode
from harness.system import Child, System, running_system, urls
from harness.tcp_proxy import open_proxy_for
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.process import Steps, run_steps_async

WAITING = 1500
LATENCY_MS = 300
FIRST_CALLS = 100


def is_unready(answer: tuple[int, Document]) -> bool:
    return answer[0] == 503


async def deliver_through(fault: Steps, system: System, client: Client) -> None:
    """Check that all is sent although the fault begins while most notifications wait."""
    system.start_all()
    before = [child.pid for child in system.children]
    await client.set_behaviour(latency_ms=LATENCY_MS)
    ids = await client.submit(orders(WAITING))
    await client.wait_for_calls(FIRST_CALLS)
    await run_steps_async(fault)
    assert (await client.summary())["calls"] < WAITING, "too little waited for the fault"
    assert await client.all_final(ids) == {"sent": WAITING}
    assert set(await client.accepted()) == set(ids)
    assert await client.unexplained_duplicates() == []
    assert [child.pid for child in system.children if child.is_running] == before


class TestRabbitmq:
    @pytest.fixture
    def system(
        self, system_folder: Path, database_url: str, private_vhost_url: str
    ) -> Iterator[System]:
        with running_system(system_folder, urls(database_url, private_vhost_url)) as system:
            yield system

    async def test_it_is_restarted_while_much_waits(
        self, system: System, client: Client, private_rabbitmq: RabbitmqNode
    ) -> None:
        await deliver_through(private_rabbitmq.restarting(), system, client)

    async def test_it_loses_all_it_had_while_much_waits(
        self, system: System, client: Client, private_rabbitmq: RabbitmqNode
    ) -> None:
        await deliver_through(private_rabbitmq.wiping(), system, client)

    async def test_the_api_accepts_while_it_is_away(
        self, system: System, client: Client, private_rabbitmq: RabbitmqNode
    ) -> None:
        system.start_all()
        await run_steps_async(private_rabbitmq.killing())
        status, headers, accepted = await client.post(submit_body())
        assert status == 202
        assert headers["Location"] == f"/v1/notifications/{accepted['id']}"
        _, why = await until(lambda: client.readiness(system.worker_url), is_unready)
        assert "rabbitmq" in str(why["reasons"])
        assert (await client.readiness(system.api_url))[0] == 200

        # Empty, for RabbitMQ 3.10 may lose a queue that it declared just before it was killed.
        await run_steps_async(private_rabbitmq.wiping())
        assert (await client.final(accepted["id"]))["status"] == "sent"
        assert all(child.is_running for child in system.children)


class TestPostgres:
    @pytest.fixture
    def system(
        self, system_folder: Path, private_database_url: str, vhost_url: str
    ) -> Iterator[System]:
        at = urls(private_database_url, vhost_url)
        with running_system(system_folder, at | {"api.request_deadline_s": 1}) as system:
            yield system

    async def test_it_is_restarted_under_load(
        self, system: System, client: Client, private_postgres: PostgresServer
    ) -> None:
        await deliver_through(private_postgres.restarting(), system, client)

    async def test_while_it_is_away_the_api_says_so_and_comes_back_by_itself(
        self, system: System, client: Client, private_postgres: PostgresServer
    ) -> None:
        api = system.start_api()
        await run_steps_async(private_postgres.killing())
        status, headers, problem = await client.post(submit_body())
        assert (status, problem["status"]) == (503, 503)
        assert int(headers["Retry-After"]) >= 1
        _, why = await until(lambda: client.readiness(system.api_url), is_unready)
        assert "postgres" in str(why["reasons"])

        await run_steps_async(private_postgres.starting())
        await until(lambda: client.readiness(system.api_url), lambda got: got[0] == 200)
        status, _, _ = await client.post(submit_body())
        assert status == 202
        assert api.is_running

    async def test_a_stop_ends_although_it_answers_nothing(
        self, system_folder: Path, database_url: str, vhost_url: str
    ) -> None:
        limits = {
            "worker.send_timeout_s": 0.9,
            "worker.grace_s": 1,
            "providers.smtp.timeout_s": 0.8,
        }
        async with open_proxy_for(database_url) as proxy:
            at = urls(proxy.url(database_url), vhost_url) | limits
            with running_system(system_folder, at) as system:
                await run_steps_async(system.spawn_sandbox().starting())
                await run_steps_async(system.spawn_api().starting())
                worker = system.spawn_worker()
                await run_steps_async(worker.starting())
                async with open_client(system.api_url, system.sandbox_url) as client:
                    await client.set_behaviour(latency_ms=LATENCY_MS)
                    await client.submit(orders(WAITING))
                    await client.wait_for_calls(FIRST_CALLS)
                    proxy.blackhole()
                    worker.send(signal.SIGTERM)
                    await until(partial(is_running, worker), operator.not_)
                proxy.heal()
        assert "still stopping after 10 s" in worker.log.read_text()


async def is_running(child: Child) -> bool:
    return child.is_running
