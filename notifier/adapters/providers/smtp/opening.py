"""Opens SMTP sessions with aiosmtplib: connect, EHLO, STARTTLS and AUTH."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeVar

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from notifier.adapters.providers.smtp.connection import take_over
from notifier.adapters.providers.smtp.replies import ReplyRules, Step, is_about_connections
from notifier.adapters.providers.smtp.reply import Reply
from notifier.adapters.providers.smtp.session import Session
from notifier.adapters.providers.verdict import outcome
from notifier.domain.outcome import Outcome

GREETING_DELAY_S: Final = 8.0
"""After this long without a greeting the server is asked whether it expects TLS.

Some servers wait before they greet, and reject a client that speaks before the greeting as a
spammer: Postfix's postscreen waits 6 s, sendmail's greet_pause usually 5 s.
"""
_TLS_TIMEOUT_S: Final = 2.0
IPV6: Final = 6
_CLOSING: Final = 421
_PLAIN_ANSWERED: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})
"""What OpenSSL calls an answer that is no TLS."""
_NOT_AGREED: Final = re.compile(
    r"ALERT_(HANDSHAKE_FAILURE|PROTOCOL_VERSION|INSUFFICIENT_SECURITY)|UNRECOGNIZED_NAME"
    r"|UNSUPPORTED_PROTOCOL|KEY_TOO_SMALL|LEGACY_RENEGOTIATION|WRONG_SIGNATURE_TYPE"
)
"""What OpenSSL calls a server that supports no TLS that we do."""

T = TypeVar("T")


class OpeningFailed(Exception):
    """No session could be opened; `outcome` is that of the mail.

    `is_connection_limit` means that the server has too many connections, by its words.
    `may_be_limit` means that this is likely if it serves other sessions of ours at this moment: it
    refused the connection, closed it without a greeting, or greeted with 421.
    """

    def __init__(
        self, result: Outcome, *, is_connection_limit: bool = False, may_be_limit: bool = False
    ) -> None:
        super().__init__(result.code)
        self.outcome = result
        self.is_connection_limit = is_connection_limit
        self.may_be_limit = may_be_limit or is_connection_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where and how sessions are opened."""

    host: str
    port: int
    security: str
    tls: ssl.SSLContext | None
    ehlo_name: str
    """Empty: the address of the connection as a literal (RFC 5321, 4.1.3)."""
    login: tuple[str, str] | None
    rules: ReplyRules
    greeting_delay_s: float = GREETING_DELAY_S

    async def open(self) -> Session:
        """Open a session that is ready for mail. Raises OpeningFailed."""
        client = SMTP(
            hostname=self.host,
            port=self.port,
            local_hostname=self.ehlo_name or "localhost",  # unused: see _prepare
            use_tls=self.security == "tls",
            start_tls=False,
            tls_context=self.tls,
            timeout=None,
        )
        try:
            await self._connect(client)
            await self._prepare(client)
        except BaseException:
            client.close()
            raise
        if client.transport is None:
            raise OpeningFailed(outcome("unavailable", "connection", "closed by the server"))
        return Session(
            take_over(client.transport),
            extensions=frozenset(client.esmtp_extensions),
            rules=self.rules,
            opened_at=asyncio.get_running_loop().time(),
        )

    async def _connect(self, client: SMTP) -> None:
        if self.security == "tls":
            await self._at(Step.GREETING, client.connect())
            return
        async with asyncio.TaskGroup() as group:
            connecting = group.create_task(self._failure_of_connect(client), name="smtp connect")
            await asyncio.wait({connecting}, timeout=self.greeting_delay_s)
            if not connecting.done() and await _speaks_tls(self.host, self.port):
                connecting.cancel()
                detail = 'the server expects TLS from the start: set security = "tls"'
                failure: OpeningFailed | None = OpeningFailed(
                    outcome("misconfigured", "tls_expected", detail)
                )
            else:
                failure = await connecting
        if failure is not None:
            raise failure

    async def _failure_of_connect(self, client: SMTP) -> OpeningFailed | None:
        try:
            await self._at(Step.GREETING, client.connect())
        except OpeningFailed as failure:
            return failure
        return None

    async def _prepare(self, client: SMTP) -> None:
        client.local_hostname = self.ehlo_name or _address_literal(client)
        if self.security == "starttls":
            await self._at(Step.EHLO, _hello(client))
            await self._at(Step.STARTTLS, client.starttls(tls_context=self.tls))
        await self._at(Step.EHLO, _hello(client))
        if self.login is not None:
            await self._at(Step.AUTH, _sign_in(client, *self.login))

    async def _at(self, step: Step, call: Awaitable[T]) -> T:
        """Await a step of the opening. Raises OpeningFailed."""
        try:
            return await call
        except (SMTPException, OSError, ssl.SSLError) as error:
            raise self._failed(step, error) from error

    def _failed(self, step: Step, error: SMTPException | OSError) -> OpeningFailed:
        tls_failure = _cause(error, ssl.SSLError)
        if isinstance(tls_failure, ssl.SSLError):
            return OpeningFailed(_tls_outcome(tls_failure))
        if isinstance(error, SMTPResponseException) and error.code > 0:
            reply = Reply(error.code, error.message)
            return OpeningFailed(
                self.rules.outcome(step, reply),
                is_connection_limit=is_about_connections(step, reply),
                may_be_limit=step is Step.GREETING and reply.code == _CLOSING,
            )
        match error:
            case SMTPAuthenticationError():
                return OpeningFailed(outcome("credentials", "protocol", str(error)))
            case SMTPResponseException():
                return OpeningFailed(outcome("unavailable", "protocol", error.message))
            case OSError():
                is_early = step is Step.GREETING
                result = outcome("unavailable", "connection", str(error))
                return OpeningFailed(result, may_be_limit=is_early)
            case _:  # the server does not offer STARTTLS or AUTH
                return OpeningFailed(outcome("misconfigured", "unsupported", str(error)))


def _tls_outcome(error: ssl.SSLError) -> Outcome:
    if isinstance(error, ssl.SSLCertVerificationError):
        return outcome("misconfigured", "tls_certificate", str(error))
    if error.reason in _PLAIN_ANSWERED:
        detail = 'the server does not speak TLS from the start: set security = "starttls" or "none"'
        return outcome("misconfigured", "tls_not_expected", detail)
    is_agreed = not _NOT_AGREED.search(error.reason or "")
    return outcome("unavailable" if is_agreed else "misconfigured", "tls", str(error))


async def _speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake succeeds at once, with whatever certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_TLS_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.transport.abort()
            return True
    return False


def _address_literal(client: SMTP) -> str:
    address = ip_address(str(client.get_transport_info("sockname")[0]).partition("%")[0])
    return f"[IPv6:{address}]" if address.version == IPV6 else f"[{address}]"


async def _hello(client: SMTP) -> None:
    if not client.is_ehlo_or_helo_needed:
        return
    try:
        await client.ehlo()
    except SMTPHeloError as error:
        if not client.is_connected or error.code == _CLOSING:
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


def _cause(error: BaseException | None, kind: type[Exception]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error
