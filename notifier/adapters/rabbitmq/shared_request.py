"""A question that many ask and one task answers, so that no asker's cancel reaches the channel.

aiormq closes a channel whose RPC is cancelled. Therefore only the task that owns a channel makes
RPCs on it; others ask, wait as long as they like, and go.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedRequest(Generic[T]):
    """`wake` is set when somebody asks."""

    def __init__(self, wake: asyncio.Event) -> None:
        self._wake = wake
        self._open: asyncio.Future[T] | None = None

    async def ask(self, *, within_s: float, otherwise: T) -> T:
        """The answer found after this call, or `otherwise` if there is none in time."""
        if self._open is None:
            self._open = asyncio.get_running_loop().create_future()
        answer = self._open
        self._wake.set()
        await asyncio.wait({answer}, timeout=within_s)
        return answer.result() if answer.done() else otherwise

    def take(self) -> asyncio.Future[T] | None:
        """The askers so far, to be answered by `set_result`; later ones are another question."""
        taken, self._open = self._open, None
        return taken
