"""Responses that strict clients refuse: the status line decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from notifier.adapters.providers.http.provider import open_http
from notifier.adapters.providers.http.settings import HttpSettings, SuccessSettings
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Accepted, Ambiguous, Misconfigured, Outcome, Refused
from notifier.ports.provider import Envelope
from tests.integration.raw_servers import RawServer, open_http_script, open_raw

BODY = b'{"id": "m1"}'


def message() -> Envelope:
    return Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=QueueKey.parse("sms.high"),
        recipient="+15005550006",
        content={"body": "hi"},
    )


async def outcomes_of(response: bytes, **settings: Any) -> tuple[Outcome, Outcome, RawServer]:
    """The outcomes of two sends, each of which gets the response."""
    async with open_http_script(lambda _: response) as raw:
        http = HttpSettings(
            url=f"http://127.0.0.1:{raw.port}/", json="{}", reference="id", timeout_s=2, **settings
        )
        async with open_http("sms", http) as provider:
            return await provider.send(message()), await provider.send(message()), raw


def response(*headers: bytes, status: bytes = b"200 OK", body: bytes = BODY) -> bytes:
    lines = [b"HTTP/1.1 " + status, *headers]
    if not any(b"ontent-length" in line.lower() or b"chunked" in line for line in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(response(b"X: " + b"a" * 60_000), id="a header of 60,000 bytes"),
        pytest.param(
            response(*[b"X-%d: %s" % (n, b"a" * 90) for n in range(1000)]), id="1,000 headers"
        ),
        pytest.param(response(b"Content-Encoding: br"), id="br that is none"),
        pytest.param(response(b"Content-Encoding: zstd"), id="zstd that is none"),
        pytest.param(response(b"Content-Encoding: gzip"), id="gzip that is none"),
        pytest.param(
            response(b"Content-Length: 12", b"Content-Length: 12"), id="equal Content-Lengths"
        ),
        pytest.param(response(b"Content-Length: 12, 12"), id="equal Content-Lengths in one line"),
        pytest.param(response(status=b"200"), id="no reason"),
        pytest.param(response(status=b"200 \xe4\xff"), id="a reason that is no ASCII"),
        pytest.param(response(b"X-\xff: \xe9\x01"), id="headers that are no ASCII"),
        pytest.param(response(b"Set-Cookie: a=\x01; expires=never"), id="a strange cookie"),
        pytest.param(response(b"X: 1", b" folded"), id="a folded header"),
        pytest.param(response().replace(b"\r\n", b"\n"), id="line feeds alone"),
        pytest.param(response(status=b"299 Odd"), id="an unknown 2xx"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + response(), id="100 first"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + response(), id="103 first"
        ),
        pytest.param(
            response(
                b"Transfer-Encoding: chunked", body=b"c;x=y\r\n" + BODY + b"\r\n0\r\nT: 1\r\n\r\n"
            ),
            id="chunks with extension and trailer",
        ),
    ],
)
async def test_a_2xx_that_is_odd_is_accepted_with_its_reference(odd: bytes) -> None:
    first, second, raw = await outcomes_of(odd)
    assert isinstance(first, Accepted)
    assert (first.reference, second) == ("m1", first)
    assert len(raw.seen) == 2


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(response(b"X: " + b"a" * 400_000), id="a header of 400,000 bytes"),
        pytest.param(response(*[b"X-%d: a" % n for n in range(9000)]), id="9,000 headers"),
        pytest.param(
            response(b"Content-Length: 12", b"Content-Length: 13"), id="unequal Content-Lengths"
        ),
        pytest.param(response(b"Content-Length: many"), id="no number"),
        pytest.param(response(b"Content-Length: -1"), id="a negative number"),
        pytest.param(response(b"Transfer-Encoding: chunked", body=b"zz\r\n"), id="no chunks"),
        pytest.param(response(b"Transfer-Encoding: br, chunked", body=b"2\r\n{}\r\n0\r\n\r\n")),
        pytest.param(response(b"no colon"), id="no header"),
        pytest.param(response(b"X: \x00"), id="a header with NUL"),
        pytest.param(response(b"Connection: Upgrade", b"Upgrade: h2c", status=b"204 No")),
    ],
)
async def test_a_2xx_whose_rest_is_invalid_is_accepted(odd: bytes) -> None:
    first, second, raw = await outcomes_of(odd)
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert len(raw.seen) == 2


async def test_bytes_after_the_body_do_not_concern_the_next_send() -> None:
    first, second, raw = await outcomes_of(response() + b"HTTP/1.1 500 Oops\r\n\r\n")
    assert first == second == Accepted(code="200", http_status=200, reference="m1")
    assert (len(raw.seen), raw.connections) == (2, 2)


async def test_a_large_body_is_accepted_and_the_next_send_works() -> None:
    first, second, raw = await outcomes_of(response(body=b" " * 300_000))
    assert first == second == Accepted(code="200", http_status=200)
    assert len(raw.seen) == 2


async def test_a_body_that_breaks_off_is_ambiguous_only_if_it_decides() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"ok": tr')
        await writer.drain()

    async with open_raw(serve, RawServer()) as raw:
        url = f"http://127.0.0.1:{raw.port}/"
        success = SuccessSettings(path="ok", values=(True,))
        async with open_http("sms", HttpSettings(url=url, method="GET")) as plain:
            assert await plain.send(message()) == Accepted(code="200", http_status=200)
        async with open_http("sms", HttpSettings(url=url, method="GET", success=success)) as told:
            assert isinstance(await told.send(message()), Ambiguous)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'\xef\xbb\xbf{"code": 21606, "message": "From"}', "21606"),
        (b'{"code": 21606, "message": "Fr\xf6m"}', "21606"),
        ('{"code": 21606, "message": "Fröm"}'.encode("utf-16"), "21606"),
    ],
)
async def test_a_code_in_json_with_a_bom_or_in_latin_1_is_read(body: bytes, code: str) -> None:
    outcome, _, _ = await outcomes_of(
        response(status=b"400 Bad", body=body),
        error_code=("code",),
        answers={"21606": "misconfigured"},
    )
    assert isinstance(outcome, Misconfigured)
    assert outcome.code == code


async def test_the_detail_of_a_200_that_says_no_is_its_body() -> None:
    outcome, _, _ = await outcomes_of(
        response(body=b"ERROR:13 account unknown"),
        success=SuccessSettings(text="^OK", otherwise="refused"),
        answers={"/^ERROR:\\d+/": "misconfigured"},
    )
    assert outcome == Misconfigured(
        code="ERROR:13", http_status=200, detail="ERROR:13 account unknown"
    )
    outcome, _, _ = await outcomes_of(
        response(body=b'{"ok":false,"error":"channel_not_found"}'),
        success=SuccessSettings(path="ok", values=(True,)),
        error_code=("error",),
    )
    assert isinstance(outcome, Refused)
    assert outcome.code == "channel_not_found"


@asynccontextmanager
async def keeping_for(announced: bytes) -> AsyncIterator[RawServer]:
    """A server that says how long it keeps connections."""
    answer = response(b"Keep-Alive: " + announced)
    async with open_http_script(lambda _: answer) as raw:
        yield raw


@pytest.mark.parametrize(
    ("announced", "idle_s"),
    [(b"timeout=3, max=100", 2), (b"max=5,timeout = 1", 1), (b"timeout=60", 4), (b"timeout=x", 4)],
)
async def test_connections_are_kept_for_less_time_than_the_server_says(
    announced: bytes, idle_s: int
) -> None:
    async with keeping_for(announced) as raw:
        http = HttpSettings(url=f"http://127.0.0.1:{raw.port}/", json="{}")
        async with open_http("sms", http) as provider:
            assert provider._client._idle_s == 4
            await provider.send(message())
            assert provider._client._idle_s == idle_s
