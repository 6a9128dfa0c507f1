"""Keepers of leases on a real Postgres, with faults on the way to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from harness.client import until
from harness.tcp_proxy import TcpProxy, open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.leases import open_leases
from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.liveness import LEASE_TIMEOUT_S
from notifier.domain.notification import QueueKey
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.process import run_steps_async
from notifier.lifecycle import background_task, uptime_s
from notifier.scheduling.cluster.lease_keeper import LeaseKeeper
from tests.builders import QUEUES, worker_id
from tests.memory_leases import FixedBroker, FixedWorkers


@dataclass
class Worker:
    """A keeper, its relay that finishes passes, and the proxy to Postgres."""

    keeper: LeaseKeeper
    proxy: TcpProxy

    def held(self) -> set[QueueKey]:
        return set(self.keeper.held())

    async def run(self, stop: asyncio.Event) -> None:
        """Finish passes as a relay does."""
        while not stop.is_set():
            for lease in self.keeper.held().values():
                lease.passed_at = uptime_s()
            await asyncio.sleep(0.1)


@asynccontextmanager
async def open_worker(url: str, workers: FixedWorkers) -> AsyncIterator[Worker]:
    id_ = worker_id()
    async with open_proxy_for(url) as proxy:
        settings = ConnectionSettings(url=proxy.url(url), statement_timeout_s=LEASE_TIMEOUT_S)
        async with open_leases(settings, id_, QUEUES) as store:
            keeper = LeaseKeeper(
                store=store,
                worker=id_,
                workers=workers,
                broker=FixedBroker(),
                observer=Metrics((), {}, version="0"),
                may_hold=True,
            )
            worker = Worker(keeper, proxy)
            workers.ids.append(id_)
            async with (
                background_task(worker, "relay"),
                background_task(keeper, "leases"),
            ):
                yield worker


def reader(*workers: Worker) -> Callable[[], Awaitable[list[set[QueueKey]]]]:
    async def read() -> list[set[QueueKey]]:
        return [worker.held() for worker in workers]

    return read


def all_held(held: Sequence[set[QueueKey]]) -> bool:
    return sorted(queue for queues in held for queue in queues) == sorted(QUEUES)


@pytest.mark.parametrize("fault", [TcpProxy.cut, TcpProxy.blackhole], ids=["cut", "silent"])
async def test_the_leases_of_a_worker_without_postgres_are_taken_over(
    database_url: str, fault: Callable[[TcpProxy], None]
) -> None:
    workers = FixedWorkers()
    async with open_worker(database_url, workers) as ann, open_worker(database_url, workers) as ben:
        await until(reader(ann, ben), all_held)
        fault(ann.proxy)
        await until(reader(ann, ben), lambda held: held == [set(), set(QUEUES)])
        ben.keeper.retire()
        ann.proxy.heal()
        ben.proxy.cut()
        await until(reader(ann, ben), lambda held: held == [set(QUEUES), set()])
        ben.proxy.heal()


async def test_a_restart_of_postgres_moves_no_lease(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    workers, url = FixedWorkers(), private_database_url
    async with open_worker(url, workers) as ann, open_worker(url, workers) as ben:
        await until(reader(ann, ben), all_held)
        leases = {**ann.keeper.held(), **ben.keeper.held()}
        for worker in (ann, ben):
            worker.proxy.cut()
        await until(reader(ann, ben), lambda held: not any(held))
        await run_steps_async(private_postgres.restarting())
        with capture_logs() as logs:
            for worker in (ann, ben):
                worker.proxy.heal()
            await until(reader(ann, ben), all_held)
        after = {**ann.keeper.held(), **ben.keeper.held()}
        assert all(after[queue] is lease for queue, lease in leases.items()), logs
