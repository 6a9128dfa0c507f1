"""Sends receipts for the messages that the sandbox accepted, as the fates of their recipients ask.

They are in Notifier's own form and signed: see docs/receipts.md. Nothing is sent until a target is
set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import uuid4

import aiohttp
import msgspec
from msgspec import Meta

from notifier.domain.fates import Fate
from notifier.domain.receipts import ReceiptEvent
from notifier.domain.webhook_signature import SECRET_EXPECTED, secret_bytes, signed_headers
from notifier.sandbox.behaviour import CHANNELS
from notifier.sandbox.errors import InvalidRequest

MAX_WAITING: Final = 10_000
"""How many receipts wait to be sent; further ones are left out."""
MAX_TRIES: Final = 20
_RETRY_S: Final = 0.5
_TIMEOUT_S: Final = 5.0

_EVENTS: Final = {
    Fate.DELIVERED: (ReceiptEvent.DELIVERED,),
    Fate.BOUNCED: (ReceiptEvent.BOUNCED,),
    Fate.COMPLAINED: (ReceiptEvent.DELIVERED, ReceiptEvent.COMPLAINED),
    Fate.UNSUBSCRIBED: (ReceiptEvent.DELIVERED, ReceiptEvent.UNSUBSCRIBED),
    Fate.DOUBLED: (ReceiptEvent.DELIVERED, ReceiptEvent.DELIVERED),
    Fate.SHUFFLED: (ReceiptEvent.DEFERRED, ReceiptEvent.BOUNCED, ReceiptEvent.DELIVERED),
}
"""What happens to a message, in this order and a second apart. Two alike are copies of one."""
_REVERSED: Final = frozenset({Fate.SHUFFLED})
"""The last one arrives first."""


class ReceiptTarget(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /receipts`: where the receipts of a channel go. `url` null: nowhere.

    They are sent `after_s` seconds after the message was accepted.
    """

    channel: str
    url: Annotated[str, Meta(max_length=2000)] | None = None
    secret: str = ""
    after_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0


class _Waiting(msgspec.Struct, frozen=True):
    """The body of a request, and when it is sent."""

    due_at: float
    url: str
    secret: bytes
    body: bytes


class ReceiptSender:
    """Sends each receipt in a request of its own, and repeats it for some seconds if it must."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._targets: dict[str, tuple[ReceiptTarget, bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def replace(self, body: bytes) -> None:
        """Replaces the target of a channel. Raises InvalidRequest and then changes nothing."""
        try:
            target = msgspec.json.decode(body, type=ReceiptTarget)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise InvalidRequest(
                "body", f"expected channel, url, secret, after_s: {error}"
            ) from error
        if target.channel not in CHANNELS:
            raise InvalidRequest("channel", f"expected one of {', '.join(CHANNELS)}")
        if target.url is None:
            self._targets.pop(target.channel, None)
            return
        try:
            secret = secret_bytes(target.secret)
        except ValueError as error:
            raise InvalidRequest("secret", f"expected {SECRET_EXPECTED}") from error
        self._targets[target.channel] = target, secret

    def accepted(self, channel: str, recipient: str, fate: Fate, reference: str) -> None:
        """Sends the receipts of a message that was accepted."""
        events = _EVENTS.get(fate, ())
        count = self._waiting.qsize() + len(self._tasks)
        if channel not in self._targets or count + len(events) > MAX_WAITING:
            return
        target, secret = self._targets[channel]
        bodies = _bodies(events, recipient, reference)
        for number, body in enumerate(reversed(bodies) if fate in _REVERSED else bodies):
            due_at = time.monotonic() + target.after_s + number * _RETRY_S / 10
            self._waiting.put_nowait(_Waiting(due_at, target.url or "", secret, body))

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`; what waits then is lost."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            taking = group.create_task(self._take(session, group), name="receipts")
            await stop.wait()
            for task in (taking, *self._tasks):
                task.cancel()

    async def _take(self, session: aiohttp.ClientSession, group: asyncio.TaskGroup) -> None:
        while True:
            waiting = await self._waiting.get()
            task = group.create_task(_send(session, waiting), name="receipt")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _send(session: aiohttp.ClientSession, waiting: _Waiting) -> None:
    await asyncio.sleep(waiting.due_at - time.monotonic())
    message = f"msg_{uuid4().hex}"
    for _ in range(MAX_TRIES):
        headers = signed_headers(waiting.secret, message, int(time.time()), waiting.body)
        try:
            async with session.post(waiting.url, data=waiting.body, headers=headers) as response:
                if response.status < 500 and response.status != 429:  # noqa: PLR2004 RFC 9110
                    return
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            pass
        await asyncio.sleep(_RETRY_S)


def _bodies(events: Sequence[ReceiptEvent], recipient: str, reference: str) -> list[bytes]:
    """Return a body for each event. Copies of an event have one time."""
    began_at = datetime.now(UTC) - timedelta(seconds=len(events))
    order = list(dict.fromkeys(events))
    return [
        msgspec.json.encode(
            {
                "receipts": [
                    {
                        "event": event,
                        "reference": reference,
                        "recipient": recipient,
                        "at": began_at + timedelta(seconds=order.index(event)),
                        "code": "sandbox",
                        "detail": "the fate of the recipient",
                    }
                ]
            }
        )
        for event in events
    ]
