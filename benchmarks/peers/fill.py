"""Fills a queue with a peer's enqueue call: `python -m benchmarks.peers.fill PEER COUNT JSON`."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

AT_ONCE = 8
AT_ONCE_ASYNC = 256
BATCH = 1000


def main(peer: str, count: int, notification: dict[str, Any]) -> None:
    module = importlib.import_module(f"benchmarks.peers.{peer}_peer")
    if hasattr(module, "connected"):
        asyncio.run(_fill_async(module, count, notification))
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(module.enqueue, [notification] * count):
            pass  # a failure is raised here


async def _fill_async(module: ModuleType, count: int, notification: dict[str, Any]) -> None:
    """Enqueue in batches where the peer has a call for that, else one by one."""
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            await module.enqueue(notification)

    if hasattr(module, "enqueue_many"):
        async with module.connected():
            for done in range(0, count, BATCH):
                await module.enqueue_many([notification] * min(BATCH, count - done))
        return
    async with module.connected(), asyncio.TaskGroup() as group:
        for number in range(AT_ONCE_ASYNC):
            group.create_task(some(), name=f"fill {number}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
