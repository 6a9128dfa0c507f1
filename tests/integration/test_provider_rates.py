"""The schedule of a provider's rate in a real Postgres, shared by many workers."""

from __future__ import annotations

import asyncio
import time
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

RATE = 200
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class RateChecker:
    """An observer that checks the reported rate."""

    def provider_rate_changed(self, provider: str, rate_per_s: float) -> None:
        assert (provider, rate_per_s > 0) == ("smtp", True)


@pytest.fixture
async def rates(database_url: str, connection: Connection) -> AsyncIterator[PostgresRates]:
    """Rates on a database whose clock `freeze` stops."""
    await connection.execute(
        """
        CREATE SCHEMA clock;
        CREATE TABLE clock.frozen AS SELECT NULL::timestamptz AS at;
        CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
            'SELECT coalesce(at, pg_catalog.clock_timestamp()) FROM clock.frozen';
        CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql AS
            'SELECT clock.clock_timestamp()';
        SET search_path = clock, public, pg_catalog;
        """
    )
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET search_path = clock, public, pg_catalog")
    async with open_rates(ConnectionSettings(url=database_url)) as rates:
        yield rates


async def freeze(connection: Connection) -> None:
    """Let all statements on the schedules run at the same instant."""
    await connection.execute("UPDATE clock.frozen SET at = clock_timestamp()")


async def start_schedule(
    rates: PostgresRates, connection: Connection, ahead_s: float = 0.0
) -> None:
    """Freeze the clock and start a schedule that is given away up to `ahead_s` from now."""
    await rates.reserve("smtp", 100.0, 1)
    await freeze(connection)
    await connection.execute(
        "UPDATE provider_rates SET tat = clock_timestamp() + make_interval(secs => $1)", ahead_s
    )


async def cut_at(connection: Connection, factor: float, ago_s: float) -> None:
    await connection.execute(
        "UPDATE provider_rates SET factor = $1, factor_at = now() - make_interval(secs => $2)",
        factor,
        ago_s,
    )


async def test_the_first_request_starts_the_schedule_and_the_second_gets_slots(
    rates: PostgresRates, connection: Connection
) -> None:
    assert (await rates.reserve("smtp", 100.0, 5)).count == 0
    await freeze(connection)
    piece = await rates.reserve("smtp", 100.0, 5)
    assert (piece.count, piece.spacing_s, piece.rate_per_s) == (5, 0.01, 100.0)
    assert piece.starts_in_s == pytest.approx(0)


async def test_each_slice_starts_where_the_last_ended(
    rates: PostgresRates, connection: Connection
) -> None:
    await start_schedule(rates, connection, 0.14)
    before = await connection.fetchval("SELECT tat FROM provider_rates")
    piece = await rates.reserve("smtp", 100.0, 5)
    after = await connection.fetchval("SELECT tat FROM provider_rates")
    assert piece.count == 5
    assert piece.starts_in_s == pytest.approx(0.14)
    assert (after - before).total_seconds() == pytest.approx(0.05)


async def test_a_schedule_given_away_150_ms_ahead_gives_no_slots_and_reports_its_end(
    rates: PostgresRates, connection: Connection
) -> None:
    await start_schedule(rates, connection, 1.0)
    before = await connection.fetchval("SELECT tat FROM provider_rates")
    piece = await rates.reserve("smtp", 100.0, 5)
    assert piece.count == 0
    assert piece.starts_in_s == pytest.approx(1)
    assert before == await connection.fetchval("SELECT tat FROM provider_rates")


async def test_unused_time_is_not_caught_up(rates: PostgresRates, connection: Connection) -> None:
    await start_schedule(rates, connection, -60)
    first, second = [await rates.reserve("smtp", 40.0, 5) for _ in range(2)]
    assert first.starts_in_s == pytest.approx(0)
    assert (first.count, second.count) == (5, 5)
    assert second.starts_in_s == pytest.approx(5 / 40)


async def test_a_schedule_far_ahead_after_a_clock_change_starts_again(
    rates: PostgresRates, connection: Connection
) -> None:
    await start_schedule(rates, connection, 3600)
    piece = await rates.reserve("smtp", 100.0, 5)
    assert piece.count == 5
    assert piece.starts_in_s == pytest.approx(0)


async def test_each_provider_has_its_own_schedule(
    rates: PostgresRates, connection: Connection
) -> None:
    await start_schedule(rates, connection, 0.5)
    await rates.reserve("http", 100.0, 5)
    assert (await rates.reserve("http", 100.0, 5)).count == 5
    assert (await rates.reserve("smtp", 100.0, 5)).count == 0


