"""One SMTP session: sends one mail after another.

Which bytes were out when the connection broke or a time limit ended the wait decides the outcome:

| what was out | outcome |
|---|---|
| nothing, or commands only | Unavailable. On a reused session the mail is sent over a fresh one |
| the text, or a part of it | Unavailable: the server discards it (RFC 5321 4.1.1.4) |
| any byte of the final dot, and no whole reply to it | Ambiguous |

A byte is out when the kernel took it. A text of up to 16 KiB is written together with its dot; of
a longer one the kernel must have taken everything before the dot is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from notifier.adapters.providers.smtp.addresses import Mailbox
from notifier.adapters.providers.smtp.connection import ConnectionLost, MailConnection
from notifier.adapters.providers.smtp.mail_text import MailText
from notifier.adapters.providers.smtp.replies import (
    ReplyRules,
    Step,
    full_code,
    is_about_session,
)
from notifier.adapters.providers.smtp.reply import ProtocolError, Reply
from notifier.adapters.providers.verdict import outcome, unsendable
from notifier.domain.breaker import is_failure
from notifier.domain.notification import NotificationId
from notifier.domain.outcome import Outcome

LOST_BYTES: Final = (
    ("nothing, or commands only", "connection lost or time-out", "unavailable"),
    ("the text, or a part of it", "connection lost or time-out", "unavailable"),
    ("any byte of the final dot, no whole reply", "connection lost or time-out", "ambiguous"),
)
"""What was out, what happened, and the outcome: the module's table as data for the documents."""

_GO_AHEAD: Final = 354
_CLOSING: Final = 421
_FOR_NOW: Final = 4
"""The first digit of a reply that may be another one later (RFC 5321, 4.2.1)."""
_FINAL_DIGITS: Final = (2, 4, 5)  # first digits of a reply that ends a mail, RFC 5321 4.2.1
_DATA: Final = (Step.DATA, b"DATA\r\n")
_DOT: Final = b".\r\n"
_SHORT_TEXT: Final = 16_384
_EMPTY_MAIL_TIMEOUT_S: Final = 5.0


class StaleSession(Exception):
    """A reused session had ended while idle; no text of this mail was sent."""


@dataclass(slots=True, kw_only=True)
class Mail:
    """One mail to send, to its recipient and to the `copies`.

    A server that refuses a copy gets the mail for the others. Its address and the reply are then in
    `deferred_copies` if it was refused for now (4xx), otherwise in `refused_copies`.
    `may_be_sent` is set when its final dot is written: from then on a lost reply means Ambiguous.
    `is_8bit`: its text is not all ASCII (RFC 6152). `has_utf8_header`: an address in its headers
    needs SMTPUTF8.
    `left_out` are copies to which it is not sent because they are suppressed.
    `id` and `claim` are sent as ENVID (RFC 3461) where the server offers it, so that bounces name
    them.
    """

    sender: Mailbox
    to: Mailbox
    message: MailText
    id: NotificationId
    claim: int
    copies: Sequence[Mailbox] = ()
    is_8bit: bool = False
    has_utf8_header: bool = False
    left_out: Sequence[str] = ()
    deferred_copies: dict[Mailbox, str] = field(default_factory=dict, init=False)
    refused_copies: dict[Mailbox, str] = field(default_factory=dict, init=False)
    may_be_sent: bool = field(default=False, init=False)

    @property
    def is_utf8(self) -> bool:
        """Whether one of its addresses needs SMTPUTF8 (RFC 6531)."""
        return self.has_utf8_header or any(
            mailbox.is_utf8 for mailbox in (self.sender, self.to, *self.copies)
        )

    def for_deferred_copies(self) -> Mail:
        """Return the same mail for the copies that were refused for now, and for them alone."""
        to, *copies = self.deferred_copies
        return replace(self, to=to, copies=copies, has_utf8_header=self.is_utf8)


