"""The rates of keys, which processes share through Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from typing_extensions import override

from harness.tcp_proxy import open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.key_rates import PostgresKeyRates, open_key_rates
from notifier.api.auth.rates import KeyRates
from notifier.domain.credentials import KeyId, Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.key_rate import MAX_BATCH, MIN_RATE_PER_S, Balance, burst
from notifier.domain.keys import Key
from notifier.domain.tenants import DEFAULT_TENANT, Tenant, TenantId
from notifier.lifecycle import background_task, uptime_s
from notifier.ports.keys import TokenReply, TokenRequest

BOUND_S = 30.0


def a_key(name: str, rate_per_s: float | None) -> Key:
    return Key(
        id=KeyId(name),
        digest=bytes(32),
        tenant=DEFAULT_TENANT,
        mode=Mode.LIVE,
        scopes=(),
        rate_per_s=rate_per_s,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


class CountedRates(PostgresKeyRates):
    """Counts how often Postgres is asked for tokens."""

    asked = 0

    @override
    async def take(self, requests: Sequence[TokenRequest]) -> Mapping[KeyId, TokenReply]:
        self.asked += 1
        return await super().take(requests)


@asynccontextmanager
async def process_rates(url: str) -> AsyncIterator[KeyRates]:
    async with open_key_rates(ConnectionSettings(url=url, statement_timeout_s=1.0)) as store:
        rates = KeyRates(store, deadline_s=BOUND_S)
        async with background_task(rates, "key rates"):
            yield rates


@pytest.fixture
async def rates(database_url: str) -> AsyncIterator[KeyRates]:
    async with process_rates(database_url) as rates:
        yield rates


async def passed(rates: KeyRates, key: Key, cost: float = 1) -> bool:
    return (await rates.charge(key, cost)).retry_after_s == 0


async def test_a_key_without_a_rate_asks_nobody(database_url: str) -> None:
    async with open_proxy_for(database_url) as proxy, process_rates(proxy.url(database_url)) as far:
        proxy.cut()
        assert await passed(far, a_key("free", None), 1_000_000)


@pytest.mark.parametrize("rate", [0.5, 5.0, 50.0, 2000.0])
async def test_calls_beyond_the_rate_are_refused_by_all_processes_together(
    database_url: str, rate: float
) -> None:
    key = a_key("k", rate)
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(process_rates(database_url)) for _ in range(3)]
        began = uptime_s()
        async with asyncio.TaskGroup() as group:
            callers = [
                group.create_task(count_passed(process, key, began + 1.0))
                for process in processes
                for _ in range(10)
            ]
        took_s = uptime_s() - began
    total = sum(caller.result() for caller in callers)
    assert 0.9 * burst(rate) <= total <= burst(rate) + rate * took_s + 1


async def count_passed(rates: KeyRates, key: Key, until: float) -> int:
    count = 0
    while uptime_s() < until:
        count += await passed(rates, key)
        await asyncio.sleep(0.001)
    return count


async def test_live_and_test_keys_of_a_tenant_have_rates_of_their_own(rates: KeyRates) -> None:
    shop = Tenant(
        id=TenantId("shop"), note="", created_at=datetime(2026, 1, 1, tzinfo=UTC), rate_per_s=0.001
    )
    passed = [
        (await rates.charge_tenant(shop, mode, 1)).retry_after_s == 0
        for mode in (Mode.LIVE, Mode.LIVE, Mode.TEST, Mode.TEST)
    ]
    assert passed == [True, False, True, False]
    balance = await rates.charge_tenant(shop, Mode.LIVE, 1)
    assert balance.policy == '"tenant";q=1;w=1000'
    assert (await rates.charge_tenant(replace(shop, rate_per_s=None), Mode.LIVE, 1)).left > 1


async def test_a_slow_key_gets_each_call_it_may_make(rates: KeyRates) -> None:
    key = a_key("slow", 0.001)
    assert await passed(rates, key)
    balance = await rates.charge(key, 1)
    assert 990 < balance.retry_after_s <= 1000
    assert balance.policy == '"key";q=1;w=1000'
    assert balance.state == '"key";r=0;t=1000'


async def test_the_debt_of_the_slowest_key_harms_no_other(rates: KeyRates) -> None:
    slowest = a_key("slowest", MIN_RATE_PER_S)
    assert await passed(rates, slowest, MAX_BATCH)
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(rates.charge(key, MAX_BATCH))
            for key in (slowest, a_key("other", 50.0))
        ]
    refused, other = (call.result().retry_after_s for call in calls)
    assert refused > 0
    assert other == 0


async def test_a_clock_that_was_set_back_leaves_no_debt_that_no_call_has_made(
    rates: KeyRates, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    key = a_key("early", 5.0)
    assert await passed(rates, key)
    await connection.execute("UPDATE key_rates SET tat = now() + interval '1 day'")
    assert await passed(rates, key, MAX_BATCH)
    debt = await rates.charge(key, 5)
    assert 0 < debt.retry_after_s <= MAX_BATCH / 5


async def test_a_batch_above_the_bucket_passes_when_it_is_full_and_leaves_a_debt(
    rates: KeyRates,
) -> None:
    key = a_key("batch", 20.0)
    balance = await rates.charge(key, 1000)
    assert balance.retry_after_s == 0
    refused = await rates.charge(key, 1)
    assert 45 < refused.retry_after_s <= 50
    assert 45 < (await rates.charge(key, 1000)).retry_after_s <= 51


async def test_calls_that_arrive_together_share_what_is_left(rates: KeyRates) -> None:
    key = a_key("many", 5.0)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(rates.charge(key, 1)) for _ in range(50)]
    assert sum(call.result().retry_after_s == 0 for call in calls) == 5


async def test_refused_calls_do_not_ask_again_before_a_token_is_back(database_url: str) -> None:
    async with open_key_rates(ConnectionSettings(url=database_url)) as store:
        counted = CountedRates(store._connection)
        rates = KeyRates(counted, deadline_s=BOUND_S)
        async with background_task(rates, "key rates"):
            key = a_key("eager", 0.001)
            assert await passed(rates, key)
            for _ in range(100):
                assert not await passed(rates, key)
    assert counted.asked == 1


async def test_a_fast_key_pays_most_calls_from_slices(database_url: str) -> None:
    async with open_key_rates(ConnectionSettings(url=database_url)) as store:
        counted = CountedRates(store._connection)
        rates = KeyRates(counted, deadline_s=BOUND_S)
        async with background_task(rates, "key rates"):
            key = a_key("fast", 10_000.0)
            for _ in range(2000):
                assert await passed(rates, key)
    assert counted.asked < 20


async def test_without_postgres_a_key_with_a_rate_cannot_be_judged(database_url: str) -> None:
    async with open_proxy_for(database_url) as proxy:
        far = ConnectionSettings(url=proxy.url(database_url), statement_timeout_s=0.2)
        async with open_key_rates(far) as store:
            rates = KeyRates(store, deadline_s=0.2)
            async with background_task(rates, "key rates"):
                proxy.cut()
                with pytest.raises(StoreUnavailable):
                    await rates.charge(a_key("k", 5.0), 1)


def test_the_headers_of_a_rate() -> None:
    balance = Balance(rate_per_s=50.0, left=12.7)
    assert (balance.policy, balance.state) == ('"key";q=50;w=1', '"key";r=12;t=1')
    debt = Balance(rate_per_s=2.5, left=-5.0)
    assert (debt.policy, debt.state) == ('"key";q=2;w=1', '"key";r=0;t=3')
