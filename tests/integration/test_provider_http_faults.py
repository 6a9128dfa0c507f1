"""The HTTP provider against servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Literal
from uuid import uuid4

import pytest

from notifier.adapters.providers.http.provider import open_http
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Accepted, Misconfigured, Refused, Throttled, Unavailable
from notifier.embedded.free_ports import free_ports
from notifier.ports.provider import Envelope, Provider
from tests.integration.raw_servers import (
    CLOSE,
    SILENCE,
    RawServer,
    http_response,
    open_http_script,
    open_raw,
)

OK = http_response("200 OK", b'{"id": "m1"}')


def message() -> Envelope:
    return Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=QueueKey.parse("sms.high"),
        recipient="+15005550006",
        content={"body": "hi"},
    )


@asynccontextmanager
async def open_pair(
    answer: Callable[[int], bytes | str] | bytes | str,
    *,
    method: Literal["POST", "PUT", "PATCH", "GET"] = "POST",
    timeout_s: float = 5.0,
    max_connections: int = 100,
    path: str = "/",
) -> AsyncIterator[tuple[Provider, RawServer]]:
    script = answer if callable(answer) else lambda _: answer
    async with open_http_script(script) as raw:
        settings = HttpSettings(
            url=f"http://127.0.0.1:{raw.port}{path}",
            method=method,
            json=None if method == "GET" else '{"to": "{{ recipient }}"}',
            reference="id",
            timeout_s=timeout_s,
            max_connections=max_connections,
        )
        async with open_http("sms", settings) as provider:
            yield provider, raw


async def test_a_refused_connection_is_unavailable() -> None:
    async with open_http("sms", HttpSettings(url=f"http://127.0.0.1:{free_ports(1)[0]}/")) as sms:
        outcome = await sms.send(message())
    assert (outcome.name, outcome.code) == ("unavailable", "connection")


async def test_an_unknown_host_name_is_unavailable() -> None:
    async with open_http("sms", HttpSettings(url="http://nowhere.invalid/")) as sms:
        outcome = await sms.send(message())
    assert (outcome.name, outcome.code) == ("unavailable", "connection")


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (CLOSE, "disconnected"),
        (SILENCE, "timeout"),
        (b"220 mail.example.com ESMTP\r\n\r\n", "disconnected"),
        (b"HTTP/1.1 2", "timeout"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "timeout"),
    ],
)
async def test_a_request_without_a_response_is_ambiguous(response: bytes | str, code: str) -> None:
    timeout_s = 0.5 if code == "timeout" else 10
    async with open_pair(response, timeout_s=timeout_s) as (provider, raw):
        outcome = await provider.send(message())
    assert (outcome.name, outcome.code) == ("ambiguous", code)
    assert len(raw.seen) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET"])
async def test_a_request_on_a_reused_connection_that_is_cut_is_not_repeated(
    method: Literal["POST", "PUT", "PATCH", "GET"],
) -> None:
    async with open_pair(lambda n: CLOSE if n == 2 else OK, method=method) as (provider, raw):
        assert (await provider.send(message())).name == "accepted"
        assert (await provider.send(message())).name == "ambiguous"
        assert len(raw.seen) == 2
        assert (await provider.send(message())).name == "accepted"
    assert len(raw.seen) == 3


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(status: str) -> None:
    async with open_pair(http_response(status, b"", Location="/elsewhere")) as (provider, raw):
        outcome = await provider.send(message())
    assert isinstance(outcome, Misconfigured)
    assert not outcome.is_credentials
    assert len(raw.seen) == 1


async def test_a_redirect_names_its_site_and_not_its_path() -> None:
    location = "https://login.example/?to=%2B15005550006"
    async with open_pair(http_response("302 Found", b"", Location=location)) as (provider, _):
        outcome = await provider.send(message())
    assert outcome == Misconfigured(
        code="302", http_status=302, detail="redirects to https://login.example"
    )


async def test_no_cookie_is_kept() -> None:
    async with open_pair(http_response("200 OK", b"{}", Set_Cookie="a=b")) as (provider, raw):
        await provider.send(message())
        await provider.send(message())
    assert not any("cookie" in request.lower() for request in raw.seen)


@pytest.mark.parametrize(
    ("value", "after"),
    [
        ("7", timedelta(seconds=7)),
        ("999999999999", timedelta(hours=1)),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", timedelta()),
        ("Fri, 31 Dec 9999 23:59:59 GMT", timedelta(hours=1)),
    ],
)
async def test_retry_after_is_bounded(value: str, after: timedelta | None) -> None:
    async with open_pair(http_response("429 Too Many", Retry_After=value)) as (provider, _):
        throttled = await provider.send(message())
    assert throttled == Throttled(code="429", http_status=429, detail="{}", after=after)
    async with open_pair(http_response("503 Unavailable", Retry_After=value)) as (provider, _):
        unavailable = await provider.send(message())
    assert unavailable == Unavailable(code="503", http_status=503, detail="{}", after=after)


async def test_wrong_credentials_spend_no_try() -> None:
    async with open_pair(http_response("401 Unauthorized")) as (provider, _):
        assert await provider.send(message()) == Misconfigured(
            code="401", http_status=401, detail="{}", is_credentials=True
        )


async def test_a_huge_body_is_read_up_to_its_bound_and_the_next_send_works() -> None:
    huge = http_response("500 Oops", b"x" * 20_000_000)
    async with open_pair(lambda n: huge if n == 1 else OK) as (provider, raw):
        outcome = await provider.send(message())
        assert outcome == Unavailable(code="500", http_status=500, detail="x" * 300)
        assert (await provider.send(message())).name == "accepted"
    assert raw.connections == 2


@pytest.mark.parametrize("rest", [b"", b'{"id": "m'])
async def test_a_body_that_breaks_off_does_not_change_the_outcome(rest: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + rest)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async with open_raw(serve, RawServer()) as raw:
        settings = HttpSettings(url=f"http://127.0.0.1:{raw.port}/", reference="id")
        async with open_http("sms", settings) as provider:
            assert await provider.send(message()) == Accepted(code="200", http_status=200)


async def test_a_body_that_never_ends_does_not_change_the_outcome() -> None:
    endless = b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"
    async with open_pair(endless, timeout_s=2) as (provider, _):
        assert await provider.send(message()) == Accepted(code="201", http_status=201)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"[[[", b"null", b"[1]" * 5, b"<html>"])
async def test_a_body_that_is_not_json_gives_no_reference(body: bytes) -> None:
    async with open_pair(http_response("200 OK", body)) as (provider, _):
        assert await provider.send(message()) == Accepted(code="200", http_status=200)


async def test_the_text_of_a_body_is_kept_in_a_storable_form() -> None:
    async with open_pair(http_response("400 Bad", b"a\x00b\r\n\xff\xed\xa0\x80c")) as (provider, _):
        outcome = await provider.send(message())
    assert outcome.detail.encode().count(b"\0") == 0
    assert outcome.detail.startswith("a b ")


async def test_a_notification_that_its_template_cannot_render_is_refused_without_a_request() -> (
    None
):
    async with open_pair(OK, path="/{{ content.subject }}") as (provider, raw):
        outcome = await provider.send(message())
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.is_local) == ("template", True)
    assert raw.seen == []


async def test_a_hundred_concurrent_sends_share_a_few_connections() -> None:
    async with open_pair(OK, max_connections=8) as (provider, raw):
        for _ in range(2):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(provider.send(message())) for _ in range(100)]
            assert {task.result() for task in tasks} == {
                Accepted(code="200", http_status=200, reference="m1")
            }
    assert raw.connections <= 8
    assert len(raw.seen) == 200


async def test_a_time_out_while_waiting_for_a_connection_is_local_and_spends_no_try() -> None:
    async with open_http_script(lambda _: OK) as raw:
        settings = HttpSettings(
            url=f"http://127.0.0.1:{raw.port}/", max_connections=1, timeout_s=0.1
        )
        async with open_http("sms", settings) as provider, provider._client._slots:
            outcome = await provider.send(message())
    assert outcome == Unavailable(
        code="no_connection", detail="all connections busy", is_local=True
    )
    assert raw.seen == []
