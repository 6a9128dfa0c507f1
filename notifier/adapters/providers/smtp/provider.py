"""A provider that sends email over SMTP (RFC 5321), with sessions that are reused.

One `send` never sends a mail twice: a second session is used only if the first was lost before any
of the mail's text was sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException, SMTPResponseException

from notifier.adapters.providers.smtp.message import Mailbox, Sender, Unsendable, compose
from notifier.adapters.providers.smtp.replies import OPENING, SIGNING_IN, reply_outcome
from notifier.adapters.providers.smtp.session import Mail, Session, StaleSession, open_session
from notifier.adapters.providers.smtp.session_pool import NoFreeSession, SessionPool
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.adapters.providers.verdict import outcome
from notifier.domain.errors import ConfigError
from notifier.domain.outcome import Outcome, Unavailable
from notifier.ports.provider import Envelope


@asynccontextmanager
async def open_smtp(name: str, settings: SmtpSettings) -> AsyncIterator[SmtpProvider]:
    """An SMTP provider; it connects at the first send. Raises ConfigError for unusable settings."""
    provider = SmtpProvider(name, settings)
    try:
        yield provider
    finally:
        provider.close()


class SmtpProvider:
    """Implements ports.provider.Provider."""

    def __init__(self, name: str, settings: SmtpSettings) -> None:
        self._name = name
        self._settings = settings
        self._sender = _sender(name, settings)
        self._envelope_sender = _envelope_sender(name, settings, self._sender)
        self._tls = _tls_context(name, settings)
        self._ehlo_name = settings.ehlo_name or socket.gethostname()
        self._pool = SessionPool(self, limit=settings.max_connections, idle_s=settings.idle_s)

    @property
    def name(self) -> str:
        """Implements ports.provider.Provider."""
        return self._name

    async def send(self, envelope: Envelope) -> Outcome:
        """Implements ports.provider.Provider."""
        try:
            mail = self._mail(envelope)
        except Unsendable as error:
            return outcome("refused", error.code, error.detail)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._deliver(mail)
        except TimeoutError:
            return outcome("ambiguous" if mail.may_be_sent else "unavailable", "timeout")

    async def check_session(self) -> Outcome | None:
        """Open a session and end it without a mail; returns what failed, or None."""
        try:
            session = await self.open_session()
        except (SMTPException, OSError) as error:
            return failure_outcome(error, may_be_sent=False)
        session.close()
        return None

    def close(self) -> None:
        """End the idle sessions."""
        self._pool.close()

    def _mail(self, envelope: Envelope) -> Mail:
        to = Mailbox.parse(envelope.recipient)
        message = compose(envelope, to, self._sender, datetime.now(UTC))
        return Mail(self._envelope_sender, to, message, f"{envelope.id}.{envelope.claim}")

    async def _deliver(self, mail: Mail) -> Outcome:
        try:
            return await self._deliver_over_session(mail, fresh=False)
        except StaleSession:
            return await self._deliver_over_session(mail, fresh=True)

    async def _deliver_over_session(self, mail: Mail, *, fresh: bool) -> Outcome:
        try:
            async with self._pool.session(fresh=fresh) as session:
                return await session.send(mail)
        except NoFreeSession:
            return Unavailable(code="no_connection", detail="all sessions busy", is_local=True)
        except (SMTPException, OSError) as error:
            return failure_outcome(error, may_be_sent=mail.may_be_sent)

    async def open_session(self) -> Session:
        """Implements session_pool.SessionOpener."""
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
        return await open_session(client, security=settings.security, tls=self._tls, login=login)


def failure_outcome(error: SMTPException | OSError, *, may_be_sent: bool) -> Outcome:
    """The outcome of a mail whose session failed without a reply to it."""
    if may_be_sent:
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
        case SMTPException():  # the server does not offer STARTTLS or AUTH
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


def _envelope_sender(name: str, settings: SmtpSettings, sender: Sender) -> Mailbox:
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
