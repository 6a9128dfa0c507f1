"""One SMTP session: opening, sending one mail after another, closing."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Final, cast

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPException,
    SMTPHeloError,
    SMTPServerDisconnected,
)
from aiosmtplib.response import SMTPResponse

from notifier.adapters.providers.smtp.message import Mailbox
from notifier.adapters.providers.smtp.replies import full_code, reply_outcome
from notifier.adapters.providers.verdict import outcome
from notifier.domain.outcome import Outcome

_GO_AHEAD: Final = 354
_CLOSING: Final = 421
_FINAL_DIGITS: Final = (2, 4, 5)  # first digits of a reply that ends a mail, RFC 5321 4.2.1


class StaleSession(Exception):
    """A reused session had ended while idle; no text of this mail was sent."""


@dataclass(slots=True)
class Mail:
    """One mail to send.

    `may_be_sent` is set when its text is written: from then on a lost reply means Ambiguous.
    `reference` is sent as ENVID (RFC 3461) where the server offers it, so that bounces name it.
    """

    sender: Mailbox
    to: Mailbox
    message: bytes
    reference: str
    may_be_sent: bool = field(default=False, init=False)

    @property
    def is_utf8(self) -> bool:
        """Whether one of its addresses needs SMTPUTF8 (RFC 6531)."""
        return self.sender.is_utf8 or self.to.is_utf8


class Session:
    """A session after EHLO, STARTTLS and AUTH. It sends one mail at a time."""

    def __init__(self, client: SMTP) -> None:
        self._client = client
        self._is_fresh = True
        self._needs_reset = False

    @property
    def is_open(self) -> bool:
        """Whether the connection is open, as far as known."""
        return self._client.is_connected

    async def send(self, mail: Mail) -> Outcome:
        """Run one mail transaction.

        Raises StaleSession, SMTPException or OSError when the session is lost.
        """
        if mail.is_utf8 and not self._offers("smtputf8"):
            return outcome("refused", "smtputf8", "the server does not accept UTF-8 addresses")
        try:
            await self._reset()
            return await self._transact(mail)
        except SMTPServerDisconnected as error:
            if self._is_fresh or mail.may_be_sent:
                raise
            raise StaleSession from error
        finally:
            self._is_fresh = False

    def close(self) -> None:
        """Send QUIT and close without waiting for the reply."""
        if self._client.protocol is not None and self.is_open:
            self._client.protocol.write(b"QUIT\r\n")
        self._client.close()

    def abort(self) -> None:
        """Close at once and discard unsent data."""
        if self._client.transport is not None:
            cast(
                "asyncio.WriteTransport", self._client.transport
            ).abort()  # not a subclass in uvloop
        self._client.close()

    async def _reset(self) -> None:
        # A refused mail leaves its sender set on the server. If RSET fails, no mail is lost.
        if self._needs_reset:
            reply = await self._client.execute_command(b"RSET")
            if not _is_positive(reply):
                raise StaleSession
            self._needs_reset = False

    async def _transact(self, mail: Mail) -> Outcome:
        self._needs_reset = True
        for command in (self._mail_from(mail), (b"RCPT", b"TO:<" + _spec(mail.to) + b">")):
            reply = await self._client.execute_command(*command)
            if reply.code == _CLOSING and not self._is_fresh:
                raise StaleSession
            if not _is_positive(reply):
                return reply_outcome(reply.code, reply.message)
        reply = await self._client.execute_command(b"DATA")
        if reply.code != _GO_AHEAD:
            return reply_outcome(reply.code, reply.message)
        return _final(await self._text(mail))

    async def _text(self, mail: Mail) -> SMTPResponse:
        protocol = self._client.protocol
        if protocol is None:
            raise SMTPServerDisconnected("closed before the text")
        protocol.write(_dotted(mail.message))
        mail.may_be_sent = True
        reply = await protocol.read_response()
        self._needs_reset = False
        if reply.code == _CLOSING or reply.code // 100 not in _FINAL_DIGITS:
            self._client.close()  # its replies may be out of step with our commands
        return reply

    def _mail_from(self, mail: Mail) -> tuple[bytes, ...]:
        command = [b"MAIL", b"FROM:<" + _spec(mail.sender) + b">"]
        if mail.is_utf8:
            command.append(b"SMTPUTF8")
        if self._offers("dsn"):
            command.append(b"ENVID=" + mail.reference.encode("ascii"))
        return tuple(command)

    def _offers(self, extension: str) -> bool:
        return self._client.supports_extension(extension)


async def open_session(
    client: SMTP, *, security: str, tls: ssl.SSLContext | None, login: tuple[str, str] | None
) -> Session:
    """Open a session that is ready for mail. On SMTPException or OSError the client is closed."""
    try:
        await client.connect()
        if security == "starttls":
            await client.starttls(tls_context=tls)
        await _hello(client)
        if login is not None:
            await _sign_in(client, *login)
    except BaseException:
        client.close()
        raise
    return Session(client)


async def _hello(client: SMTP) -> None:
    try:
        await client.ehlo()
    except SMTPHeloError:
        if not client.is_connected:
            raise
        await client.helo()


async def _sign_in(client: SMTP, username: str, password: str) -> None:
    """Log in by a method that both sides support. Raises SMTPException.

    A server that disconnects after it refused a password counts as having refused it.
    """
    methods = {
        "cram-md5": client.auth_crammd5,
        "plain": client.auth_plain,
        "login": client.auth_login,
    }
    refused: SMTPException = SMTPException("the server offers no supported AUTH method")
    for method in client.supported_auth_methods:
        try:
            await methods[method](username, password)
        except SMTPAuthenticationError as error:
            refused = error
        except SMTPServerDisconnected as error:
            if isinstance(refused, SMTPAuthenticationError):
                raise refused from error
            raise
        else:
            return
    raise refused


def _final(reply: SMTPResponse) -> Outcome:
    # Only the reply to the final dot confirms that the server accepted the mail.
    if not _is_positive(reply):
        return reply_outcome(reply.code, reply.message, garbage="ambiguous")
    return outcome("accepted", full_code(reply.code, reply.message), reference=reply.message)


def _is_positive(reply: SMTPResponse) -> bool:
    return reply.code // 100 == 2  # noqa: PLR2004 RFC 5321 4.2.1, the first digit


def _dotted(message: bytes) -> bytes:
    """The text as DATA needs it: leading dots doubled, a lone dot at the end (RFC 5321 4.5.2).

    All lines must end in CRLF.
    """
    return message.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def _spec(mailbox: Mailbox) -> bytes:
    return mailbox.spec.encode()
