"""`python -m benchmarks.bench.bare_sender smtp|http URL COUNT AT_ONCE`: a driver without Notifier.

It sends what Notifier's provider sends, on the same event loop, through aiosmtplib or aiohttp, and
writes one byte per accepted send. The mail is composed once. Then it waits to be stopped.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
import uvloop
from aiosmtplib import SMTP

from benchmarks.peers.job import done
from notifier.adapters.providers.smtp.message import Recipients, Sender, compose
from notifier.domain.notification import NotificationId, QueueKey
from notifier.ports.provider import Envelope

SENDER = "Notifier <notifier@example.com>"
RECIPIENT = "ada@example.com"
FORM = {"To": "+15005550006", "From": "+15005550006", "Body": "It works."}
GC_THRESHOLD = 20_000
"""With the default, full collections cost the driver some percent."""


async def smtp(url: str, left: Iterator[int], at_once: int) -> None:
    """Send mails over `at_once` sessions, each of which is kept."""
    address = urlsplit(url)
    mail, sender = _mail(), Sender.parse(SENDER, "").mailbox.spec

    async def session() -> None:
        client = SMTP(
            hostname=address.hostname,
            port=address.port,
            use_tls=False,
            start_tls=False,
            timeout=None,
        )
        await client.connect()
        for _ in left:
            await client.sendmail(sender, [RECIPIENT], mail)
            done()

    async with asyncio.TaskGroup() as group:
        for number in range(at_once):
            group.create_task(session(), name=f"session {number}")


async def http(url: str, left: Iterator[int], at_once: int) -> None:
    """Post forms with one client session of `at_once` connections."""
    connector = aiohttp.TCPConnector(limit=at_once)

    async def post(client: aiohttp.ClientSession) -> None:
        for _ in left:
            async with client.post(url, data=FORM) as response:
                await response.read()
                assert response.status == 201, response.status
            done()

    async with aiohttp.ClientSession(connector=connector) as client, asyncio.TaskGroup() as group:
        for number in range(at_once):
            group.create_task(post(client), name=f"post {number}")


def _mail() -> bytes:
    content = {"subject": "Hello", "body": "It works."}
    envelope = Envelope(
        id=NotificationId(UUID(int=1)),
        claim=1,
        queue=QueueKey.parse("email.medium"),
        recipient=RECIPIENT,
        content=content,
    )
    sender = Sender.parse(SENDER, "")
    return bytes(compose(envelope, Recipients.of(envelope), sender, datetime.now(UTC)))


def main(kind: str, url: str, count: int, at_once: int) -> None:
    gc.set_threshold(GC_THRESHOLD)
    send = {"smtp": smtp, "http": http}[kind]
    uvloop.run(send(url, iter(range(count)), at_once))
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
