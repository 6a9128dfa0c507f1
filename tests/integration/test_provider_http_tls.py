"""HTTPS, client certificates, HTTP/2 and proxies, with nginx where a real server matters."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trustme

from harness.nginx import open_nginx
from notifier.adapters.providers.http.checkup import check_http
from notifier.adapters.providers.http.provider import open_http
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Accepted, Misconfigured, Outcome, Throttled, Unavailable
from notifier.embedded.free_ports import free_ports
from notifier.ports.provider import Envelope
from tests.integration.closed_door import closed_door
from tests.integration.raw_servers import http_response, open_http_script

SITE = """\
server {{
    listen 127.0.0.1:{port} ssl{http2};
    ssl_certificate server.pem;
    ssl_certificate_key server.pem;
    {more}
    default_type application/json;
    location / {{ return 201 '{{"id": "$server_protocol $connection $ssl_client_s_dn"}}'; }}
}}
"""


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, of another one, and of a client with an encrypted key."""

    folder: Path
    authority: trustme.CA

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    @property
    def other(self) -> str:
        return str(self.folder / "other.pem")

    @property
    def client(self) -> str:
        return str(self.folder / "client.pem")

    @property
    def server(self) -> str:
        return str(self.folder / "server.pem")


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    server = authority.issue_cert("localhost")
    server.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    client = authority.issue_cert("notifier@example.com", common_name="notifier")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    return Certificates(tmp_path, authority)


def message() -> Envelope:
    return Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=QueueKey.parse("sms.high"),
        recipient="+15005550006",
        content={"body": "hi"},
    )


async def sent(url: str, **settings: Any) -> Outcome:
    http = HttpSettings(url=url, json="{}", reference="id", **settings)
    async with open_http("sms", http) as provider:
        return await provider.send(message())


@asynccontextmanager
async def tls_server(
    certificates: Certificates, *, http2: str = "", more: str = ""
) -> AsyncIterator[str]:
    (port,) = free_ports(1)
    site = SITE.format(port=port, http2=http2, more=more)
    async with open_nginx(certificates.folder, site):
        yield f"https://localhost:{port}/"


async def test_a_certificate_of_our_own_authority_is_trusted(certificates: Certificates) -> None:
    async with tls_server(certificates) as url:
        outcome = await sent(url, ca_file=certificates.ca)
    assert isinstance(outcome, Accepted)
    assert outcome.reference.startswith("HTTP/1.1 ")


@pytest.mark.parametrize("ca_file", ["", "other"])
async def test_a_certificate_that_is_not_trusted_is_our_configuration(
    certificates: Certificates, ca_file: str
) -> None:
    async with tls_server(certificates) as url:
        outcome = await sent(url, ca_file=certificates.other if ca_file else "")
    assert isinstance(outcome, Misconfigured)
    assert (outcome.code, outcome.is_credentials) == ("tls_certificate", False)


async def test_a_certificate_of_another_name_is_not_trusted(certificates: Certificates) -> None:
    async with tls_server(certificates) as url:
        outcome = await sent(url.replace("localhost", "127.0.0.1"), ca_file=certificates.ca)
    assert (outcome.name, outcome.code) == ("misconfigured", "tls_certificate")


async def test_https_to_a_port_without_tls_is_our_configuration() -> None:
    async with open_http_script(lambda _: http_response("200 OK")) as raw:
        outcome = await sent(f"https://127.0.0.1:{raw.port}/", timeout_s=2)
    assert raw.seen == []
    assert (outcome.name, outcome.code) in {("misconfigured", "tls"), ("unavailable", "timeout")}


async def test_the_client_certificate_is_shown_to_the_server(certificates: Certificates) -> None:
    more = "ssl_client_certificate ca.pem; ssl_verify_client on;"
    async with tls_server(certificates, more=more) as url:
        outcome = await sent(url, ca_file=certificates.ca, cert_file=certificates.client)
    assert isinstance(outcome, Accepted)
    assert "CN=notifier" in outcome.reference


@pytest.mark.parametrize(
    ("version", "code", "is_credentials"),
    [
        (ssl.TLSVersion.TLSv1_2, "tls", False),  # its alert names no reason
        (ssl.TLSVersion.TLSv1_3, "client_certificate", True),
    ],
)
async def test_a_server_that_requires_a_client_certificate_has_sent_nothing(
    certificates: Certificates, version: ssl.TLSVersion, code: str, *, is_credentials: bool
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    context.load_cert_chain(certificates.server)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    with closed_door(context) as port:
        outcome = await sent(f"https://localhost:{port}/", ca_file=certificates.ca)
    assert outcome == Misconfigured(code=code, detail=outcome.detail, is_credentials=is_credentials)


async def test_many_requests_share_a_connection_over_http_2(certificates: Certificates) -> None:
    async with tls_server(certificates, http2=" http2") as url:
        http = HttpSettings(
            url=url, json="{}", reference="id", ca_file=certificates.ca, http_version="2"
        )
        async with open_http("apns", http) as provider:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(provider.send(message())) for _ in range(60)]
            outcomes = {task.result() for task in tasks}
    assert {outcome.name for outcome in outcomes} == {"accepted"}
    references = {outcome.reference for outcome in outcomes if isinstance(outcome, Accepted)}
    assert len(references) == 1
    assert references.pop().startswith("HTTP/2.0 ")


