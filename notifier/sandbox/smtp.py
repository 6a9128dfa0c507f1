"""The sandbox as a mail server: the desk decides at RCPT for `refuse`, else after the final dot.

The notification's id and claim come with MAIL as ENVID (RFC 3461), which is known at RCPT, and in
the headers `Message-ID` and `X-Notifier-Claim`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Final, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from notifier.sandbox.fake_provider import Answer, FakeProvider
from notifier.sandbox.fates import Kind

_ENVID: Final = re.compile(r"\s+ENVID=(?P<id>[^\s.]+)(?:\.(?P<claim>\d+))?", re.IGNORECASE)
_RETURN: Final = re.compile(r"\s+RET=(?:FULL|HDRS)", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"<(?P<spec>[^<>\s\"\\@]+@[^<>\s@]+)>(?P<rest>.*)")
_MESSAGE_ID: Final = re.compile(rb"(?im)^message-id:\s*<([^@>\s]+)")
_CLAIM: Final = re.compile(rb"(?im)^x-notifier-claim:\s*(\d{1,9})\b")
_HOSTNAME: Final = "sandbox.localhost"
_IDLE_S: Final = 3900.0  # longer than any hang
_TEXTS: Final = {
    250: "2.0.0 taken",
    421: "4.3.2 closing",
    450: "4.2.1 too much mail for this mailbox, slow down",
    451: "4.3.0 out of order, try again later",
    452: "4.3.1 too little room, try again later",
    535: "5.7.8 credentials invalid",
    550: "5.1.1 no such mailbox",
    552: "5.2.2 mailbox full",
    554: "5.7.1 refused",
}

logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # aiosmtpd's own: it names recipients


class MailServer(SMTP):
    """One client's session. It runs in our loop; aiosmtpd makes its one task by itself."""

    def __init__(self, desk: FakeProvider, sessions: set[MailServer]) -> None:
        self.envid: tuple[str, int | None] | None = None
        self._sessions = sessions
        super().__init__(
            Mailroom(desk),
            hostname=_HOSTNAME,
            ident="Notifier sandbox",
            enable_SMTPUTF8=True,
            timeout=_IDLE_S,
            loop=asyncio.get_running_loop(),
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the session for `end` until its task is over."""
        super().connection_made(transport)
        self._sessions.add(self)
        if self._handler_coroutine is not None:
            self._handler_coroutine.add_done_callback(self._is_over)

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 aiosmtpd's name for a command
        """MAIL with the two parameters of DSN that aiosmtpd does not know."""
        found = _ENVID.search(arg or "")
        self.envid = None
        if found is not None:
            self.envid = found["id"], int(found["claim"]) if found["claim"] else None
        await super().smtp_MAIL(arg and _RETURN.sub("", _ENVID.sub("", arg)))

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """The address of MAIL and RCPT; aiosmtpd's full parser takes half of a mail's time."""
        found = _ADDRESS.fullmatch(arg)
        if found is not None:
            return found["spec"], found["rest"]
        known: tuple[str | None, str | None] = super()._getaddr(arg)
        return known

    async def end(self) -> None:
        """Cut the session and wait until its task is over."""
        task = self._handler_coroutine
        self.drop()
        if task is not None:
            await asyncio.wait([task])

    def drop(self) -> None:
        """Cut the connection without a word."""
        if self.transport is not None:
            cast("asyncio.WriteTransport", self.transport).abort()  # uvloop's is no subclass

    def _is_over(self, task: asyncio.Task[None]) -> None:
        self._sessions.discard(self)
        if not task.cancelled():
            task.exception()  # a cut session fails to write: looked at, and so not reported


class Mailroom:
    """The hooks that aiosmtpd calls for one session."""

    def __init__(self, desk: FakeProvider) -> None:
        self._desk = desk

    async def handle_EHLO(  # noqa: N802 aiosmtpd's name for a hook
        self,
        _server: MailServer,
        session: Session,
        _envelope: Envelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        """Offer DSN beside the rest, for ENVID."""
        session.host_name = hostname
        return [*responses[:-1], "250-DSN", responses[-1]]

    async def handle_RCPT(  # noqa: N802 aiosmtpd's name for a hook
        self,
        server: MailServer,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        """One recipient a mail; the refused ones hear it here."""
        if envelope.rcpt_tos:
            return "452 4.5.3 one recipient at a time"
        if self._desk.is_refused("email", address):
            answer = self._desk.take("email", address, *(server.envid or (None, None)))
            return await _carry_out(server, answer)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 go on"

    async def handle_DATA(  # noqa: N802 aiosmtpd's name for a hook
        self, server: MailServer, _session: Session, envelope: Envelope
    ) -> str:
        """The whole mail is here."""
        notification_id, claim = _names(envelope.original_content or b"")
        answer = self._desk.take("email", envelope.rcpt_tos[0], notification_id, claim)
        return await _carry_out(server, answer)


async def _carry_out(server: MailServer, answer: Answer) -> str:
    if answer.latency_s:
        await asyncio.sleep(answer.latency_s)
    if answer.kind is Kind.HANG:
        await asyncio.sleep(answer.hang_s)
    if answer.kind in (Kind.HANG, Kind.CUT):
        server.drop()
        await asyncio.Event().wait()  # until aiosmtpd cancels us for the lost connection
    default = f"{answer.status // 100}.0.0 as asked"
    return f"{answer.status} {_TEXTS.get(answer.status, default)}"


def _names(content: bytes) -> tuple[str | None, int | None]:
    header, _, _ = content.partition(b"\r\n\r\n")
    found, claim = _MESSAGE_ID.search(header), _CLAIM.search(header)
    return (
        found[1].decode(errors="replace") if found else None,
        int(claim[1]) if claim else None,
    )
