"""A request that many callers make and one task serves, so that callers make no RPCs themselves."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedRequest(Generic[T]):
    """Callers share one response. `wake` is set when a request is made.

    A cancelled caller does not disturb the task that serves the request.
    """

    def __init__(self, wake: asyncio.Event) -> None:
        self._wake = wake
        self._response: asyncio.Future[T] | None = None

    async def ask(self, *, timeout_s: float, default: T) -> T:
        """Return the response to a request that begins now or later, or `default` at a time-out."""
        if self._response is None:
            self._response = asyncio.get_running_loop().create_future()
        response = self._response
        self._wake.set()
        await asyncio.wait({response}, timeout=timeout_s)
        return response.result() if response.done() else default

    def take(self) -> asyncio.Future[T] | None:
        """Return the open request, to be served by `set_result`. Later calls make a new one."""
        taken, self._response = self._response, None
        return taken
