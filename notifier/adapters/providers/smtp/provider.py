"""A provider that sends email over SMTP (RFC 5321), with sessions that are reused.

One `send` never sends a mail twice to anyone: a second session is used only if the first was lost
before any of the mail's text was sent, and an accepted mail is sent again only to copies that were
refused for now.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final

import msgspec

from notifier.adapters.providers.connection_limit import ConnectionLimit
from notifier.adapters.providers.settings import check_login
from notifier.adapters.providers.smtp.addresses import Mailbox, Unsendable
from notifier.adapters.providers.smtp.connection import ConnectionLost
from notifier.adapters.providers.smtp.message import (
    Recipients,
    Sender,
    compose,
    sender_of,
    suppressed_copies,
)
from notifier.adapters.providers.smtp.opening import GREETING_DELAY_S, OpeningFailed, Server
from notifier.adapters.providers.smtp.replies import ReplyPatternError, ReplyRules
from notifier.adapters.providers.smtp.reply import ProtocolError
from notifier.adapters.providers.smtp.session import Mail, Session, StaleSession
from notifier.adapters.providers.smtp.session_pool import NoFreeSession, SessionPool
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.adapters.providers.smtp.whole_mail import compose_whole, is_whole
from notifier.adapters.providers.verdict import outcome, printable, unsendable
from notifier.domain.domain_names import InvalidDomain, ascii_domain
from notifier.domain.errors import ConfigError
from notifier.domain.outcome import (
    MAX_DETAIL_LENGTH,
    Accepted,
    Deferred,
    Outcome,
    Refused,
    Unavailable,
)
from notifier.lifecycle import TimeLimit
from notifier.ports.provider import Envelope

FREE_TEXT_BYTES: Final = 256 * 1024
LEAST_BYTES_PER_S: Final = 128 * 1024
"""A server that takes a large mail slower than this gets none."""
MIN_GREETING_DELAY_S: Final = 3.0
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+")
_EHLO_NAME: Final = re.compile(rf"{_HOST.pattern}|\[[A-Za-z0-9.:-]+\]")  # RFC 5321 4.1.3


@asynccontextmanager
async def open_smtp(name: str, settings: SmtpSettings) -> AsyncIterator[SmtpProvider]:
    """An SMTP provider; it connects at the first send. Raises ConfigError for unusable settings."""
    provider = SmtpProvider(name, settings)
    try:
        yield provider
    finally:
        provider.close()


class SmtpProvider:
    """Implements ports.provider.Provider and ports.provider.LimitsConnections."""

    def __init__(self, name: str, settings: SmtpSettings) -> None:
        self._name = name
        self._sender = _sender(name, settings)
        self._envelope_sender = _envelope_sender(name, settings)
        self._domain = settings.domain
        self._server = _server(name, settings)
        self._limit = ConnectionLimit(name, settings.max_connections)
        self._pool = SessionPool(self._server, limit=self._limit, idle_s=settings.idle_s)
        self._longest_send_s = settings.longest_send_s
        self._text_limit = TimeLimit(settings.timeout_s)
        self._dot_limit = TimeLimit(settings.final_timeout_s)

    @property
    def name(self) -> str:
        """Implements ports.provider.Provider."""
        return self._name

    @property
    def connection_limit(self) -> int:
        """Implements ports.provider.LimitsConnections."""
        return self._limit.connections

    async def send(self, envelope: Envelope) -> Outcome:
        """Implements ports.provider.Provider."""
        try:
            mail = self._mail(envelope)
        except Unsendable as error:
            return unsendable(error.code, error.detail)
        ends_at = asyncio.get_running_loop().time() + self._longest_send_s
        result = await self._send(mail)
        if mail.deferred_copies and isinstance(result, Accepted):
            # Whatever ends this, the mail was accepted: a caller that did not learn it would send
            # it again. A caller that was cancelled sees that by its task.
            with suppress(asyncio.CancelledError, Exception):
                await self._send_deferred_copies(mail, ends_at)
        return _with_missing_copies(result, mail)

    async def _send(self, mail: Mail) -> Outcome:
        try:
            begun = await self._limit_of(mail).run(self._begin(mail))
        except TimeoutError:
            return outcome("ambiguous" if mail.may_be_sent else "unavailable", "timeout")
        except NoFreeSession as error:
            return Unavailable(code="no_connection", detail=str(error), is_local=True)
        except OpeningFailed as error:
            return error.outcome
        except (ConnectionLost, ProtocolError) as error:
            return _lost(error, mail)
        return await self._finish(mail, begun) if isinstance(begun, Session) else begun

    async def _send_deferred_copies(self, mail: Mail, ends_at: float) -> None:
        """Send an accepted mail again for copies that were refused for now, until none is left.

        The first of them is the recipient of a transaction: if it is refused, the next one is. A
        server may take fewer recipients of one mail (RFC 5321, 4.5.3.1.10). Raises TimeoutError at
        `ends_at` by the event loop's clock, before the worker takes the whole send for lost.
        """
        async with asyncio.timeout_at(ends_at):
            while mail.deferred_copies:
                again = mail.for_deferred_copies()
                result = await self._send(again)
                if isinstance(result, Accepted):
                    mail.deferred_copies = again.deferred_copies
                    mail.refused_copies |= again.refused_copies
                elif isinstance(result, Deferred | Refused) and not again.may_be_sent:
                    del mail.deferred_copies[again.to]
                    mail.refused_copies[again.to] = result.code
                else:
                    return

    def _limit_of(self, mail: Mail) -> TimeLimit:
        """The limit of the mail up to its final dot: longer for large files."""
        if mail.message.size <= FREE_TEXT_BYTES:
            return self._text_limit
        return TimeLimit(self._text_limit.seconds + mail.message.size / LEAST_BYTES_PER_S)

    async def check_session(self) -> Outcome | None:
        """Open a session and end it without a mail; returns what failed, or None."""
        try:
            session = await replace(self._server, greeting_delay_s=MIN_GREETING_DELAY_S).open()
        except OpeningFailed as error:
            return error.outcome
        session.close()
        return None

    def close(self) -> None:
        """End the idle sessions."""
        self._pool.close()

    def _mail(self, envelope: Envelope) -> Mail:
        if is_whole(envelope.content):
            return self._whole_mail(envelope)
        recipients = Recipients.of(envelope)
        sender = sender_of(envelope.content, self._sender, self._domain)
        return Mail(
            sender=self._envelope_sender or sender.mailbox,
            to=recipients.to,
            copies=recipients.copies,
            left_out=suppressed_copies(envelope.content),
            message=compose(envelope, recipients, sender, datetime.now(UTC)),
            id=envelope.id,
            claim=envelope.claim,
        )

    def _whole_mail(self, envelope: Envelope) -> Mail:
        whole = compose_whole(envelope, self._domain, datetime.now(UTC))
        has_sender = "from" in envelope.content
        own = sender_of(envelope.content, self._sender, self._domain).mailbox
        return Mail(
            sender=self._envelope_sender or (own if has_sender else whole.sender),
            to=Recipients.of(envelope).to,
            message=whole.text,
            id=envelope.id,
            claim=envelope.claim,
            is_8bit=whole.is_8bit,
        )

    async def _begin(self, mail: Mail) -> Session | Outcome:
        """Send up to the final dot. Returns the session that waits for the reply, or the outcome.

        Raises NoFreeSession, OpeningFailed, ConnectionLost or ProtocolError.
        """
        try:
            return await self._begin_over_session(mail, fresh=False)
        except StaleSession:
            pass
        try:
            return await self._begin_over_session(mail, fresh=True)
        except StaleSession as error:
            raise ConnectionLost("the session could not be used") from error

    async def _begin_over_session(self, mail: Mail, *, fresh: bool) -> Session | Outcome:
        session = await self._pool.borrow(fresh=fresh)
        try:
            result = await session.begin(mail)
        except BaseException:
            self._pool.discard(session)
            raise
        if result is None:
            return session
        self._pool.give_back(session)
        return result

    async def _finish(self, mail: Mail, session: Session) -> Outcome:
        """Wait for the reply to the final dot. That has its own limit (RFC 5321, 4.5.3.2.6)."""
        try:
            result = await self._dot_limit.run(session.finish())
        except TimeoutError:
            self._pool.discard(session)
            return outcome("ambiguous", "timeout", "no reply to the final dot")
        except (ConnectionLost, ProtocolError) as error:
            self._pool.discard(session)
            return _lost(error, mail)
        except BaseException:
            self._pool.discard(session)
            raise
        self._pool.give_back(session)
        return result


def _with_missing_copies(result: Outcome, mail: Mail) -> Outcome:
    """Name the copies that were refused or left out: the mail counts by its recipient."""
    refused = mail.refused_copies | mail.deferred_copies
    if not (refused or mail.left_out) or not isinstance(result, Accepted):
        return result
    detail = "; ".join(
        (
            *(f"copy refused: {copy.spec} {code}" for copy, code in refused.items()),
            *(f"copy suppressed: {address}" for address in mail.left_out),
        )
    )
    return msgspec.structs.replace(
        result, detail=printable(detail, MAX_DETAIL_LENGTH), refused_copies=len(refused)
    )


def _lost(error: ConnectionLost | ProtocolError, mail: Mail) -> Outcome:
    """The outcome of a mail whose session was lost: see session.py."""
    is_garbage = isinstance(error, ProtocolError)
    if mail.may_be_sent:
        return outcome("ambiguous", "protocol" if is_garbage else "disconnected", str(error))
    return outcome("unavailable", "protocol" if is_garbage else "connection", str(error))


def _server(name: str, settings: SmtpSettings) -> Server:
    check_login(f"providers.{name}", settings.username, settings.password)
    try:
        rules = ReplyRules(settings.replies)
    except ReplyPatternError as error:
        key = f'providers.{name}.replies."{error.pattern}"'
        raise ConfigError(str(error), key=key) from error
    return Server(
        host=_host(name, settings.host),
        port=settings.port,
        security=settings.security,
        tls=_tls_context(name, settings),
        ehlo_name=_ehlo_name(name, settings.ehlo_name or _host_name()),
        login=(settings.username, settings.password) if settings.username else None,
        rules=rules,
        greeting_delay_s=max(MIN_GREETING_DELAY_S, min(GREETING_DELAY_S, settings.timeout_s / 2)),
    )


def _host_name() -> str:
    """This machine's name if a server may take it for a full one, otherwise nothing."""
    name = socket.gethostname()
    return name if name.isascii() and "." in name.strip(".") else ""


