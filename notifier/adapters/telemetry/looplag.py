"""How late the event loop is: what holds it up holds everything up."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from notifier.ports.observer import LoopObserver

SAMPLE_INTERVAL_S: Final = 0.25


async def watch_loop(observer: LoopObserver, stop: asyncio.Event) -> None:
    """Report four times a second, until `stop`, how many seconds late a timer fired."""
    while not stop.is_set():
        began = time.monotonic()
        await asyncio.sleep(SAMPLE_INTERVAL_S)
        observer.loop_lagged(max(0.0, time.monotonic() - began - SAMPLE_INTERVAL_S))
