"""A batch: a rejected item fails alone, a rolled-back one is repeated, a lost one is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from notifier.delivery.batch_write import write_batch
from notifier.domain.errors import StoreConflict, StoreRejected, StoreUnavailable
from tests.virtual_time import run_virtually


class Table:
    """Writes numbers. Rejects negative ones, loses the reply of batches that contain a zero."""

    def __init__(self, *failures: StoreConflict) -> None:
        self.failures = list(failures)
        self.batches: list[list[int]] = []

    async def write(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        if self.failures:
            raise self.failures.pop(0)
        if any(item < 0 for item in items):
            raise StoreRejected("negative")
        if 0 in items:
            raise StoreUnavailable("reply lost")
        return [item * 10 for item in items]

    async def replies(self, *items: int) -> list[object]:
        """Return the replies, the exceptions as their types."""
        replies = await write_batch("test", items, self.write)
        return [reply if isinstance(reply, int) else type(reply) for reply in replies]


async def test_a_batch_is_written_at_once() -> None:
    table = Table()
    assert await table.replies(*range(1, 65)) == [10 * item for item in range(1, 65)]
    assert len(table.batches) == 1


async def test_rejected_items_fail_alone_and_each_other_item_is_written_once() -> None:
    table = Table()
    items = [item if item % 7 else -item for item in range(1, 65)]
    assert await table.replies(*items) == [
        item * 10 if item > 0 else StoreRejected for item in items
    ]
    written = [item for batch in table.batches if min(batch) > 0 for item in batch]
    assert sorted(written) == [item for item in items if item > 0]


async def test_one_rejected_item_of_64_costs_14_statements() -> None:
    table = Table()
    await table.replies(*range(1, 64), -1)
    assert len(table.batches) <= 14


async def test_a_batch_of_rejected_items_only_ends() -> None:
    assert await Table().replies(-1, -2, -3) == [StoreRejected] * 3


async def test_a_batch_whose_reply_is_lost_is_not_repeated() -> None:
    table = Table()
    assert await table.replies(1, 0, 2) == [StoreUnavailable] * 3
    assert table.batches == [[1, 0, 2]]


async def test_a_half_whose_reply_is_lost_does_not_affect_the_other_half() -> None:
    table = Table()
    assert await table.replies(-1, 1, 0, 2) == [
        StoreRejected,
        10,
        StoreUnavailable,
        StoreUnavailable,
    ]
    assert table.batches == [[-1, 1, 0, 2], [-1, 1], [-1], [1], [0, 2]]


def test_a_batch_that_postgres_undid_is_repeated_with_growing_waits() -> None:
    async def write() -> list[object]:
        return await table.replies(1, -1)

    table = Table(*(StoreConflict("deadlock") for _ in range(5)))
    assert run_virtually(write()) == [10, StoreRejected]
    assert table.batches == [[1, -1]] * 6 + [[1], [-1]]


async def test_an_unexpected_error_is_raised() -> None:
    async def broken(items: Sequence[int]) -> Sequence[int]:
        raise KeyError(items[0])

    with pytest.raises(KeyError):
        await write_batch("test", [1], broken)


async def test_a_cancelled_batch_writes_nothing_more() -> None:
    table = Table(*(StoreConflict("deadlock") for _ in range(100)))
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(table.replies(1, 2))
        while not table.batches:
            await asyncio.sleep(0)
        writing.cancel()
    assert table.batches == [[1, 2]]
