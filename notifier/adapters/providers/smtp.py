"""Email over SMTP (RFC 5321), with sessions that are reused.

Nothing is sent twice inside one send: a mail goes to a second session only if the first one had
died before any of the mail's text left.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException, SMTPResponseException

from notifier.adapters.providers.settings import SmtpSettings
from notifier.adapters.providers.smtp_connection import Connection, Mail, Stale, open_connection
from notifier.adapters.providers.smtp_message import Mailbox, Sender, Unsendable, compose
from notifier.adapters.providers.smtp_pool import NoSlot, Pool
from notifier.adapters.providers.smtp_replies import OPENING, SIGNING_IN, reply_outcome
from notifier.adapters.providers.verdict import outcome
from notifier.domain.errors import ConfigError
from notifier.domain.outcome import Outcome, Unavailable
from notifier.ports.provider import Envelope


@asynccontextmanager
async def open_smtp(name: str, settings: SmtpSettings) -> AsyncIterator[SmtpProvider]:
    """An SMTP provider. Connects at the first send. Raises ConfigError for unusable settings."""
    provider = SmtpProvider(name, settings)
    try:
        yield provider
    finally:
        provider.close()


class SmtpProvider:
    """See `ports.provider.Provider`."""

    def __init__(self, name: str, settings: SmtpSettings) -> None:
        self._name = name
        self._settings = settings
        self._sender = _sender(name, settings)
        self._bounces = _bounces(name, settings, self._sender)
        self._tls = _tls_context(name, settings)
        self._ehlo_name = settings.ehlo_name or socket.gethostname()
        self._pool = Pool(self._open, most=settings.max_connections, idle_s=settings.idle_s)

    @property
    def name(self) -> str:
        """The name it has in the settings."""
        return self._name

    async def send(self, envelope: Envelope) -> Outcome:
        """One mail to one recipient."""
        try:
            mail = self._mail(envelope)
        except Unsendable as error:
            return outcome("refused", error.code, error.detail)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._deliver(mail)
        except TimeoutError:
            return outcome("ambiguous" if mail.is_out else "unavailable", "timeout")

    async def look(self) -> Outcome | None:
        """Open a session and end it without a mail: what stands in the way, or None."""
        try:
            connection = await self._open()
        except (SMTPException, OSError) as error:
            return lost_outcome(error, is_out=False)
        connection.close()
        return None

    def close(self) -> None:
        """End the idle sessions."""
        self._pool.close()

    def _mail(self, envelope: Envelope) -> Mail:
        to = Mailbox.parse(envelope.recipient)
        message = compose(envelope, to, self._sender, datetime.now(UTC))
        return Mail(self._bounces, to, message, f"{envelope.id}.{envelope.claim}")

    async def _deliver(self, mail: Mail) -> Outcome:
        try:
            return await self._over_one_session(mail, fresh=False)
        except Stale:
            return await self._over_one_session(mail, fresh=True)

    async def _over_one_session(self, mail: Mail, *, fresh: bool) -> Outcome:
        try:
            async with self._pool.connection(fresh=fresh) as connection:
                return await connection.send(mail)
        except NoSlot:
            return Unavailable(
                code="no_connection", detail="all sessions busy", spends=False, is_local=True
            )
        except (SMTPException, OSError) as error:
            return lost_outcome(error, is_out=mail.is_out)

    async def _open(self) -> Connection:
        settings = self._settings
        client = SMTP(
            hostname=settings.host,
            port=settings.port,
            local_hostname=self._ehlo_name,
            use_tls=settings.security == "tls",
            start_tls=False,
            tls_context=self._tls,
            timeout=None,
        )
        login = (settings.username, settings.password) if settings.username else None
        return await open_connection(client, security=settings.security, tls=self._tls, login=login)


def lost_outcome(error: SMTPException | OSError, *, is_out: bool) -> Outcome:
    """What a session that failed instead of answering means for the mail it carried."""
    if is_out:
        is_garbage = isinstance(error, SMTPResponseException)
        return outcome("ambiguous", "protocol" if is_garbage else "disconnected", str(error))
    certificate = _cause(error, ssl.SSLCertVerificationError)
    if certificate is not None:
        return outcome("credentials", "tls_certificate", str(certificate))
    match error:
        case SMTPAuthenticationError():
            return reply_outcome(error.code, error.message, SIGNING_IN, garbage="credentials")
        case SMTPResponseException():
            return reply_outcome(error.code, error.message, OPENING)
        case ConnectionError() | OSError():
            return outcome("unavailable", "connection", str(error))
        case SMTPException():  # STARTTLS or AUTH asked for, and not offered
            return outcome("credentials", "unsupported", str(error))


def _cause(error: BaseException | None, kind: type[Exception]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error


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


def _bounces(name: str, settings: SmtpSettings, sender: Sender) -> Mailbox:
    if not settings.envelope_sender:
        return sender.mailbox
    try:
        return Mailbox.parse(settings.envelope_sender)
    except Unsendable as error:
        raise ConfigError(str(error), key=f"providers.{name}.envelope_sender") from error


def _tls_context(name: str, settings: SmtpSettings) -> ssl.SSLContext | None:
    if settings.security == "none":
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file or None)
    except OSError as error:
        raise ConfigError(
            f"expected a file of CA certificates: {error}", key=f"providers.{name}.ca_file"
        ) from error
