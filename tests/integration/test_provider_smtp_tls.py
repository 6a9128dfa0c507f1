"""STARTTLS, TLS and AUTH against a real mail server with a self-signed certificate."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from notifier.adapters.providers.smtp.checkup import check_smtp
from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Accepted, Misconfigured, Outcome
from notifier.ports.provider import Envelope
from tests.integration.closed_door import closed_door
from tests.integration.mail_server import MailServer
from tests.integration.raw_servers import RawServer, open_raw

PAUSE_S = 5.0  # sendmail's greet_pause

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
    path = tmp_path / "localhost.pem"
    path.write_text(PEM)
    return path


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
    async with MailServer(certificate=certificate, password="right").open() as port:
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
    async with MailServer(certificate=certificate, implicit_tls=True).open() as port:
        settings = SmtpSettings(
            host="localhost", port=port, security="tls", ca_file=str(certificate)
        )
        assert isinstance(await outcome_of(settings), Accepted)


async def test_a_wrong_password_spends_no_try(certificate: Path) -> None:
    async with MailServer(certificate=certificate, password="right").open() as port:
        settings = SmtpSettings(
            host="localhost",
            port=port,
            security="starttls",
            ca_file=str(certificate),
            username="me",
            password="wrong",
        )
        outcome = await outcome_of(settings)
    assert outcome == Misconfigured(code="535 5.7.8", detail=outcome.detail, is_credentials=True)


async def test_a_missing_password_spends_no_try(certificate: Path) -> None:
    async with MailServer(certificate=certificate, password="right").open() as port:
        outcome = await outcome_of(SmtpSettings(host="localhost", port=port))
    assert outcome == Misconfigured(code="530 5.7.0", detail=outcome.detail, is_credentials=True)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_an_unknown_certificate_spends_no_try(certificate: Path, security: str) -> None:
    async with MailServer(certificate=certificate, implicit_tls=security == "tls").open() as port:
        settings = (
            SmtpSettings(host="localhost", port=port, security="tls")
            if security == "tls"
            else SmtpSettings(host="localhost", port=port, security="starttls")
        )
        outcome = await outcome_of(settings)
    assert outcome == Misconfigured(code="tls_certificate", detail=outcome.detail)


async def test_a_certificate_for_another_host_spends_no_try(certificate: Path) -> None:
    async with MailServer(certificate=certificate).open() as port:
        settings = SmtpSettings(
            host="127.0.0.1", port=port, security="starttls", ca_file=str(certificate)
        )
        outcome = await outcome_of(settings)
    assert outcome == Misconfigured(code="tls_certificate", detail=outcome.detail)


async def test_a_mail_is_not_sent_unencrypted_if_starttls_is_not_offered() -> None:
    async with MailServer().open() as port:
        settings = SmtpSettings(host="localhost", port=port, security="starttls")
        outcome = await outcome_of(settings)
    assert outcome == Misconfigured(code="unsupported", detail=outcome.detail)


async def test_a_password_that_the_server_cannot_check_is_an_error(
    certificate: Path,
) -> None:
    async with MailServer(certificate=certificate).open() as port:  # AUTH only after STARTTLS
        settings = SmtpSettings(host="localhost", port=port, username="me", password="right")
        outcome = await outcome_of(settings)
    assert outcome == Misconfigured(code="unsupported", detail=outcome.detail)


async def test_a_server_that_does_not_start_with_tls_is_named_in_the_code() -> None:
    async with MailServer().open() as port:
        settings = SmtpSettings(host="localhost", port=port, security="tls")
        outcome = await outcome_of(settings)
        finding = await check_smtp("smtp", settings)
    assert (outcome.name, outcome.code) == ("misconfigured", "tls_not_expected")
    assert 'set security = "starttls"' in finding.finding
    assert "security" in finding.fix


async def test_a_server_without_a_tls_that_we_support_spends_no_try(certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")
    with closed_door(context) as port:
        settings = SmtpSettings(host="localhost", port=port, security="tls")
        outcome = await outcome_of(settings)
        finding = await check_smtp("smtp", settings)
    assert (outcome.name, outcome.code) == ("misconfigured", "tls")
    assert "TLS" in finding.fix


async def test_a_server_that_pauses_before_its_greeting_hears_nothing_meanwhile() -> None:
    raw, early = RawServer(), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_S):
                early.append(await reader.read(100))
        writer.write(b"220 ready\r\n")
        while line := await reader.readline():
            writer.write(b"354 go\r\n" if line.startswith(b"DATA") else b"250 ok\r\n")
            if line.startswith(b"DATA"):
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 ok\r\n")

    async with open_raw(serve, raw):
        outcome = await outcome_of(SmtpSettings(host="127.0.0.1", port=raw.port, timeout_s=20.0))
    assert (outcome.name, early, raw.connections) == ("accepted", [], 1)


@pytest.mark.parametrize("security", ["none", "starttls"])
async def test_a_server_that_starts_with_tls_is_named_in_the_code(
    certificate: Path, security: Literal["none", "starttls"]
) -> None:
    async with MailServer(certificate=certificate, implicit_tls=True).open() as port:
        settings = SmtpSettings(host="localhost", port=port, security=security)
        outcome = await outcome_of(settings)
        finding = await check_smtp("smtp", settings)
    assert (outcome.name, outcome.code) == ("misconfigured", "tls_expected")
    assert 'set security = "tls"' in finding.finding
    assert "security" in finding.fix
