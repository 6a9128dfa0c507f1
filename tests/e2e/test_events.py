"""Events of real processes over a stream that is cut off: each once, whatever is killed."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import aiohttp

from harness.client import Client, Document, submit_body
from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import run_steps_async

if TYPE_CHECKING:
    from harness.system import Child, System

STREAM: Final = {"Accept": "text/event-stream"}
CUT: Final = (aiohttp.ClientError, ConnectionError)


class Stream:
    """Reads events of whatever API it is connected to, and remembers where it is."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.last_id = ""
        self.received: list[Document] = []

    async def read(self, until: int) -> None:
        """Read a frame, and more until so many events are there or the stream ends."""
        headers = {**STREAM, **({"Last-Event-ID": self.last_id} if self.last_id else {})}
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"{self.url}/v1/events", headers=headers, raise_for_status=True
            ) as response,
        ):
            while True:
                frame = await response.content.readuntil(b"\n\n")
                if not frame:
                    return
                fields = dict(
                    line.split(": ", 1) for line in frame.decode().split("\n") if ": " in line
                )
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    self.received.append(json.loads(fields["data"]))
                if len(self.received) >= until:
                    return

    def notifications(self) -> list[str]:
        return [event["data"]["notification"]["id"] for event in self.received]


async def another_api(system: System) -> tuple[Child, str]:
    (port,) = free_ports(1)
    child = system.spawn_api_at(port)
    await run_steps_async(child.starting())
    return child, f"http://127.0.0.1:{port}"


async def test_a_stream_resumes_at_another_api_after_its_own_was_killed(
    system: System, client: Client
) -> None:
    system.start_all()
    killed, url = await another_api(system)
    stream = Stream(url)
    fates = ["ok"] * 30 + ["refuse"] * 10
    asked: list[str] = []
    await stream.read(0)  # its first frame says where it is
    for _ in range(2):
        asked += await client.submit([submit_body("email.high", fate) for fate in fates])
        if stream.url == url:
            await stream.read(15)
            killed.kill()
            killed.has_started = False
            with suppress(*CUT):
                await stream.read(10_000)
            stream.url = system.api_url
    await stream.read(len(asked))
    assert Counter(stream.notifications()) == Counter(asked)
    assert Counter(event["type"] for event in stream.received) == {
        "notification.sent": 60,
        "notification.failed": 20,
    }
    # The processes stop although a stream is open: the fixture checks it.
