"""Measures the lag of the event loop: a call that blocks the loop delays everything in it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from notifier.ports.observer import LoopObserver

SAMPLE_INTERVAL_S: Final = 0.25


async def measure_loop_lag(observer: LoopObserver, stop: asyncio.Event) -> None:
    """Report by how many seconds a sleep ended late, four times a second until `stop`."""
    while not stop.is_set():
        began = time.monotonic()
        await asyncio.sleep(SAMPLE_INTERVAL_S)
        observer.loop_lagged(max(0.0, time.monotonic() - began - SAMPLE_INTERVAL_S))
