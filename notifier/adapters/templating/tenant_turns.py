"""Which tenant's request the renderer's process takes next."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from notifier.domain.errors import RendererUnavailable
from notifier.domain.tenants import TenantId

MAX_WAITING: Final = 500
"""Requests of one tenant that may wait in a process."""


class TenantTurns:
    """Grants turns one at a time, to the tenant that has used the least time.

    Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): a request's start tag is the
    virtual time at which its tenant has had its share, and the lowest tag is next. A tenant that
    was away gets no credit for it. So a tenant whose requests are slow waits for those of others,
    and they wait for one of its requests at most.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[TenantId, deque[asyncio.Future[None]]] = {}
        self._tags: dict[TenantId, float] = {}
        self._virtual_time = 0.0
        self._is_taken = False

    @asynccontextmanager
    async def turn(self, tenant: TenantId) -> AsyncIterator[None]:
        """Waits for a turn. Raises RendererUnavailable if too many requests of the tenant wait."""
        await self._wait(tenant)
        try:
            yield
        finally:
            # Not at once: a batch asks for its next turn first, and keeps its place by that.
            asyncio.get_running_loop().call_soon(self._grant_next)

    @contextmanager
    def charged(self, tenant: TenantId) -> Iterator[None]:
        """Counts the time of the block as used by the tenant that has the turn."""
        started_at = self._clock()
        try:
            yield
        finally:
            self._tags[tenant] += self._clock() - started_at

    async def _wait(self, tenant: TenantId) -> None:
        waiting = self._waiting.get(tenant)
        if waiting is None:
            waiting = self._waiting[tenant] = deque()
            self._tags[tenant] = max(self._tags.get(tenant, 0.0), self._virtual_time)
        elif len(waiting) >= MAX_WAITING:
            raise RendererUnavailable(
                f"{MAX_WAITING} requests of the tenant wait for the template renderer"
            )
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(granted)
        if not self._is_taken:
            self._grant_next()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._leave(tenant, granted)
            else:
                self._grant_next()
            raise

    def _leave(self, tenant: TenantId, granted: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(tenant)
        if waiting is not None and granted in waiting:
            waiting.remove(granted)
            if not waiting:
                del self._waiting[tenant]

    def _grant_next(self) -> None:
        while self._waiting:
            tenant = min(self._waiting, key=self._tags.__getitem__)
            waiting = self._waiting[tenant]
            granted = waiting.popleft()
            if not waiting:
                del self._waiting[tenant]
            if not granted.done():  # done: its task was cancelled just now
                self._virtual_time = self._tags[tenant]
                self._is_taken = True
                granted.set_result(None)
                return
        self._is_taken = False
        self._tags.clear()
