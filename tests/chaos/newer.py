"""Submits that only workers of this version understand, beside those of an earlier one."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import aiohttp

from harness.client import Client, Document, submit_body
from notifier.domain.blobs import blob_id
from notifier.lifecycle import wait
from tests.chaos.mails import Mail
from tests.chaos.round import Round

PUBLIC_URL: Final = "https://notifier.example"
EVERY_S: Final = 0.1
FILE: Final = b"%PDF-1.4 seventeen"
WHOLE: Final = b"From: shop@example.com\r\nSubject: Whole\r\n\r\nAs it was written.\r\n"
TEMPLATE: Final = "order"
PARTS: Final = {
    "default_locale": "en",
    "locales": {"en": {"email": {"subject": "Order {{ id }}", "body": "Dear {{ name }}"}}},
}
TEXT: Final = {"subject": "Invoice", "body": "Seventeen"}
PLAIN_SHOWN: Final = ("\r\nSubject: Hello\r\n", "\r\n\r\nWorld\r\n")
"""What is in the mail of a plain submit."""
COLLAPSE, HOLDS = "collapse", "holds"
"""Workers of an earlier version understand the former."""
ACCEPTED: Final = 202
UNAVAILABLE: Final = "urn:notifier:problem:feature-unavailable"


class Newer(NamedTuple):
    """A submit, and what is in its mail."""

    body: Document
    shown: Sequence[str]


def _with(*shown: str, content: Mapping[str, object] = {}, **more: object) -> Newer:
    body = submit_body("email.medium", "ok", content={**TEXT, **content}, **more)
    return Newer(body, ("\r\nSubject: Invoice\r\n", "\r\n\r\nSeventeen\r\n", *shown))


SUBMITS: Final[Mapping[str, Newer]] = {
    "recipient_name": _with("\r\nTo: Ada <ok+ada@", recipient="Ada <ok+ada@example.com>"),
    "sender": _with(
        "\r\nFrom: Shop <shop@example.com>\r\n",
        "\r\nReply-To: desk@example.com\r\n",
        content={"from": "Shop <shop@example.com>", "reply_to": "desk@example.com"},
    ),
    "copies": _with(
        "\r\nRCPT TO:<copy@example.com>",
        "\r\nRCPT TO:<blind@example.com>",
        "\r\nCc: copy@example.com\r\n",
        content={"cc": "copy@example.com", "bcc": "blind@example.com"},
    ),
    "headers": _with("\r\nX-Order: 17\r\n", content={"headers": {"X-Order": "17"}}),
    "attachments": _with(
        base64.b64encode(FILE).decode(),
        content={
            "attachments": [
                {
                    "filename": "a.pdf",
                    "content_type": "application/pdf",
                    "data": base64.b64encode(FILE).decode(),
                }
            ]
        },
    ),
    "mime": Newer(
        submit_body("email.medium", content={"mime": blob_id(WHOLE)}),
        ("\r\nSubject: Whole\r\n", "\r\n\r\nAs it was written.\r\n"),
    ),
    "templates": Newer(
        {
            "channel": "email",
            "recipient": "ok+template@example.com",
            "template": TEMPLATE,
            "variables": {"id": 17, "name": "Ada"},
        },
        ("\r\nSubject: Order 17\r\n", "\r\n\r\nDear Ada\r\n"),
    ),
    "topic": _with(
        f"\r\nList-Unsubscribe: <{PUBLIC_URL}/",
        "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
        topic="news",
    ),
    "time_zone": _with(time_zone="Europe/Berlin"),
    COLLAPSE: _with(recipient="ok+collapse@example.com", collapse_key="order-17"),
}


@dataclass(slots=True, kw_only=True)
class NewerLoad:
    """Submits each of them in turn; `accepted_at` and `refused_at` have the times of the answers.

    Refused is only what a worker lacks the feature for.
    """

    client: Client
    round_: Round
    accepted_at: dict[str, list[float]] = field(default_factory=dict)
    refused_at: dict[str, list[float]] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        """Submit until `stop`; what is asked then is still answered."""
        await self.client.call("POST", f"templates/{TEMPLATE}/versions", json=PARTS)
        whole = aiohttp.BytesPayload(WHOLE, content_type="message/rfc822")
        await self.client.call("POST", "blobs", data=whole)
        submits = itertools.cycle(SUBMITS.items())
        while not stop.is_set():
            name, newer = next(submits)
            await self._submit(name, newer)
            if name == COLLAPSE:  # the last of them
                await self._set_quiet_hours()
            await wait(stop, EVERY_S)

    async def _submit(self, name: str, newer: Newer) -> None:
        load, asked_at = self.round_.load, time.time()
        status, _, answer = await self.client.post(newer.body)
        self._note(name, str(answer), is_accepted=status == ACCEPTED)
        if status == ACCEPTED:
            which = answer["id"]
            load.accepted[which], load.asked_at[which] = "ok", asked_at
            self.round_.shown[which] = newer.shown
            if name == COLLAPSE:
                self.round_.excused.add(which)

    async def _set_quiet_hours(self) -> None:
        """Set quiet hours that begin in some hours."""
        start, end = (datetime.now(UTC) + timedelta(hours=hours) for hours in (6, 7))
        hours = {"start": f"{start:%H:%M}", "end": f"{end:%H:%M}", "time_zone": "UTC"}
        try:
            await self.client.call("PUT", "tenants/default/quiet-hours", json=hours)
        except AssertionError as error:
            self._note(HOLDS, str(error), is_accepted=False)
        else:
            self._note(HOLDS, "", is_accepted=True)

    def _note(self, name: str, answer: str, *, is_accepted: bool) -> None:
        if is_accepted:
            self.accepted_at.setdefault(name, []).append(time.time())
        elif UNAVAILABLE in answer:
            self.refused_at.setdefault(name, []).append(time.time())
        else:
            self.round_.require(f"{name}: {answer}", holds=False)

    def require_by_features(self, left_at: float, *, is_refused: bool) -> None:
        """Require that nothing was accepted before the last old worker left, and all after it.

        `is_refused`: old workers were there in the beginning.
        """
        for name in (*SUBMITS, HOLDS):
            accepted, refused = self.accepted_at.get(name, []), self.refused_at.get(name, [])
            is_gated = name != COLLAPSE
            early = sum(at < left_at for at in accepted) if is_gated else 0
            require = self.round_.require
            require(f"{name}: {early} accepted beside an old worker", holds=not early)
            require(f"{name}: {len(accepted)} accepted", holds=bool(accepted))
            is_right = bool(refused) == (is_gated and is_refused)
            require(f"{name}: {len(refused)} refused", holds=is_right)
        refusals, accepts = map(_count, (self.refused_at, self.accepted_at))
        self.round_.found.append(f"of new features {refusals} refused, {accepts} accepted")


def _count(times: Mapping[str, Sequence[float]]) -> int:
    return sum(map(len, times.values()))


@asynccontextmanager
async def newer_load(client: Client, round_: Round) -> AsyncIterator[NewerLoad]:
    """Submit in the background to an API of this version."""
    load, stop = NewerLoad(client=client, round_=round_), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(stop), name="load of new features")
        yield load
        stop.set()


def require_as_submitted(round_: Round, received: Iterable[Mail]) -> None:
    """Require that each mail shows what was submitted, and that each new feature arrived."""
    count, arrived, wrong = 0, set[str](), list[Mail]()
    for mail in received:
        count += 1
        arrived.add(mail.id)
        if not all(text in mail.text for text in round_.shown.get(mail.id, PLAIN_SHOWN)):
            wrong.append(mail)
    missing = round_.shown.keys() - arrived - round_.excused
    round_.require(f"{len(wrong)} mails were not as submitted: {wrong[:1]}", holds=not wrong)
    round_.require(f"{len(missing)} mails did not arrive", holds=not missing)
    new = len(round_.shown.keys() & arrived)
    round_.found.append(f"{count - len(wrong)} of {count} mails as submitted, {new} with features")