class Session:
    """A session after EHLO, STARTTLS and AUTH. It sends one mail at a time.

    First `begin`, then `finish` if the text went out. Both raise ConnectionLost or ProtocolError
    when the session is lost.
    """

    def __init__(
        self,
        connection: MailConnection,
        *,
        extensions: Collection[str],
        rules: ReplyRules,
        opened_at: float = 0.0,
    ) -> None:
        self.opened_at = opened_at
        """When it was opened, by the event loop's clock."""
        self._connection = connection
        self._rules = rules
        self._is_pipelined = "pipelining" in extensions
        self._offers_utf8 = "smtputf8" in extensions
        self._offers_8bit = "8bitmime" in extensions
        self._offers_dsn = "dsn" in extensions
        self._is_fresh = True
        self._needs_reset = False

    @property
    def is_open(self) -> bool:
        """Whether the session can take a mail, as far as known."""
        return self._connection.is_open

    @property
    def is_connected(self) -> bool:
        """Whether its connection is open, also during a mail."""
        return self._connection.is_connected

    async def begin(self, mail: Mail) -> Outcome | None:
        """Send everything up to the final dot; returns the outcome if the server refused it.

        Raises StaleSession if a reused session turns out to have ended.
        """
        if mail.is_utf8 and not self._offers_utf8:
            return unsendable("smtputf8", "the server does not accept UTF-8 addresses")
        if mail.is_8bit and not self._offers_8bit:
            return unsendable("8bitmime", "the server takes no text beside ASCII")
        try:
            return await self._begin(mail)
        except ConnectionLost as error:
            if self._is_fresh or mail.may_be_sent:
                raise
            raise StaleSession from error
        finally:
            self._is_fresh = False

    async def finish(self) -> Outcome:
        """Wait for the reply to the final dot."""
        reply = await self._connection.reply()
        self._needs_reset = False
        return self._final(reply)

    def close(self) -> None:
        """Send QUIT and close without waiting for the reply."""
        if self.is_open:
            with suppress(ConnectionLost):
                self._connection.write(b"QUIT\r\n", replies=1)
        self._connection.close()

    def abort(self) -> None:
        """Close at once and discard unsent data."""
        self._connection.abort()

    async def _begin(self, mail: Mail) -> Outcome | None:
        commands = self._commands(mail)
        self._needs_reset = True
        run = self._run_as_group if self._is_pipelined else self._run_in_turn
        refused = await run(commands)
        if refused is None and mail.copies:
            # Not in the group: a server that accepts only a copy would wait for the text.
            refused = await self._add_copies(mail) or await run([_DATA])
        if refused is None:
            return await self._write_text(mail)
        step, reply = refused
        if reply.code == _CLOSING or is_about_session(reply):
            self.close()
            if not self._is_fresh:
                raise StaleSession
        return self._outcome(step, reply)

    def _outcome(self, step: Step, reply: Reply) -> Outcome:
        """The outcome of a refusal. Closes the session if it does not speak for the server.

        Others may be served elsewhere, by another machine behind the same address or with what the
        server has learned about us since, and a broken session would be lent more often than
        working ones, because it answers sooner.
        """
        result = self._rules.outcome(step, reply)
        if is_failure(result) or is_about_session(reply):
            self.close()
        return result

    def _commands(self, mail: Mail) -> list[tuple[Step, bytes]]:
        # A refused mail leaves its sender set on the server.
        reset = [(Step.RSET, b"RSET\r\n")] if self._needs_reset else []
        return [
            *reset,
            (Step.MAIL, self._mail_from(mail)),
            (Step.RCPT, _rcpt_to(mail.to)),
            *([] if mail.copies else [_DATA]),
        ]

    async def _add_copies(self, mail: Mail) -> tuple[Step, Reply] | None:
        """Name the copies to the server. Returns a reply that closes the session."""
        mail.deferred_copies.clear()
        mail.refused_copies.clear()
        if self._is_pipelined:
            group = b"".join(map(_rcpt_to, mail.copies))
            self._connection.write(group, replies=len(mail.copies))
        for copy in mail.copies:
            if not self._is_pipelined:
                self._connection.write(_rcpt_to(copy), replies=1)
            reply = await self._connection.reply()
            if reply.code == _CLOSING:
                return Step.RCPT, reply
            if not reply.is_positive:
                is_for_now = reply.code // 100 == _FOR_NOW
                refused = mail.deferred_copies if is_for_now else mail.refused_copies
                refused[copy] = full_code(reply)
        return None

    async def _run_in_turn(self, commands: list[tuple[Step, bytes]]) -> tuple[Step, Reply] | None:
        """Send each command after the reply to the one before; returns the one that was refused."""
        for step, command in commands:
            self._connection.write(command, replies=1)
            reply = await self._connection.reply()
            if not _is_expected(step, reply):
                self._check_reset(step)
                return step, reply
        return None

    async def _run_as_group(self, commands: list[tuple[Step, bytes]]) -> tuple[Step, Reply] | None:
        """Send the commands in one write (RFC 2920); returns the first that was refused.

        All replies are read. A server may accept DATA although it refused what came before: then
        it waits for a text.
        """
        group = b"".join([command for _, command in commands])
        self._connection.write(group, replies=len(commands))
        refused: dict[Step, Reply] = {}
        for step, _ in commands:
            try:
                reply = await self._connection.reply()
            except (ConnectionLost, ProtocolError):
                if not refused:
                    raise
                self._connection.abort()
                break
            if not _is_expected(step, reply):
                self._check_reset(step)
                refused[step] = reply
                if reply.code == _CLOSING:
                    break
        else:
            if refused and _DATA in commands and Step.DATA not in refused:
                await self._end_empty_mail(refused)
        return next(iter(refused.items()), None)

    def _check_reset(self, step: Step) -> None:
        if step is Step.RSET:
            self._connection.abort()
            raise StaleSession

    async def _end_empty_mail(self, refused: dict[Step, Reply]) -> None:
        """End the text that the server waits for although it refused the mail (RFC 2920, 3.1).

        With a lone dot, which cannot be taken for a mail where no recipient was accepted.
        """
        if Step.RCPT not in refused:
            self._connection.abort()
            return
        try:
            self._connection.write(_DOT, replies=1)
            async with asyncio.timeout(_EMPTY_MAIL_TIMEOUT_S):
                await self._connection.reply()
        except (ConnectionLost, ProtocolError, TimeoutError):
            self._connection.abort()

    async def _write_text(self, mail: Mail) -> Outcome | None:
        """Write the text and its final dot; returns the outcome if the server replied before."""
        if mail.message.size <= _SHORT_TEXT:
            self._write_dot(mail, _stuffed(bytes(mail.message)) + _DOT, replies=1)
            return None
        replies = 1
        for chunk in mail.message.chunks():
            self._connection.write(_stuffed(chunk), replies=replies)
            replies = 0
            await self._connection.drain()
            if self._connection.has_reply:
                reply = await self._connection.reply()
                self._connection.abort()
                return self._rules.outcome(Step.DOT, reply)
            await asyncio.sleep(0)  # a local server takes a whole file without a wait
        self._write_dot(mail, _DOT, replies=0)
        return None

    def _write_dot(self, mail: Mail, data: bytes, *, replies: int) -> None:
        """Write bytes that end with the final dot. Raises ConnectionLost if none of it is out."""
        self._connection.write(data, replies=replies)
        mail.may_be_sent = True

    def _final(self, reply: Reply) -> Outcome:
        """The outcome of the reply to the final dot: only it confirms that the mail was taken."""
        if reply.code == _CLOSING or reply.code // 100 not in _FINAL_DIGITS:
            self._connection.close()  # its replies may be out of step with our commands
        if reply.code // 100 not in _FINAL_DIGITS:
            return outcome("ambiguous", str(reply.code), reply.text)
        if not reply.is_positive:
            return self._outcome(Step.DOT, reply)
        return outcome("accepted", full_code(reply), reference=reply.text)

    def _mail_from(self, mail: Mail) -> bytes:
        command = b"MAIL FROM:<" + mail.sender.spec.encode() + b">"
        if mail.is_utf8:
            command += b" SMTPUTF8"
        if mail.is_8bit:
            command += b" BODY=8BITMIME"
        if self._offers_dsn:
            command += f" ENVID={mail.id}.{mail.claim}".encode("ascii")
        return command + b"\r\n"


def _rcpt_to(mailbox: Mailbox) -> bytes:
    return b"RCPT TO:<" + mailbox.spec.encode() + b">\r\n"


def _is_expected(step: Step, reply: Reply) -> bool:
    return reply.code == _GO_AHEAD if step is Step.DATA else reply.is_positive


def _stuffed(lines: bytes) -> bytes:
    """Whole lines as DATA needs them: leading dots doubled (RFC 5321 4.5.2).

    All lines must end in CRLF.
    """
    stuffed = lines.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed
