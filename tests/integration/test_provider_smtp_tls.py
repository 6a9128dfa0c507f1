"""STARTTLS, TLS and AUTH against a real mail server with a self-signed certificate."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Accepted, Outcome, Unavailable
from notifier.ports.provider import Envelope

# Self-signed for DNS:localhost, of no use but here; valid for a hundred years.
PEM = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgE/wzikxZOV2261Q5
X9gtVq/r7nPia1RNLWwD6S9uSmKhRANCAASQex5hdiIJlVPBrAJqOsFHjP5tt296
olFmcbrbspHoAhJfelk1TaEQtC9eaCG+Kfm+QiWLRJjLG5ZPkafcCUqd
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIULShN/ZoYQl5L+EGGlVGht8TuFzgwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjE2NTExMloYDzIxMjYxMDI5
MTY1MTEyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASQex5hdiIJlVPBrAJqOsFHjP5tt296olFmcbrbspHoAhJfelk1TaEQ
tC9eaCG+Kfm+QiWLRJjLG5ZPkafcCUqdo2kwZzAdBgNVHQ4EFgQUtxMhyLXEUrrD
ZOCkRFm21Dn0Av4wHwYDVR0jBBgwFoAUtxMhyLXEUrrDZOCkRFm21Dn0Av4wDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIhAMxsbIfsBzOx0fWTAu26L39LbVqcYl4q+x0peDuydi4vAiBpgxOcUBOz
5JoxcfT/ILfWMfwBk1xYUP+iZKPH0pIiMw==
-----END CERTIFICATE-----
"""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with the key and the certificate."""
    made = tmp_path / "localhost.pem"
    made.write_text(PEM)
    return made


class Handler:
    """Accepts every mail."""

    async def handle_DATA(self, *_: object) -> str:  # noqa: N802 aiosmtpd's name for a hook
        return "250 2.0.0 accepted"


def _authenticate(
    _server: object, _session: object, _envelope: object, how: str, data: object
) -> AuthResult:
    is_known = isinstance(data, LoginPassword) and data.password == b"right"
    return AuthResult(success=is_known and how != "", handled=False)


@asynccontextmanager
async def open_server(
    certificate: Path, *, implicit: bool = False, auth: bool = False, tls: bool = True
) -> AsyncIterator[int]:
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    sessions: list[SMTP] = []

    def session() -> SMTP:
        made = SMTP(
            Handler(),
            hostname="localhost",
            tls_context=context if tls and not implicit else None,
            auth_required=auth,
            auth_require_tls=tls and not implicit,
            authenticator=_authenticate,
            loop=asyncio.get_running_loop(),
        )
        sessions.append(made)
        return made

    server = await asyncio.get_running_loop().create_server(
        session, "127.0.0.1", 0, ssl=context if implicit else None
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        handlers = [each._handler_coroutine for each in sessions if each._handler_coroutine]
        for each in sessions:
            if each.transport is not None:
                each.transport.close()
        for task in handlers:
            task.cancel()  # aiosmtpd waits forever for a handshake that failed
        if handlers:
            await asyncio.wait(handlers)


async def outcome_of(settings: SmtpSettings) -> Outcome:
    envelope = Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=QueueKey.parse("email.high"),
        recipient="ann@example.com",
        content={"subject": "Hi", "body": "there"},
    )
    async with open_smtp("smtp", settings) as provider:
        first = await provider.send(envelope)
        if isinstance(first, Accepted):
            assert isinstance(await provider.send(envelope), Accepted)
        return first


async def test_a_mail_is_sent_over_starttls_with_a_password(certificate: Path) -> None:
    async with open_server(certificate, auth=True) as port:
        settings = SmtpSettings(
            host="localhost",
            port=port,
            security="starttls",
            ca_file=str(certificate),
            username="me",
            password="right",
        )
        assert isinstance(await outcome_of(settings), Accepted)


async def test_a_mail_is_sent_over_implicit_tls(certificate: Path) -> None:
    async with open_server(certificate, implicit=True) as port:
        settings = SmtpSettings(
            host="localhost", port=port, security="tls", ca_file=str(certificate)
        )
        assert isinstance(await outcome_of(settings), Accepted)


async def test_a_wrong_password_spends_no_try(certificate: Path) -> None:
    async with open_server(certificate, auth=True) as port:
        settings = SmtpSettings(
            host="localhost",
            port=port,
            security="starttls",
            ca_file=str(certificate),
            username="me",
            password="wrong",
        )
        outcome = await outcome_of(settings)
    assert outcome == Unavailable(code="535 5.7.8", detail=outcome.detail, spends=False)


async def test_a_missing_password_spends_no_try(certificate: Path) -> None:
    async with open_server(certificate, auth=True) as port:
        outcome = await outcome_of(SmtpSettings(host="localhost", port=port))
    assert outcome == Unavailable(code="530 5.7.0", detail=outcome.detail, spends=False)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_an_unknown_certificate_spends_no_try(certificate: Path, security: str) -> None:
    async with open_server(certificate, implicit=security == "tls") as port:
        settings = (
            SmtpSettings(host="localhost", port=port, security="tls")
            if security == "tls"
            else SmtpSettings(host="localhost", port=port, security="starttls")
        )
        outcome = await outcome_of(settings)
    assert outcome == Unavailable(code="tls_certificate", detail=outcome.detail, spends=False)


async def test_a_certificate_for_another_host_spends_no_try(certificate: Path) -> None:
    async with open_server(certificate) as port:
        settings = SmtpSettings(
            host="127.0.0.1", port=port, security="starttls", ca_file=str(certificate)
        )
        outcome = await outcome_of(settings)
    assert outcome == Unavailable(code="tls_certificate", detail=outcome.detail, spends=False)


async def test_a_mail_is_not_sent_unencrypted_if_starttls_is_not_offered(
    certificate: Path,
) -> None:
    async with open_server(certificate, tls=False) as port:
        settings = SmtpSettings(host="localhost", port=port, security="starttls")
        outcome = await outcome_of(settings)
    assert outcome == Unavailable(code="unsupported", detail=outcome.detail, spends=False)


async def test_a_password_that_the_server_cannot_check_is_an_error(
    certificate: Path,
) -> None:
    async with open_server(certificate) as port:  # AUTH only after STARTTLS
        settings = SmtpSettings(host="localhost", port=port, username="me", password="right")
        outcome = await outcome_of(settings)
    assert outcome == Unavailable(code="unsupported", detail=outcome.detail, spends=False)


async def test_plain_text_where_tls_is_expected_is_unavailable(certificate: Path) -> None:
    async with open_server(certificate, tls=False) as port:
        outcome = await outcome_of(SmtpSettings(host="localhost", port=port, security="tls"))
    assert outcome.name == "unavailable"
