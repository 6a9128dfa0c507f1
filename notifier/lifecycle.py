"""The only clever asyncio: stopping. Stop is an event, cancellation is the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


async def wait(stop: asyncio.Event, span: float) -> bool:
    """Sleep `span` seconds or until `stop`, whichever is first; True if stopped."""
    try:
        async with asyncio.timeout(span):
            return await stop.wait()
    except TimeoutError:
        return stop.is_set()


async def repeat(
    run_once: Callable[[], Awaitable[object]], stop: asyncio.Event, every: float
) -> None:
    """One pass after another, `every` seconds apart, until `stop`."""
    while not stop.is_set():
        await run_once()
        await wait(stop, every)


async def finish(work: asyncio.Future[T], within: float) -> T:
    """Wait for work that must survive our own cancellation: it gets `within` more seconds.

    The cancellation is raised all the same, after the work is done, or given up at the span's end.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        if not work.cancelled():
            await asyncio.wait([work], timeout=within)
            work.cancel()
        raise


@asynccontextmanager
async def running(
    run: Callable[[asyncio.Event], Coroutine[None, None, None]], name: str
) -> AsyncIterator[None]:
    """Run something beside the block, and stop it when the block is left."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run(stop), name=name)
        try:
            yield
        finally:
            stop.set()
