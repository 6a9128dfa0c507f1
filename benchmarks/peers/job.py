"""What a send does, the same in every system: Notifier's provider and the peers' jobs call it.

`content.data` of the notification says what: `count` leaves one byte, `timed` leaves a line with
its queue and how long ago it was submitted and then sleeps, `http` posts to the sandbox and leaves
one byte.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.peers import place

_LOG = os.open(place.log_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
_thread = threading.local()
_shared: dict[str, Any] = {}


def perform(notification: Mapping[str, Any]) -> None:
    """In a thread or a process of its own."""
    data = notification["content"]["data"]
    match data["do"]:
        case "timed":
            begun(notification, data)
            time.sleep(data["sleep_s"])
        case "http":
            _post(notification)
            done()
        case _:
            done()


async def perform_async(notification: Mapping[str, Any]) -> None:
    """On an event loop."""
    import asyncio  # noqa: PLC0415 the threaded peers have no use for it

    data = notification["content"]["data"]
    match data["do"]:
        case "timed":
            begun(notification, data)
            await asyncio.sleep(data["sleep_s"])
        case "http":
            await _post_async(notification)
            done()
        case _:
            done()


def done() -> None:
    os.write(_LOG, b".")


def begun(notification: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """A line is one write: lines of several processes do not mix."""
    queue = f"{notification['channel']}.{notification['priority']}"
    os.write(_LOG, f"{queue} {data['at']:.6f} {time.time():.6f}\n".encode())


def _form(notification: Mapping[str, Any]) -> dict[str, str]:
    """As Notifier's own HTTP provider fills it."""
    body = notification["content"]["body"]
    return {"To": notification["recipient"], "From": "+15005550006", "Body": body}


def _post(notification: Mapping[str, Any]) -> None:
    """One pooled session a thread, as requests advises."""
    import requests  # noqa: PLC0415 not in Notifier's environment

    if not hasattr(_thread, "session"):
        _thread.session = requests.Session()
    answer = _thread.session.post(place.sandbox_url(), data=_form(notification), timeout=15)
    answer.raise_for_status()


async def _post_async(notification: Mapping[str, Any]) -> None:
    """One session a process, as aiohttp advises."""
    import aiohttp  # noqa: PLC0415 the threaded peers have no use for it

    if "session" not in _shared:
        connector = aiohttp.TCPConnector(limit=place.concurrency())
        timeout = aiohttp.ClientTimeout(total=15)
        _shared["session"] = aiohttp.ClientSession(connector=connector, timeout=timeout)
    async with _shared["session"].post(place.sandbox_url(), data=_form(notification)) as answer:
        answer.raise_for_status()
        await answer.read()
