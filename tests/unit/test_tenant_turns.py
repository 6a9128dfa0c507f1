"""Whose turn it is at the renderer of templates."""

from __future__ import annotations

import asyncio

import pytest

from notifier.adapters.templating.tenant_turns import MAX_WAITING, TenantTurns
from notifier.domain.errors import RendererUnavailable
from notifier.domain.tenants import TenantId

BANK, SHOP = TenantId("bank"), TenantId("shop")


class Requests:
    """Requests that take as long as they say, and the order in which they had their turns."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = TenantTurns(lambda: self.now)
        self.order: list[TenantId] = []

    async def make(self, tenant: TenantId, *, seconds: float, times: int = 1) -> None:
        for _ in range(times):
            async with self.turns.turn(tenant):
                self.order.append(tenant)
                with self.turns.charged(tenant):
                    self.now += seconds
                await asyncio.sleep(0)


async def test_the_tenant_that_has_used_less_time_is_next() -> None:
    requests = Requests()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(requests.make(BANK, seconds=4))
        for _ in range(6):
            group.create_task(requests.make(SHOP, seconds=2))
    assert requests.order == [BANK, SHOP, SHOP, BANK, SHOP, SHOP, BANK, SHOP, SHOP]


async def test_whoever_asks_again_at_once_keeps_its_share() -> None:
    requests = Requests()
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(requests.make(BANK, seconds=4))
        group.create_task(requests.make(SHOP, seconds=1, times=6))
    assert requests.order == [BANK, *[SHOP] * 4, BANK, SHOP, SHOP]


async def test_a_tenant_gets_no_credit_for_the_time_it_was_away() -> None:
    requests = Requests()
    async with asyncio.TaskGroup() as group:
        group.create_task(requests.make(SHOP, seconds=1))
        for _ in range(4):
            group.create_task(requests.make(BANK, seconds=1))
        await asyncio.sleep(0)
        while len(requests.order) < 4:
            await asyncio.sleep(0)
        for _ in range(3):
            group.create_task(requests.make(SHOP, seconds=1))
    assert requests.order[:4] == [SHOP, BANK, BANK, BANK]
    assert requests.order[4:6] != [SHOP, SHOP]


async def test_too_many_requests_of_a_tenant_are_refused_and_those_of_others_are_not() -> None:
    requests = Requests()
    async with asyncio.TaskGroup() as group, requests.turns.turn(SHOP):
        for _ in range(MAX_WAITING):
            group.create_task(requests.make(BANK, seconds=0))
        await asyncio.sleep(0)
        with pytest.raises(RendererUnavailable):
            await requests.make(BANK, seconds=0)
        group.create_task(requests.make(SHOP, seconds=0))
    assert len(requests.order) == MAX_WAITING + 1


async def test_a_cancelled_wait_takes_no_turn_and_no_place() -> None:
    requests = Requests()
    async with asyncio.TaskGroup() as group:
        async with requests.turns.turn(SHOP):
            waits = [group.create_task(requests.make(BANK, seconds=0)) for _ in range(3)]
            await asyncio.sleep(0)
            waits[0].cancel()
            await asyncio.sleep(0)
        granted = waits[1]
        await asyncio.sleep(0)  # it has the turn, and has not run yet
        granted.cancel()
    assert requests.order == [BANK]
    await requests.make(BANK, seconds=0)
    assert requests.order == [BANK, BANK]
