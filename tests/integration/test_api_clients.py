"""Requests as HTTP clients of many languages write them, byte by byte on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from notifier.api.http.server import open_server
from tests.unit.fakes_api import MemoryStore, make_api, submit_body

TIMEOUT_S = 10.0
BODY = json.dumps(submit_body()).encode()
CHUNKED_BODY = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (9, BODY[:9], len(BODY) - 9, BODY[9:])
H2C = (
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    b"Upgrade: h2c\r\n"
)
CLOSE = b"Connection: close\r\n"
NOTIFICATIONS = b"/v1/notifications"
PAUSE = b"/v1/pauses/queue/email.high"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def port(store: MemoryStore) -> AsyncIterator[int]:
    async with open_server(make_api(store), host="127.0.0.1", port=0, grace_s=1) as port:
        yield port


def post(
    target: bytes = NOTIFICATIONS,
    *fields: bytes,
    body: bytes = BODY,
    version: bytes = b"1.1",
    content_type: bytes = b"application/json",
) -> bytes:
    head = b"POST %b HTTP/%b\r\nHost: x\r\nContent-Type: %b\r\n" % (target, version, content_type)
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (head, b"".join(fields), len(body), body)


def write(target: bytes, *fields: bytes, body: bytes = BODY) -> bytes:
    """A PUT of a pause, a POST of anything else."""
    request = post(target, *fields, body=body)
    return request.replace(b"POST", b"PUT", 1) if target.startswith(PAUSE) else request


def delete(target: bytes, *, body: bytes) -> bytes:
    return post(target, body=body).replace(b"POST", b"DELETE", 1)


def post_chunked(*fields: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" % NOTIFICATIONS
    return b"%b%bTransfer-Encoding: chunked\r\n\r\n%b" % (head, b"".join(fields), CHUNKED_BODY)


def get(target: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (method, target, b"".join(fields))


class Connection:
    """One connection, on which responses are read one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def status(self, *, has_body: bool = True) -> int:
        """The status of the next response."""
        return (await self.response(has_body=has_body))[0]

    async def response(self, *, has_body: bool = True) -> tuple[int, dict[str, str], Any]:
        """Status, headers and document of the next response."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")[:-2]
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        size = int(headers.get("content-length", 0)) if has_body else 0
        body = await self._reader.readexactly(size)
        return int(first.split()[1]), headers, json.loads(body) if body else None

    async def is_closed(self) -> bool:
        return await self._reader.read(1) == b""

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
async def connection(port: int) -> AsyncIterator[Connection]:
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
    async with asyncio.timeout(TIMEOUT_S):
        yield connection
    connection.close()


@pytest.mark.parametrize("request_", [post(NOTIFICATIONS, H2C), post_chunked(H2C)])
@pytest.mark.parametrize("cut", [1, 60, 200, 330, -1])
async def test_a_submit_that_offers_http_2_is_stored_and_the_connection_is_reused(
    connection: Connection, store: MemoryStore, request_: bytes, cut: int
) -> None:
    for count in (1, 2):
        await connection.send(request_[:cut], request_[cut:])
        assert await connection.status() == 202
        assert len(store.new) == count


async def test_every_pipelined_request_that_offers_http_2_is_answered(
    connection: Connection, store: MemoryStore
) -> None:
    await connection.send(post(NOTIFICATIONS, H2C) * 100 + get(b"/health/live", H2C))
    assert [await connection.status() for _ in range(101)] == [202] * 100 + [200]
    assert len(store.new) == 100


async def test_an_upgrade_does_not_lift_the_limits_of_a_head(connection: Connection) -> None:
    fields = b"".join(b"X-%d: a\r\n" % number for number in range(98))
    await connection.send(get(b"/health/live", H2C, fields))
    status, headers, problem = await connection.response()
    assert (status, headers["content-type"]) == (431, "application/problem+json")
    assert problem["type"] == "urn:notifier:problem:head-too-large"


async def test_the_body_of_a_refused_upgrade_request_is_read(connection: Connection) -> None:
    await connection.send(post(b"/v2/unknown", H2C), post())
    assert [await connection.status(), await connection.status()] == [404, 202]


async def test_a_client_that_expects_100_continue_gets_it_before_the_response(
    connection: Connection,
) -> None:
    whole = post(NOTIFICATIONS, b"Expect: 100-continue\r\n")
    head, body = whole[: -len(BODY)], whole[-len(BODY) :]
    await connection.send(head)
    assert await connection.status() == 100
    await connection.send(body)
    assert await connection.status() == 202


@pytest.mark.parametrize(
    "target",
    [
        b"http://notify.example/v1/notifications",
        b"/v1/notifications/",
        b"//v1/notifications",
        b"/v1/%6eotifications",
    ],
)
async def test_other_forms_of_the_target_reach_the_route(
    connection: Connection, target: bytes
) -> None:
    await connection.send(post(target))
    assert await connection.status() == 202


async def test_a_client_of_http_1_0_is_answered_and_the_connection_is_closed(
    connection: Connection,
) -> None:
    await connection.send(post(version=b"1.0"))
    assert await connection.status() == 202
    assert await connection.is_closed()


async def test_pipelined_requests_are_answered_in_order_until_connection_close(
    connection: Connection, store: MemoryStore
) -> None:
    refused = post(content_type=b"text/plain")
    await connection.send(post() + refused + post_chunked(), get(b"/health/live", CLOSE))
    assert [await connection.status() for _ in range(4)] == [202, 415, 202, 200]
    assert await connection.is_closed()
    assert len(store.new) == 2


async def test_a_request_before_a_malformed_one_is_answered_first(
    connection: Connection, store: MemoryStore
) -> None:
    await connection.send(post() + b"\x16\x03\x01\r\n\r\n")
    assert await connection.status() == 202
    assert await connection.is_closed()
    assert len(store.new) == 1


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + get(b"/health/live"),
        b"CONNECT notify.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        post(NOTIFICATIONS, b"Content-Length: 3\r\n"),
        post(NOTIFICATIONS, b"Transfer-Encoding: chunked\r\n"),
    ],
    ids=["tls", "http-2", "proxy-protocol", "connect", "two-lengths", "length-and-chunked"],
)
async def test_what_is_no_request_is_answered_with_a_problem(
    connection: Connection, request_: bytes
) -> None:
    await connection.send(request_)
    status, headers, problem = await connection.response()
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert problem["type"] == "urn:notifier:problem:bad-request"
    assert await connection.is_closed()


async def test_head_has_the_headers_of_get_and_no_body(connection: Connection) -> None:
    await connection.send(get(b"/v1/queues", method=b"HEAD") + get(b"/health/live"))
    status, headers, _ = await connection.response(has_body=False)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert int(headers["content-length"]) > 0
    assert await connection.status() == 200


async def test_options_lists_the_methods(connection: Connection) -> None:
    await connection.send(get(NOTIFICATIONS, method=b"OPTIONS"))
    status, headers, _ = await connection.response()
    assert (status, headers["allow"]) == (200, "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize(
    "content_type",
    [b"APPLICATION/JSON", b"application/json;charset=UTF-8", b'Application/Json ; charset="utf-8"'],
)
async def test_the_content_type_may_be_written_in_other_ways(
    connection: Connection, content_type: bytes
) -> None:
    await connection.send(post(content_type=content_type))
    assert await connection.status() == 202


@pytest.mark.parametrize(
    ("target", "body"),
    [
        (NOTIFICATIONS, BODY),
        (NOTIFICATIONS + b"/batch", b'{"notifications":[%b]}' % BODY),
        (PAUSE, b'{"note":"why"}'),
    ],
)
async def test_a_byte_order_mark_before_the_body_is_ignored(
    connection: Connection, target: bytes, body: bytes
) -> None:
    await connection.send(write(target, body=b"\xef\xbb\xbf" + body))
    assert await connection.status() in {200, 202}


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b"Content-Encoding: gzip\r\n", "Content-Encoding"),
        (b"Content-Encoding: deflate, gzip\r\n", "Content-Encoding"),
    ],
)
async def test_a_compressed_body_is_refused_by_name(
    connection: Connection, field: bytes, name: str
) -> None:
    await connection.send(post(NOTIFICATIONS, field), post())
    status, _, problem = await connection.response()
    assert (status, problem["errors"][0]["field"]) == (415, name)
    assert await connection.status() == 202


async def test_a_compressed_transfer_is_refused_by_name(connection: Connection) -> None:
    whole = post_chunked().replace(b"Encoding: chunked", b"Encoding: gzip, chunked")
    await connection.send(whole, post())
    status, _, problem = await connection.response()
    assert (status, problem["errors"][0]["field"]) == (415, "Transfer-Encoding")
    assert await connection.status() == 202


async def test_an_empty_chunked_body_counts_as_no_body(connection: Connection) -> None:
    empty = write(PAUSE, body=b"").replace(
        b"Content-Length: 0\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    await connection.send(empty)
    assert await connection.status() == 200


@pytest.mark.parametrize(
    "target",
    [NOTIFICATIONS, NOTIFICATIONS + b"/batch", PAUSE],
)
@pytest.mark.parametrize(
    "name",
    ["X-Idempotency-Key", "X-HTTP-Method-Override", "If-Match", "Content-Range"],
)
async def test_a_header_that_would_be_ignored_is_refused_by_name(
    connection: Connection, store: MemoryStore, target: bytes, name: str
) -> None:
    await connection.send(write(target, f"{name.lower()}: a\r\n".encode()))
    status, headers, problem = await connection.response()
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert problem["type"] == "urn:notifier:problem:unsupported-header"
    assert problem["errors"][0]["field"] == name
    assert not store.new
    assert not store.paused


@pytest.mark.parametrize(
    "request_",
    [
        post(NOTIFICATIONS + b"?dry%5Frun=1&more=2"),
        post(NOTIFICATIONS + b"/batch?dry%5Frun"),
        write(PAUSE + b"?dry%5Frun=1"),
        delete(PAUSE + b"?dry%5Frun=1", body=b""),
        get(b"/v1/queues?dry%5Frun=1"),
        get(b"/v1/notifications?dry%5Frun=1"),
        get(b"/v1/notifications/01a20443-2a37-7668-832f-a1c7af4765d6?dry%5Frun=1"),
    ],
)
async def test_a_query_parameter_that_would_be_ignored_is_refused_by_name(
    connection: Connection, store: MemoryStore, request_: bytes
) -> None:
    await connection.send(request_)
    status, _, problem = await connection.response()
    assert (status, problem["type"]) == (400, "urn:notifier:problem:invalid-field")
    assert problem["errors"][0]["field"] == "?dry_run"
    assert not store.new
    assert not store.paused


@pytest.mark.parametrize("body", [b"{}", b""])
async def test_a_resume_takes_an_empty_body(connection: Connection, body: bytes) -> None:
    await connection.send(delete(PAUSE, body=body))
    assert await connection.status() == 200


async def test_a_field_of_a_resume_is_refused_since_it_would_be_ignored(
    connection: Connection,
) -> None:
    await connection.send(delete(PAUSE, body=b'{"for": 60}'))
    status, _, problem = await connection.response()
    assert (status, problem["errors"][0]["field"], problem["errors"][0]["expected"]) == (
        400,
        "for",
        "no fields here",
    )


@pytest.mark.parametrize("target", [b"/health/live?a=1", b"/health/ready?a=1", b"/docs?a=1"])
async def test_health_checks_and_pages_ignore_query_parameters(port: int, target: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(get(target, CLOSE))
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
