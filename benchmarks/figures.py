"""The figures that one API and one worker process promise, measured on real processes.

`python -m benchmarks.figures` starts a private Postgres and RabbitMQ, measures each line, prints
one table (figure, target, measured) and exits with 1 on a miss. About four minutes.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random

import aiohttp
import asyncpg
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from notifier.adapters.postgres.migrate import migrate
from notifier.embedded.postgres import PostgresServer, running_postgres
from notifier.embedded.rabbitmq import RabbitmqServer, running_rabbitmq
from tests.e2e.client import QUEUES, Client, Document, an_order, open_client, orders
from tests.e2e.system import System, running_system, urls

CONSUMERS = 64
SEED = 1


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    target: str
    measured: str
    is_met: bool


class Stack:
    """Private servers; each measurement gets a database, a vhost and processes of its own."""

    def __init__(self, folder: Path, postgres: PostgresServer, rabbitmq: RabbitmqServer) -> None:
        self._folder, self._postgres, self._rabbitmq = folder, postgres, rabbitmq
        self._runs = 0

    @asynccontextmanager
    async def running(self, **settings: object) -> AsyncIterator[tuple[System, Client]]:
        self._runs += 1
        name = f"figures_{self._runs}"
        await self._make_database(name)
        self._rabbitmq.create_vhost(name)
        at = urls(self._postgres.url(name), self._rabbitmq.url(name))
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        with running_system(self._folder / name, {**at, **dotted}) as system:
            system.start_all()
            async with open_client(system.api_url, system.sandbox_url) as client:
                yield system, client

    async def _make_database(self, name: str) -> None:
        connection = await asyncpg.connect(self._postgres.url())
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        await asyncio.to_thread(migrate, self._postgres.url(name))


async def exactly_once(stack: Stack) -> list[Figure]:
    async with stack.running() as (_, client):
        wanted = orders(10_000)
        ids = [id_ for part in chunks(wanted, 1000) for id_ in await client.submit(part)]
        final = await client.all_final(ids)
        calls = Counter((await client.accepted()).values())
    return [
        Figure(
            "10,000 over nine queues: final",
            "sent 10,000",
            str(dict(final)),
            final["sent"] == 10_000,
        ),
        Figure("... calls per notification", "1 each", str(dict(calls)), set(calls) == {1}),
    ]


async def movement(stack: Stack) -> list[Figure]:
    async with stack.running() as (system, client):
        await client.behave(latency_ms=20)
        began = time.time()
        async with asyncio.TaskGroup() as group:
            there = group.create_task(until_there(system, "email.low", 0.8 * CONSUMERS))
            for _ in range(5):
                await client.submit([an_order("email.low") for _ in range(1000)])
        there_ms = (there.result() - began) * 1000
        asked = time.time()
        code = await client.submit_one(an_order("sms.high"))
        await client.final(code)
        call_ms = (instant((await client.calls(code))[0]) - asked) * 1000
    return [
        Figure(
            "80 % of 64 consumers at email.low", "<= 500 ms", f"{there_ms:.0f} ms", there_ms <= 500
        ),
        Figure(
            "then one on sms.high: its call starts",
            "<= 100 ms",
            f"{call_ms:.0f} ms",
            call_ms <= 100,
        ),
    ]


async def steady(stack: Stack) -> list[Figure]:
    """64 + 9 consumers at 200 ms a send do 365/s; half of that, at random, over nine queues."""
    async with stack.running() as (system, client):
        await client.behave(latency_ms=200)
        async with asyncio.TaskGroup() as group:
            load = group.create_task(poisson(client, rate=180, span_s=72))
            await asyncio.sleep(10)
            before = await total(system, "notifier_moves")
            await asyncio.sleep(60)
            moves = await total(system, "notifier_moves") - before
            await load
    return [Figure("moves in 60 s of half load (200 ms)", "<= 12", f"{moves:.0f}", moves <= 12)]


async def starvation(stack: Stack) -> list[Figure]:
    """Capacity at 100 ms a send is 730/s; 1,100/s of high come for 30 s over a backlog of low."""
    async with stack.running() as (system, client):
        await client.behave(latency_ms=100)
        await client.submit([an_order("email.low") for _ in range(1000)])
        await client.submit([an_order("email.low") for _ in range(1000)])
        before, began, sent = await attempts(system), time.monotonic(), 0
        while time.monotonic() - began < 30:
            for queue in ("email.high", "sms.high", "push.high"):
                await client.submit([an_order(queue) for _ in range(110)])
                sent += 110
            await asyncio.sleep(max(0.0, began + sent / 1100 - time.monotonic()))
        done = await attempts(system) - before
        system.children[-1].kill()  # what is left is of no interest
        system.children[-1].has_started = False
        share = done["email.low"] / done.total()
    return [Figure("low under 30 s of too much high", ">= 3 %", f"{share:.1%}", share >= 0.03)]


async def consumer_rate(stack: Stack) -> list[Figure]:
    figures = []
    for held, target in ((1, 5), (2, 10)):
        async with stack.running(
            channels__email__consumer_rate=5, channels__email__max_consumers=held
        ) as (_, client):
            ids = await client.submit([an_order("email.high") for _ in range(15 * target)])
            await client.all_final(ids)
            at = sorted([instant(call) for id_ in ids for call in await client.calls(id_)])
        most = max(sum(start <= one < start + 1 for one in at) for start in at)
        name = f"consumer_rate 5/s, {held} on the queue: calls in any second"
        figures.append(Figure(name, f"<= {target}", str(most), most <= target))
    return figures


# ---- what the measurements share ----------------------------------------------------------------


def chunks(all_: Sequence[Document], size: int) -> list[Sequence[Document]]:
    return [all_[start : start + size] for start in range(0, len(all_), size)]


def instant(call: Document) -> float:
    at: datetime = call["at"]
    return at.timestamp()


async def poisson(client: Client, *, rate: float, span_s: float) -> None:
    random, began, at = Random(SEED), time.monotonic(), 0.0
    async with asyncio.TaskGroup() as group:
        while at < span_s:
            at += random.expovariate(rate)
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            group.create_task(client.submit_one(an_order(random.choice(QUEUES))))


async def until_there(system: System, queue: str, consumers: float) -> float:
    while True:
        held = await samples(system, "notifier_consumers")
        if held[queue] - 1 >= consumers:  # the standing one does not count
            return time.time()
        await asyncio.sleep(0.01)


async def attempts(system: System) -> Counter[str]:
    return Counter(await samples(system, "notifier_attempts"))


async def total(system: System, family: str) -> float:
    return sum((await samples(system, family)).values())


async def samples(system: System, family: str) -> Counter[str]:
    """The worker's figures of a metric family, by queue."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{system.worker_url}/metrics") as answer,
    ):
        text = await answer.text()
    found: Counter[str] = Counter()
    for one in text_string_to_metric_families(text):
        for sample in one.samples if one.name == family else ():
            if not sample.name.endswith("_created"):
                found[sample.labels["queue"]] += sample.value  # type: ignore[assignment]
    return found


Measurement = Callable[[Stack], Awaitable[list[Figure]]]
MEASUREMENTS: Sequence[Measurement] = (exactly_once, movement, steady, starvation, consumer_rate)


async def measure(stack: Stack) -> list[Figure]:
    return [figure for one in MEASUREMENTS for figure in await one(stack)]


def show(figures: Sequence[Figure]) -> None:
    table = Table("figure", "target", "measured", "")
    for one in figures:
        verdict = "[green]met[/]" if one.is_met else "[red]missed[/]"
        table.add_row(one.name, one.target, one.measured, verdict)
    Console(width=120).print(table)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="notifier-figures-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with (
            running_postgres(folder / "postgres", keep=False) as postgres,
            running_rabbitmq(folder / "rabbitmq", keep=False) as rabbitmq,
            (folder / "logs").open("w") as logs,
            redirect_stdout(logs),
        ):
            figures = asyncio.run(measure(Stack(folder, postgres, rabbitmq)))
    show(figures)
    return 0 if all(one.is_met for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
