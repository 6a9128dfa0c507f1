"""The schedule of a provider's rate in a real Postgres, shared by many workers."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random
from typing import TypeAlias

import asyncpg
import pytest

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.rates import PostgresRates, open_rates
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Priority
from notifier.embedded.postgres import PostgresServer
from notifier.embedded.process import run_steps_async
from notifier.scheduling.rates.provider_rate import ProviderRate

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Gauge:
    """The part of an observer that a rate speaks to."""

    def provider_rate_changed(self, provider: str, rate_per_s: float) -> None:
        assert (provider, rate_per_s > 0) == ("smtp", True)


@pytest.fixture
async def rates(database_url: str) -> AsyncIterator[PostgresRates]:
    async with open_rates(ConnectionSettings(url=database_url)) as rates:
        yield rates


async def begin(rates: PostgresRates, connection: Connection, ahead_s: float = 0.0) -> None:
    """The schedule is given away up to `ahead_s` from now."""
    await rates.reserve("smtp", 100.0, 1)
    await connection.execute(
        "UPDATE provider_rates SET tat = clock_timestamp() + make_interval(secs => $1)", ahead_s
    )


async def cut_at(connection: Connection, factor: float, ago_s: float) -> None:
    await connection.execute(
        "UPDATE provider_rates SET factor = $1, factor_at = now() - make_interval(secs => $2)",
        factor,
        ago_s,
    )


async def test_the_first_ask_begins_the_schedule_and_the_second_is_given_slots(
    rates: PostgresRates,
) -> None:
    assert (await rates.reserve("smtp", 100.0, 5)).count == 0
    piece = await rates.reserve("smtp", 100.0, 5)
    assert (piece.count, piece.spacing_s, piece.rate_per_s) == (5, 0.01, 100.0)
    assert piece.starts_in_s == pytest.approx(0, abs=0.05)


async def test_each_piece_begins_where_the_last_ended(
    rates: PostgresRates, connection: Connection
) -> None:
    await begin(rates, connection, 0.14)
    before = await connection.fetchval("SELECT tat FROM provider_rates")
    piece = await rates.reserve("smtp", 100.0, 5)
    after = await connection.fetchval("SELECT tat FROM provider_rates")
    assert piece.count == 5
    assert 0 < piece.starts_in_s <= 0.14
    assert (after - before).total_seconds() == pytest.approx(0.05)


async def test_a_schedule_given_away_150_ms_ahead_gives_nothing_and_says_until_when(
    rates: PostgresRates, connection: Connection
) -> None:
    await begin(rates, connection, 1.0)
    before = await connection.fetchval("SELECT tat FROM provider_rates")
    piece = await rates.reserve("smtp", 100.0, 5)
    assert piece.count == 0
    assert 0.15 < piece.starts_in_s <= 1.0
    assert before == await connection.fetchval("SELECT tat FROM provider_rates")


async def test_time_that_nobody_used_is_not_made_up_for(
    rates: PostgresRates, connection: Connection
) -> None:
    await begin(rates, connection, -60)
    first, second = [await rates.reserve("smtp", 40.0, 5) for _ in range(2)]
    assert first.starts_in_s == pytest.approx(0, abs=0.01)
    assert (first.count, second.count) == (5, 5)
    assert second.starts_in_s > 0


async def test_a_schedule_left_far_ahead_by_a_clock_put_back_begins_again(
    rates: PostgresRates, connection: Connection
) -> None:
    await begin(rates, connection, 3600)
    piece = await rates.reserve("smtp", 100.0, 5)
    assert piece.count == 5
    assert piece.starts_in_s < 0.01


async def test_providers_have_schedules_of_their_own(
    rates: PostgresRates, connection: Connection
) -> None:
    await begin(rates, connection, 0.5)
    await rates.reserve("http", 100.0, 5)
    assert (await rates.reserve("http", 100.0, 5)).count == 5
    assert (await rates.reserve("smtp", 100.0, 5)).count == 0


async def test_pieces_asked_for_by_many_at_once_do_not_overlap(
    database_url: str, connection: Connection
) -> None:
    async with AsyncExitStack() as stack:
        settings = ConnectionSettings(url=database_url)
        workers = [await stack.enter_async_context(open_rates(settings)) for _ in range(8)]
        await begin(workers[0], connection)
        before = await connection.fetchval("SELECT tat FROM provider_rates")
        async with asyncio.TaskGroup() as group:
            asks = [group.create_task(each.reserve("smtp", 1000.0, 10)) for each in workers]
        after = await connection.fetchval("SELECT tat FROM provider_rates")
    given = sum(ask.result().count for ask in asks)
    assert given == 80
    assert (after - before).total_seconds() >= 0.08 - 1e-5


async def test_a_cut_leaves_0_7_and_is_made_once_a_second(
    rates: PostgresRates, connection: Connection
) -> None:
    await begin(rates, connection)
    assert [await rates.cut("smtp") for _ in range(3)] == [True, False, False]
    piece = await rates.reserve("smtp", 100.0, 1)
    assert piece.rate_per_s == pytest.approx(70, abs=1)
    assert piece.spacing_s == pytest.approx(1 / piece.rate_per_s)


async def test_the_next_cut_is_of_what_had_grown_back(
    rates: PostgresRates, connection: Connection
) -> None:
    await begin(rates, connection)
    await cut_at(connection, 0.5, ago_s=2)
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == pytest.approx(60, abs=1)
    assert await rates.cut("smtp")
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == pytest.approx(42, abs=1)


async def test_a_rate_is_never_cut_below_a_twentieth_and_grows_back_to_all_of_it(
    rates: PostgresRates, connection: Connection
) -> None:
    await begin(rates, connection)
    await cut_at(connection, 0.01, ago_s=1)
    assert await rates.cut("smtp")
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == pytest.approx(5, abs=0.5)
    await cut_at(connection, 0.05, ago_s=100)
    await begin(rates, connection)
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == 100


async def test_a_cut_left_by_a_clock_put_back_does_not_last(
    rates: PostgresRates, connection: Connection
) -> None:
    await begin(rates, connection)
    await cut_at(connection, 0.1, ago_s=-3600)
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == 100


async def test_a_rate_nobody_asked_for_yet_has_nothing_to_cut(rates: PostgresRates) -> None:
    assert not await rates.cut("smtp")


async def take(rate: ProviderRate, calls: list[float]) -> None:
    while True:
        await rate.acquire(Priority.LOW)
        calls.append(time.monotonic())


async def worker(url: str, calls: list[float], stop: asyncio.Event) -> None:
    async with open_rates(ConnectionSettings(url=url)) as store, asyncio.TaskGroup() as group:
        rate = ProviderRate(
            "smtp",
            200,
            store=store,
            clock=time.monotonic,
            observer=Gauge(),
            random=Random(1),
        )
        group.create_task(rate.run(stop))
        takers = [group.create_task(take(rate, calls)) for _ in range(20)]
        await stop.wait()
        for taker in takers:
            taker.cancel()


def most_in_a_second(calls: list[float]) -> int:
    return max(bisect_left(calls, each + 1) - number for number, each in enumerate(calls))


async def test_three_workers_together_keep_the_rate(database_url: str) -> None:
    calls, stop = list[float](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(worker(database_url, calls, stop))
        async with asyncio.timeout(60):
            while len(calls) < 500:
                await asyncio.sleep(0.05)
        stop.set()
    assert most_in_a_second(calls) <= 210


async def test_slots_come_again_after_a_restart_of_postgres(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    calls, stop = list[float](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker(private_database_url, calls, stop))
        for _ in range(2):
            before = len(calls)
            async with asyncio.timeout(60):
                while len(calls) < before + 50:
                    await asyncio.sleep(0.05)
            await run_steps_async(private_postgres.restarting())
        stop.set()
    assert most_in_a_second(calls) <= 210


async def test_without_postgres_the_ask_says_so(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    async with open_rates(ConnectionSettings(url=private_database_url)) as rates:
        await run_steps_async(private_postgres.stopping())
        with pytest.raises(StoreUnavailable):
            await rates.reserve("smtp", 100.0, 1)
