"""Group commit: a rejected item fails alone; a cancelled future disturbs no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from notifier.delivery.group_commit import GroupCommit
from notifier.domain.errors import StoreConflict, StoreRejected, StoreUnavailable


class Table:
    """Writes numbers and rejects negative ones; its first writes fail with `failures`."""

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
    write: Callable[[Sequence[int]], Awaitable[Sequence[int]]],
) -> AsyncIterator[GroupCommit[int, int]]:
    batches: GroupCommit[int, int] = GroupCommit("test", write)
    async with asyncio.TaskGroup() as group:
        group.create_task(batches.run())
        yield batches
        batches.close()


async def test_items_that_arrive_during_a_write_form_the_next_batch() -> None:
    table = Table()
    table.gate.clear()
    async with committing(table.write) as batches:
        first = batches.put(1)
        await table.entered.wait()
        others = [batches.put(n) for n in (2, 3, 4)]
        table.gate.set()
        assert await first == 10
        assert [await future for future in others] == [20, 30, 40]
    assert table.batches == [[1], [2, 3, 4]]


async def test_a_batch_holds_at_most_500_items() -> None:
    table = Table()
    async with committing(table.write) as batches:
        futures = [batches.put(n) for n in range(1200)]
        assert [await future for future in futures] == [n * 10 for n in range(1200)]
    assert [len(batch) for batch in table.batches] == [500, 500, 200]


async def test_a_batch_ends_with_the_item_that_reaches_its_maximum_size() -> None:
    table = Table()
    batches: GroupCommit[int, int] = GroupCommit(
        "test", table.write, size_of=lambda item: item * 2**20
    )
    futures = [batches.put(megabytes) for megabytes in (3, 4, 5, 1, 9, 2)]
    batches.close()
    await batches.run()
    assert all(future.done() for future in futures)
    assert table.batches == [[3, 4, 5], [1, 9], [2]]


async def test_one_rejected_item_fails_alone() -> None:
    table = Table()
    async with committing(table.write) as batches:
        futures = [batches.put(n) for n in (*range(100), -1, *range(100, 200))]
        results = [await _settled(future) for future in futures]
    assert [type(result) for result in results].count(StoreRejected) == 1
    assert isinstance(results[100], StoreRejected)
    assert sum(isinstance(result, int) for result in results) == 200


async def test_a_cancelled_future_does_not_disturb_the_others() -> None:
    table = Table()
    table.gate.clear()
    async with committing(table.write) as batches:
        cancelled, kept = batches.put(1), batches.put(2)
        await table.entered.wait()
        cancelled.cancel()
        table.gate.set()
        assert await kept == 20
        assert await batches.put(3) == 30


async def test_a_batch_of_unknown_result_is_repeated() -> None:
    table = Table(StoreUnavailable("away"), StoreUnavailable("away"))
    async with committing(table.write) as batches:
        assert await batches.put(7) == 70
    assert table.batches == [[7], [7], [7]]


async def test_a_repeated_batch_leaves_out_cancelled_items() -> None:
    table = Table(StoreUnavailable("away"))
    table.gate.clear()
    async with committing(table.write) as batches:
        cancelled, kept = batches.put(1), batches.put(2)
        await table.entered.wait()
        cancelled.cancel()
        table.gate.set()
        assert await kept == 20
    assert table.batches == [[1, 2], [2]]


async def test_a_batch_that_postgres_undid_is_repeated() -> None:
    table = Table(StoreConflict("deadlock"))
    async with committing(table.write) as batches:
        assert await batches.put(1) == 10
    assert table.batches == [[1], [1]]


async def test_closing_writes_the_remaining_items() -> None:
    table = Table()
    async with committing(table.write) as batches:
        future = batches.put(5)
    assert await future == 50
    assert len(batches) == 0


async def test_an_unexpected_error_ends_the_run_and_fails_every_future() -> None:
    async def broken(items: Sequence[int]) -> Sequence[int]:
        raise KeyError(items[0])

    batches: GroupCommit[int, int] = GroupCommit("test", broken)
    futures = [batches.put(1), batches.put(2)]
    with pytest.raises(KeyError):
        await batches.run()
    for future in (*futures, batches.put(3)):
        with pytest.raises(StoreUnavailable):
            await future


async def _settled(future: asyncio.Future[int]) -> int | StoreRejected:
    try:
        return await future
    except StoreRejected as error:
        return error