async def test_slices_of_concurrent_requests_do_not_overlap(
    rates: PostgresRates, database_url: str, connection: Connection
) -> None:
    async with AsyncExitStack() as stack:
        settings = ConnectionSettings(url=database_url)
        workers = [await stack.enter_async_context(open_rates(settings)) for _ in range(8)]
        await start_schedule(rates, connection)
        before = await connection.fetchval("SELECT tat FROM provider_rates")
        async with asyncio.TaskGroup() as group:
            requests = [group.create_task(worker.reserve("smtp", 1000.0, 10)) for worker in workers]
        after = await connection.fetchval("SELECT tat FROM provider_rates")
    given = sum(request.result().count for request in requests)
    assert given == 80
    assert (after - before).total_seconds() == pytest.approx(0.08)


async def test_a_cut_leaves_0_7_of_the_rate_and_happens_once_a_second(
    rates: PostgresRates, connection: Connection
) -> None:
    await start_schedule(rates, connection)
    assert [await rates.cut("smtp") for _ in range(3)] == [True, False, False]
    piece = await rates.reserve("smtp", 100.0, 1)
    assert piece.rate_per_s == pytest.approx(70)
    assert piece.spacing_s == pytest.approx(1 / piece.rate_per_s)


async def test_the_next_cut_applies_to_the_regrown_rate(
    rates: PostgresRates, connection: Connection
) -> None:
    await start_schedule(rates, connection)
    await cut_at(connection, 0.5, ago_s=2)
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == pytest.approx(60)
    assert await rates.cut("smtp")
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == pytest.approx(42)


async def test_a_rate_is_never_cut_below_a_twentieth_and_grows_back_fully(
    rates: PostgresRates, connection: Connection
) -> None:
    await start_schedule(rates, connection)
    await cut_at(connection, 0.01, ago_s=1.01)
    assert await rates.cut("smtp")
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == pytest.approx(5)
    await cut_at(connection, 0.05, ago_s=100)
    await start_schedule(rates, connection)
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == 100


async def test_a_cut_in_the_future_after_a_clock_change_does_not_last(
    rates: PostgresRates, connection: Connection
) -> None:
    await start_schedule(rates, connection)
    await cut_at(connection, 0.1, ago_s=-3600)
    assert (await rates.reserve("smtp", 100.0, 1)).rate_per_s == 100


async def test_a_rate_without_a_schedule_is_not_cut(rates: PostgresRates) -> None:
    assert not await rates.cut("smtp")


async def take(rate: ProviderRate, calls: list[float]) -> None:
    while True:
        await rate.acquire(Priority.LOW)
        calls.append(time.monotonic())


async def worker(url: str, calls: list[float], stop: asyncio.Event) -> None:
    async with open_rates(ConnectionSettings(url=url)) as store, asyncio.TaskGroup() as group:
        rate = ProviderRate(
            "smtp",
            RATE,
            store=store,
            clock=time.monotonic,
            observer=RateChecker(),
            random=Random(1),
        )
        group.create_task(rate.run(stop))
        takers = [group.create_task(take(rate, calls)) for _ in range(20)]
        await stop.wait()
        for taker in takers:
            taker.cancel()


def are_in_time(calls: list[float], began_at: float) -> bool:
    """Whether no call was earlier than the schedule allows, which began later than this."""
    return all(call >= began_at + number / RATE - 0.05 for number, call in enumerate(calls))


async def test_three_workers_together_keep_the_rate(database_url: str) -> None:
    calls, stop, began_at = list[float](), asyncio.Event(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(worker(database_url, calls, stop))
        async with asyncio.timeout(60):
            while len(calls) < 500:
                await asyncio.sleep(0.05)
        stop.set()
    assert are_in_time(calls, began_at)


async def test_slots_are_reserved_again_after_a_restart_of_postgres(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    calls, stop, began_at = list[float](), asyncio.Event(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker(private_database_url, calls, stop))
        for _ in range(2):
            before = len(calls)
            async with asyncio.timeout(60):
                while len(calls) < before + 50:
                    await asyncio.sleep(0.05)
            await run_steps_async(private_postgres.restarting())
        stop.set()
    assert are_in_time(calls, began_at)


async def test_reserve_raises_without_postgres(
    private_postgres: PostgresServer, private_database_url: str
) -> None:
    async with open_rates(ConnectionSettings(url=private_database_url)) as rates:
        await run_steps_async(private_postgres.stopping())
        with pytest.raises(StoreUnavailable):
            await rates.reserve("smtp", 100.0, 1)
