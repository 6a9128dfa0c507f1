"""What waits to be sent to a stream: nothing of it is passed over."""

from __future__ import annotations

import asyncio
import time

from notifier.api.http.stream_queue import StreamQueue


class Numbers(StreamQueue[int]):
    """A queue of numbers."""

    def put(self, number: int) -> None:
        self._queue([number])


async def test_what_is_queued_in_the_moment_of_the_time_out_is_taken() -> None:
    queue = Numbers()
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(queue.take(0.01), name="take")
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02, queue.put, 1)
        time.sleep(0.05)  # both timers are due when the loop goes on
    assert taking.result() == [1]


async def test_nothing_is_taken_after_the_time_out() -> None:
    assert list(await Numbers().take(0.01)) == []