async def test_a_server_without_http_2_is_asked_over_http_1(certificates: Certificates) -> None:
    async with tls_server(certificates) as url:
        outcome = await sent(url, ca_file=certificates.ca, http_version="2")
    assert isinstance(outcome, Accepted)
    assert outcome.reference.startswith("HTTP/1.1 ")


@dataclass
class RefusingHttp2:
    """An HTTP/2 server, frame by frame (RFC 9113), that refuses the first `refusals` streams."""

    refusals: int
    streams: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        writer.write(_frame(SETTINGS, 0, 0, b""))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(9)
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
                await reader.readexactly(int.from_bytes(head[:3]))
                if kind == SETTINGS and not flags & ACK:
                    writer.write(_frame(SETTINGS, ACK, 0, b""))
                if kind == HEADERS:
                    self._answer(writer, stream)
        writer.close()

    def _answer(self, writer: asyncio.StreamWriter, stream: int) -> None:
        self.streams += 1
        if self.streams <= self.refusals:
            writer.write(_frame(RST_STREAM, 0, stream, REFUSED_STREAM.to_bytes(4)))
        else:
            writer.write(_frame(HEADERS, END_STREAM | END_HEADERS, stream, STATUS_200))


SETTINGS, HEADERS, RST_STREAM, REFUSED_STREAM = 4, 1, 3, 7
ACK, END_STREAM, END_HEADERS = 1, 1, 4
STATUS_200 = b"\x88"  # RFC 7541, appendix A


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


@pytest.mark.parametrize(
    ("refusals", "expected", "streams"), [(1, "accepted", 2), (1000, "unavailable", None)]
)
async def test_a_stream_that_the_server_refuses_unread_is_repeated_and_else_unavailable(
    certificates: Certificates, refusals: int, expected: str, streams: int | None
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)
    context.set_alpn_protocols(["h2"])
    refusing = RefusingHttp2(refusals)
    server = await asyncio.start_server(refusing.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
        outcome = await sent(url, ca_file=certificates.ca, http_version="2", timeout_s=5)
    assert outcome.name == expected, outcome
    assert streams in (None, refusing.streams)


@dataclass
class Proxy:
    """A forwarding proxy; `answer` refuses instead."""

    answer: bytes = b""
    url: str = ""
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.answer:
            writer.write(self.answer)
            await writer.drain()
            writer.close()
            return
        method, target, _ = head.split(b" ", 2)
        address = target.removeprefix(b"http://").partition(b"/")[0].decode()
        host, _, port = address.rpartition(":")
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n")
        else:
            server_writer.write(head)
        async with asyncio.TaskGroup() as group:
            group.create_task(_forward(reader, server_writer))
            group.create_task(_forward(server_reader, writer))


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(65536):
            writer.write(part)
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def open_forward_proxy(answer: bytes = b"") -> AsyncIterator[Proxy]:
    proxy = Proxy(answer)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        proxy.url = f"http://me:s3cret-word@127.0.0.1:{port}"
        yield proxy


async def test_https_goes_through_the_proxy_in_a_tunnel(certificates: Certificates) -> None:
    async with tls_server(certificates) as url, open_forward_proxy() as proxy:
        outcome = await sent(url, ca_file=certificates.ca, proxy=proxy.url)
        finding = await check_http(
            "sms", HttpSettings(url=url, ca_file=certificates.ca, proxy=proxy.url)
        )
    assert isinstance(outcome, Accepted)
    assert outcome.code == "201"
    assert [head[:8] for head in proxy.heads] == [b"CONNECT "] * 2
    assert b"Proxy-Authorization: Basic" in proxy.heads[0]
    assert finding.status == "ok"


async def test_http_goes_through_the_proxy(certificates: Certificates) -> None:
    del certificates
    async with (
        open_http_script(lambda _: http_response("200 OK", b'{"id": "m1"}')) as raw,
        open_forward_proxy() as proxy,
    ):
        outcome = await sent(f"http://127.0.0.1:{raw.port}/", proxy=proxy.url)
    assert outcome == Accepted(code="200", http_status=200, reference="m1")
    assert proxy.heads[0].startswith(b"POST http://127.0.0.1:")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("407 Proxy Authentication Required", (Misconfigured, True)),
        ("403 Forbidden", (Misconfigured, False)),
        ("405 Not Allowed", (Misconfigured, False)),
        ("429 Too Many", (Throttled, None)),
        ("502 Bad Gateway", (Unavailable, None)),
        ("503 Unavailable", (Unavailable, None)),
    ],
)
async def test_a_tunnel_that_the_proxy_refuses_has_sent_nothing(
    status: str, expected: tuple[type[Outcome], bool | None]
) -> None:
    async with open_forward_proxy(http_response(status, b"no")) as proxy:
        outcome = await sent("https://sms.example.com/", proxy=proxy.url)
    kind, is_credentials = expected
    assert isinstance(outcome, kind)
    assert getattr(outcome, "is_credentials", None) == is_credentials
    assert "s3cret-word" not in outcome.detail


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    async with open_http_script(lambda _: http_response("200 OK")) as raw:
        outcome = await sent(f"http://127.0.0.1:{raw.port}/")
    assert isinstance(outcome, Accepted)


async def test_a_proxy_that_is_down_is_unavailable() -> None:
    outcome = await sent("https://a.example/", proxy=f"http://127.0.0.1:{free_ports(1)[0]}")
    assert (outcome.name, outcome.code) == ("unavailable", "connection")
