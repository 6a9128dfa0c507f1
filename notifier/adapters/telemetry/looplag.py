"""How late the event loop is: what holds it up holds everything up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

SAMPLE_INTERVAL_S: Final = 0.25


async def watch_loop(tell: Callable[[float], None], stop: asyncio.Event) -> None:
    """Tell, four times a second until `stop`, how many seconds late a sleep ended."""
    while not stop.is_set():
        began = time.monotonic()
        await asyncio.sleep(SAMPLE_INTERVAL_S)
        tell(max(0.0, time.monotonic() - began - SAMPLE_INTERVAL_S))