def _host(name: str, host: str) -> str:
    key = f"providers.{name}.host"
    ascii_host = _ascii(host, key)
    if not _HOST.fullmatch(ascii_host) and not _is_address(ascii_host):
        raise ConfigError(
            "expected a host name or an address, without scheme and port (the key port has it)",
            key=key,
        )
    return ascii_host


def _ehlo_name(name: str, ehlo_name: str) -> str:
    key = f"providers.{name}.ehlo_name"
    ascii_name = _ascii(ehlo_name, key)
    if ascii_name and not _EHLO_NAME.fullmatch(ascii_name):
        raise ConfigError("expected a name like mail.example.com or [192.0.2.1]", key=key)
    return ascii_name


def _ascii(host: str, key: str) -> str:
    try:
        return ascii_domain(host)
    except InvalidDomain as error:
        raise ConfigError(f"expected a host name: {error}", key=key) from error


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _sender(name: str, settings: SmtpSettings) -> Sender:
    try:
        return Sender.parse(settings.sender, settings.domain)
    except Unsendable as error:
        if error.code == "domain":
            raise ConfigError(str(error), key=f"providers.{name}.domain") from error
        raise ConfigError(
            f"expected a sender like Shop <shop@example.com>: {error}",
            key=f"providers.{name}.sender",
        ) from error


def _envelope_sender(name: str, settings: SmtpSettings) -> Mailbox | None:
    """Return the address of the settings for MAIL FROM; None means that of the From header."""
    if not settings.envelope_sender:
        return None
    try:
        return Mailbox.parse(settings.envelope_sender)
    except Unsendable as error:
        raise ConfigError(str(error), key=f"providers.{name}.envelope_sender") from error


def _tls_context(name: str, settings: SmtpSettings) -> ssl.SSLContext | None:
    if settings.security == "none":
        if settings.ca_file:
            raise ConfigError(
                'has no effect with security = "none"; set security to "starttls" or "tls", or '
                "remove ca_file",
                key=f"providers.{name}.ca_file",
            )
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file or None)
    except OSError as error:
        raise ConfigError(
            f"expected a file of CA certificates: {error}", key=f"providers.{name}.ca_file"
        ) from error
