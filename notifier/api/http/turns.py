"""Long loops that let other requests have a turn on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
MAX_TURN_S: Final = 0.01
"""How long items are worked on before other requests get a turn."""


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yields the items, and lets other requests have a turn in between."""
    time = asyncio.get_running_loop().time
    turn_ends_at = time() + MAX_TURN_S
    for item in items:
        yield item
        if time() > turn_ends_at:
            await asyncio.sleep(0)
            turn_ends_at = time() + MAX_TURN_S
