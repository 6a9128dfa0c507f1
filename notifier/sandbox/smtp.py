"""The SMTP server of the sandbox.

A recipient whose fate is `refuse` is refused at RCPT; every other message is answered after its
final dot, by the fate of its first recipient, which alone is in the call log. The id and the claim
of the notification come with MAIL as ENVID (RFC 3461), which is known at RCPT, and in the headers
`Message-ID` and `X-Notifier-Claim`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Final, cast
from uuid import uuid4

from aiosmtpd.smtp import SMTP, Envelope, Session

from notifier.domain.fates import ResponseKind
from notifier.sandbox.fake_provider import FakeProvider, Response

_ENVID: Final = re.compile(r"\s+ENVID=(?P<id>[^\s.]+)(?:\.(?P<claim>\d+))?", re.IGNORECASE)
_RETURN: Final = re.compile(r"\s+RET=(?:FULL|HDRS)", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"<(?P<address>[^<>\s\"\\@]+@[^<>\s@]+)>(?P<rest>.*)")
_MESSAGE_ID: Final = re.compile(rb"(?im)^message-id:\s*<([^@>\s]+)")
_CLAIM: Final = re.compile(rb"(?im)^x-notifier-claim:\s*(\d{1,9})\b")
_HOSTNAME: Final = "sandbox.localhost"
_IDLE_TIMEOUT_S: Final = 3900.0  # longer than any hang
_REPLY_TEXTS: Final = {
    250: "2.0.0 accepted",
    421: "4.3.2 closing",
    450: "4.7.1 too much mail, slow down",
    451: "4.3.0 out of order, try again later",
    452: "4.3.1 too little room, try again later",
    535: "5.7.8 credentials invalid",
    550: "5.1.1 no such mailbox",
    552: "5.2.2 mailbox full",
    554: "5.7.1 refused",
}

logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # aiosmtpd's own: it names recipients


class SmtpSession(SMTP):
    """The session of one client, in the caller's loop. aiosmtpd creates its one task itself."""

    def __init__(self, provider: FakeProvider, sessions: set[SmtpSession]) -> None:
        self.envid: tuple[str, int | None] | None = None
        self._sessions = sessions
        super().__init__(
            SmtpHooks(provider),
            hostname=_HOSTNAME,
            ident="Notifier sandbox",
            enable_SMTPUTF8=True,
            timeout=_IDLE_TIMEOUT_S,
            loop=asyncio.get_running_loop(),
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Adds the session to the open sessions until its task ends."""
        super().connection_made(transport)
        self._sessions.add(self)
        if self._handler_coroutine is not None:
            self._handler_coroutine.add_done_callback(self._on_task_done)

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 aiosmtpd's name for a command
        """Handles MAIL, including two DSN parameters that aiosmtpd does not know."""
        envid = _ENVID.search(arg or "")
        self.envid = None
        if envid is not None:
            self.envid = envid["id"], int(envid["claim"]) if envid["claim"] else None
        await super().smtp_MAIL(arg and _RETURN.sub("", _ENVID.sub("", arg)))

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        """Parses the address of MAIL and RCPT."""
        # aiosmtpd's full parser takes half of the time that a message costs.
        plain = _ADDRESS.fullmatch(arg)
        if plain is not None:
            return plain["address"], plain["rest"]
        parsed: tuple[str | None, str | None] = super()._getaddr(arg)
        return parsed

    async def close(self) -> None:
        """Aborts the connection and waits until the session's task has ended."""
        task = self._handler_coroutine
        self.abort()
        if task is not None:
            await asyncio.wait([task])

    def abort(self) -> None:
        """Closes the connection without a reply."""
        if self.transport is not None:
            cast("asyncio.WriteTransport", self.transport).abort()  # uvloop's is no subclass

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._sessions.discard(self)
        if not task.cancelled():
            # An aborted session fails to write. asyncio logs only exceptions that were not read.
            task.exception()


class SmtpHooks:
    """The hooks that aiosmtpd calls for one session."""

    def __init__(self, provider: FakeProvider) -> None:
        self._provider = provider

    async def handle_EHLO(  # noqa: N802 aiosmtpd's name for a hook
        self,
        _server: SmtpSession,
        session: Session,
        _envelope: Envelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        """Adds DSN to the extensions, so that clients send ENVID."""
        session.host_name = hostname
        return [*responses[:-1], "250-DSN", responses[-1]]

    async def handle_RCPT(  # noqa: N802 aiosmtpd's name for a hook
        self,
        server: SmtpSession,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        """Accepts recipients unless their fate is `refuse`. The first decides about the message."""
        if self._provider.refuses_recipient("email", address):
            if envelope.rcpt_tos:
                return f"550 {_REPLY_TEXTS[550]}"
            response = self._provider.receive("email", address, *(server.envid or (None, None)))
            return await _reply(server, response)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 go on"

    async def handle_DATA(  # noqa: N802 aiosmtpd's name for a hook
        self, server: SmtpSession, _session: Session, envelope: Envelope
    ) -> str:
        """Receives a whole message."""
        notification_id, claim = _ids(envelope.original_content or b"")
        recipient = envelope.rcpt_tos[0]
        response = self._provider.receive("email", recipient, notification_id, claim)
        reply = await _reply(server, response)
        if response.kind is ResponseKind.ACCEPT:
            reply += f" as {uuid4().hex}"
            self._provider.took("email", recipient, reply.partition(" ")[2])
        return reply


async def _reply(server: SmtpSession, response: Response) -> str:
    """Waits as the response demands and returns the reply. A hang or a cut never returns."""
    if response.latency_s:
        await asyncio.sleep(response.latency_s)
    if response.kind is ResponseKind.HANG:
        await asyncio.sleep(response.hang_s)
    if response.kind in (ResponseKind.HANG, ResponseKind.CUT):
        server.abort()
        await asyncio.Event().wait()  # until aiosmtpd cancels this task for the lost connection
    default = f"{response.status // 100}.0.0 configured status"
    return f"{response.status} {_REPLY_TEXTS.get(response.status, default)}"


def _ids(content: bytes) -> tuple[str | None, int | None]:
    """Returns the notification's id and claim from the headers of a message."""
    header, _, _ = content.partition(b"\r\n\r\n")
    message_id, claim = _MESSAGE_ID.search(header), _CLAIM.search(header)
    return (
        message_id[1].decode(errors="replace") if message_id else None,
        int(claim[1]) if claim else None,
    )
