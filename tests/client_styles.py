"""Runs the same calls with the synchronous client, in a thread, and with the asynchronous one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from notifier_client import AsyncNotifier, Notifier

Call = Callable[[Any], Any]
STYLES = ("sync", "async")


async def called(style: str, url: str, *calls: Call, **options: Any) -> list[Any]:
    """Return the results of calls of one client. An iterator becomes a list."""
    if style == "sync":
        return await asyncio.to_thread(_called, url, calls, options)
    results = []
    async with AsyncNotifier(url, **options) as notifier:
        for call in calls:
            made = call(notifier)
            is_iterator = hasattr(made, "__aiter__")
            results.append([each async for each in made] if is_iterator else await made)
    return results


def _called(url: str, calls: tuple[Call, ...], options: dict[str, Any]) -> list[Any]:
    results = []
    with Notifier(url, **options) as notifier:
        for call in calls:
            made = call(notifier)
            results.append(list(made) if hasattr(made, "__next__") else made)
    return results
