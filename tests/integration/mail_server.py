"""A real mail server (aiosmtpd) with an optional password and certificate."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """How the server behaves.

    With a `password` clients must log in. With a `certificate` (a file that holds its key too) it
    offers STARTTLS, or speaks TLS from the start if `implicit_tls`.
    """

    password: str = ""
    certificate: Path | None = None
    implicit_tls: bool = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Serve during the block, and yield the port."""
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        sessions: list[SMTP] = []

        def new_session() -> SMTP:
            sessions.append(self._session())
            return sessions[-1]

        server = await asyncio.get_running_loop().create_server(
            new_session, "127.0.0.1", 0, ssl=self._tls_context() if self.implicit_tls else None
        )
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await _end(sessions)

    def _session(self) -> SMTP:
        offers_starttls = self.certificate is not None and not self.implicit_tls
        return SMTP(
            _AcceptAll(),
            hostname="localhost",
            tls_context=self._tls_context() if offers_starttls else None,
            auth_required=bool(self.password),
            auth_require_tls=offers_starttls,
            authenticator=self._authenticate,
            loop=asyncio.get_running_loop(),
        )

    def _tls_context(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        return context

    def _authenticate(
        self, _server: object, _session: object, _envelope: object, _method: str, data: object
    ) -> AuthResult:
        is_accepted = isinstance(data, LoginPassword) and data.password == self.password.encode()
        return AuthResult(success=is_accepted, handled=False)


class _AcceptAll:
    """Accepts every mail."""

    async def handle_DATA(self, *_: object) -> str:  # noqa: N802 aiosmtpd's name for a hook
        return "250 2.0.0 accepted"


async def _end(sessions: list[SMTP]) -> None:
    handlers = [each._handler_coroutine for each in sessions if each._handler_coroutine]
    for session in sessions:
        if session.transport is not None:
            session.transport.close()
    for handler in handlers:
        handler.cancel()  # aiosmtpd waits forever for a handshake that failed
    if handlers:
        await asyncio.wait(handlers)
