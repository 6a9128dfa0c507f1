"""The time limit of a response that needs Postgres, or the renderer of templates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from notifier.domain.errors import RendererUnavailable, StoreUnavailable


@asynccontextmanager
async def deadline(timeout_s: float) -> AsyncIterator[None]:
    """Cancels the block after `timeout_s` and raises StoreUnavailable."""
    async with Deadline(timeout_s).of_store():
        yield


class Deadline:
    """The end of a request that waits for Postgres and for the renderer of templates, in turn."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._at = asyncio.get_running_loop().time() + timeout_s

    @asynccontextmanager
    async def of_store(self) -> AsyncIterator[None]:
        """Cancels the block at the deadline and raises StoreUnavailable."""
        try:
            async with asyncio.timeout_at(self._at):
                yield
        except TimeoutError as error:
            raise StoreUnavailable(f"no answer within {self._timeout_s:g} s") from error

    @asynccontextmanager
    async def of_renderer(self) -> AsyncIterator[None]:
        """Cancels the block at the deadline and raises RendererUnavailable."""
        try:
            async with asyncio.timeout_at(self._at):
                yield
        except TimeoutError as error:
            raise RendererUnavailable(f"not rendered within {self._timeout_s:g} s") from error
