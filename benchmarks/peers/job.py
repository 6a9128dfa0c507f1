"""The job of a send, equal in every system: called by Notifier's provider and the peers' jobs.

`content.data` of the notification selects it: `count` writes one byte, `timed` writes a line with
its queue and its age and then sleeps, `http` posts to the sandbox and writes one byte.
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
    """Run the job in a thread or process."""
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
    """Run the job on an event loop."""
    import asyncio  # noqa: PLC0415 not needed by the threaded peers

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
    """Write a line with one call, so that lines of several processes do not mix."""
    queue = f"{notification['channel']}.{notification['priority']}"
    os.write(_LOG, f"{queue} {data['at']:.6f} {time.time():.6f}\n".encode())


def _form(notification: Mapping[str, Any]) -> dict[str, str]:
    """Return the body, filled as Notifier's HTTP provider fills it."""
    body = notification["content"]["body"]
    return {"To": notification["recipient"], "From": "+15005550006", "Body": body}


def _post(notification: Mapping[str, Any]) -> None:
    """Return one pooled session per thread, as requests advises."""
    import requests  # noqa: PLC0415 not in Notifier's environment

    if not hasattr(_thread, "session"):
        _thread.session = requests.Session()
    answer = _thread.session.post(place.sandbox_url(), data=_form(notification), timeout=15)
    answer.raise_for_status()


async def _post_async(notification: Mapping[str, Any]) -> None:
    """Return one session per process, as aiohttp advises."""
    import aiohttp  # noqa: PLC0415 not needed by the threaded peers

    if "session" not in _shared:
        connector = aiohttp.TCPConnector(limit=place.concurrency())
        timeout = aiohttp.ClientTimeout(total=15)
        _shared["session"] = aiohttp.ClientSession(connector=connector, timeout=timeout)
    async with _shared["session"].post(place.sandbox_url(), data=_form(notification)) as answer:
        answer.raise_for_status()
        await answer.read()
