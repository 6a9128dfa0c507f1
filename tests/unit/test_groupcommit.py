"""Group commit: one bad item fails alone, one waiter that leaves harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from notifier.delivery.group_commit import GroupCommit, WhenUnknown
from notifier.domain.errors import StoreConflict, StoreRejected, StoreUnavailable


class Table:
    """Writes numbers; refuses negative ones; fails as often as it is told before it works."""

    def __init__(self, *failures: StoreUnavailable) -> None:
        self.failures = list(failures)
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def write(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.entered.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if any(item < 0 for item in items):
            raise StoreRejected("negative")
        return [item * 10 for item in items]


@asynccontextmanager
async def committing(
    write: Callable[[Sequence[int]], object], when_unknown: WhenUnknown = WhenUnknown.REPEAT
) -> AsyncIterator[GroupCommit[int, int]]:
    batches: GroupCommit[int, int] = GroupCommit("test", write, when_unknown=when_unknown)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        group.create_task(batches.run())
        yield batches
        batches.close()


async def test_what_arrives_during_a_write_forms_the_next_batch() -> None:
    table = Table()
    table.gate.clear()
    async with committing(table.write) as batches:
        first = batches.put(1)
        await table.entered.wait()
        rest = [batches.put(n) for n in (2, 3, 4)]
        table.gate.set()
        assert await first == 10
        assert [await waiter for waiter in rest] == [20, 30, 40]
    assert table.batches == [[1], [2, 3, 4]]


async def test_a_batch_holds_500_at_most() -> None:
    table = Table()
    async with committing(table.write) as batches:
        waiters = [batches.put(n) for n in range(1200)]
        assert [await waiter for waiter in waiters] == [n * 10 for n in range(1200)]
    assert [len(batch) for batch in table.batches] == [500, 500, 200]


async def test_a_batch_ends_with_what_makes_it_heavy() -> None:
    table = Table()
    batches: GroupCommit[int, int] = GroupCommit(
        "test", table.write, when_unknown=WhenUnknown.REPEAT, weigh=lambda item: item * 2**20
    )
    waiters = [batches.put(megabytes) for megabytes in (3, 4, 5, 1, 9, 2)]
    batches.close()
    await batches.run()
    assert all(waiter.done() for waiter in waiters)
    assert table.batches == [[3, 4, 5], [1, 9], [2]]


async def test_one_poisoned_item_fails_alone() -> None:
    table = Table()
    async with committing(table.write) as batches:
        waiters = [batches.put(n) for n in (*range(100), -1, *range(100, 200))]
        results = [await _settled(waiter) for waiter in waiters]
    assert [type(result) for result in results].count(StoreRejected) == 1
    assert isinstance(results[100], StoreRejected)
    assert sum(isinstance(result, int) for result in results) == 200


async def test_a_waiter_that_goes_away_harms_nobody() -> None:
    table = Table()
    table.gate.clear()
    async with committing(table.write) as batches:
        gone, stays = batches.put(1), batches.put(2)
        await table.entered.wait()
        gone.cancel()
        table.gate.set()
        assert await stays == 20
        assert await batches.put(3) == 30


async def test_a_batch_of_unknown_fate_is_repeated_when_that_is_harmless() -> None:
    table = Table(StoreUnavailable("away"), StoreUnavailable("away"))
    async with committing(table.write) as batches:
        assert await batches.put(7) == 70
    assert table.batches == [[7], [7], [7]]


async def test_a_repeated_batch_leaves_out_who_has_given_up() -> None:
    table = Table(StoreUnavailable("away"))
    table.gate.clear()
    async with committing(table.write) as batches:
        gone, stays = batches.put(1), batches.put(2)
        await table.entered.wait()
        gone.cancel()
        table.gate.set()
        assert await stays == 20
    assert table.batches == [[1, 2], [2]]


async def test_a_claim_of_unknown_fate_is_never_repeated() -> None:
    table = Table(StoreUnavailable("answer lost"))
    async with committing(table.write, WhenUnknown.FAIL) as batches:
        with pytest.raises(StoreUnavailable, match="answer lost"):
            await batches.put(1)
    assert table.batches == [[1]]


async def test_a_claim_that_was_undone_is_repeated() -> None:
    table = Table(StoreConflict("deadlock"))
    async with committing(table.write, WhenUnknown.FAIL) as batches:
        assert await batches.put(1) == 10


async def test_closing_writes_what_is_left() -> None:
    table = Table()
    async with committing(table.write) as batches:
        waiter = batches.put(5)
    assert await waiter == 50
    assert len(batches) == 0


async def test_a_bug_ends_it_and_fails_every_waiter() -> None:
    async def broken(items: Sequence[int]) -> Sequence[int]:
        raise KeyError(items[0])

    batches: GroupCommit[int, int] = GroupCommit("test", broken, when_unknown=WhenUnknown.REPEAT)
    waiters = [batches.put(1), batches.put(2)]
    with pytest.raises(KeyError):
        await batches.run()
    for waiter in (*waiters, batches.put(3)):
        with pytest.raises(StoreUnavailable):
            await waiter


async def _settled(waiter: asyncio.Future[int]) -> int | StoreRejected:
    try:
        return await waiter
    except StoreRejected as error:
        return error
