"""Reads a stream of events of the API (server-sent events)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp
import msgspec

from notifier.api.events.documents import Event
from notifier.cli.client import describe_connection_error, describe_problem
from notifier.cli.failures import CommandFailed

SILENT_S: Final = 45.0
"""A stream has a comment every 15 s; one without is lost."""
MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
_UNAVAILABLE: Final = 500


class StreamLost(Exception):
    """The stream ended, or did not begin because of a server that may be back soon."""


async def streamed(
    session: aiohttp.ClientSession, url: str, params: Mapping[str, str], last_id: str
) -> AsyncIterator[tuple[str, Event | None]]:
    """Yield the events behind `last_id`, each with its id; None: only the id has moved on.

    Raises StreamLost at its end, and CommandFailed for a request that the API refuses.
    """
    headers = {"Accept": "text/event-stream"}
    if last_id:
        headers["Last-Event-ID"] = last_id
        params = {name: value for name, value in params.items() if name != "from"}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_S, sock_read=SILENT_S)
    try:
        async with session.get(
            url, params=params, headers=headers, timeout=timeout, read_bufsize=MAX_FRAME_BYTES
        ) as response:
            if not response.ok:
                problem = describe_problem(response.status, await response.read())
                if response.status < _UNAVAILABLE:
                    raise CommandFailed(problem)
                raise StreamLost(problem)
            while True:
                frame = await response.content.readuntil(b"\n\n")
                if not frame.endswith(b"\n\n"):
                    raise StreamLost("the stream has ended")
                yield _read(frame)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise StreamLost(describe_connection_error(url, error)) from error


def _read(frame: bytes) -> tuple[str, Event | None]:
    fields = dict(line.partition(b": ")[::2] for line in frame.splitlines())
    data = fields.get(b"data")
    event = None if data is None else msgspec.json.decode(data, type=Event)
    return fields.get(b"id", b"").decode(), event
