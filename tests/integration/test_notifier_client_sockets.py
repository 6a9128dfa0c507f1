"""The client against servers that cut, stall and answer anything, over real connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from notifier_client import AsyncNotifier, NotifierError, RateLimited, Unavailable
from tests.client_steps import accepted, problem, row
from tests.client_styles import STYLES, called
from tests.integration.raw_servers import (
    CLOSE,
    SILENCE,
    RawServer,
    http_response,
    open_http_script,
    open_raw,
)

both_styles = pytest.mark.parametrize("style", STYLES)
STORED = http_response("202 Accepted", json.dumps(accepted()).encode(), Request_Id="r1")
FOUND = http_response("200 OK", json.dumps(row("sent")).encode())


def send(notifier: Any) -> Any:
    return notifier.send("email", "ada@example.com", subject="Hi")


def read(notifier: Any) -> Any:
    return notifier.get("n1")


def retry(notifier: Any) -> Any:
    return notifier.retry("n1")


def find(notifier: Any) -> Any:
    return notifier.find(recipient="ada@example.com")


def refused(status: str, slug: str, **headers: str) -> bytes:
    document = problem(slug, int(status[:3]))
    return http_response(status, json.dumps(document).encode(), **headers)


def script(*replies: bytes | str, closes: bool = False) -> Any:
    """A server that gives these replies in their order, the last one again and again."""
    return open_http_script(lambda n: replies[min(n, len(replies)) - 1], closes=closes)


def keys(raw: RawServer) -> Sequence[str]:
    return [json.loads(seen.partition("\r\n\r\n")[2])["idempotency_key"] for seen in raw.seen]


def url(raw: RawServer) -> str:
    return f"http://127.0.0.1:{raw.port}/prefix/"


@both_styles
async def test_a_submit_has_the_key_the_type_and_the_path(style: str) -> None:
    async with script(STORED) as raw:
        (result,) = await called(style, url(raw), send, key="ntf_live_1")
    (seen,) = raw.seen
    lines = seen.lower().split("\r\n")
    assert seen.startswith("POST /prefix/v1/notifications HTTP/1.1\r\n")
    assert {"authorization: bearer ntf_live_1", "content-type: application/json"} <= {*lines}
    assert any(line.startswith("user-agent: notifier-client/") for line in lines)
    assert (result.id, result.idempotency_key) == ("n1", keys(raw)[0])


@both_styles
async def test_no_key_sends_no_authorization(style: str) -> None:
    async with script(STORED) as raw:
        await called(style, url(raw), send, key="")
    assert "authorization" not in raw.seen[0].lower()


@both_styles
async def test_a_submit_survives_cuts_refusals_and_half_answers_with_one_key(style: str) -> None:
    half = STORED[:-5]
    async with script(
        CLOSE, half, refused("503 No", "store-unavailable"), b"HTTP/1.1 2", STORED, closes=True
    ) as raw:
        (result,) = await called(style, url(raw), send)
    assert result.id == "n1"
    assert len(raw.seen) == 5
    assert len({*keys(raw)}) == 1


@both_styles
async def test_a_server_that_is_silent_costs_one_time_out(style: str) -> None:
    async with script(SILENCE, STORED) as raw:
        await called(style, url(raw), send, timeout_s=0.2)
    assert len({*keys(raw)}) == 1
    assert len(raw.seen) == 2


@both_styles
async def test_an_answer_that_never_ends_is_given_up_at_the_deadline(style: str) -> None:
    async def drip(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with open_raw(drip, RawServer()) as raw:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no whole answer"):
            await called(style, url(raw), read, timeout_s=0.3, deadline_s=0.7)
    assert time.monotonic() - began < 5


@both_styles
async def test_retry_after_is_respected(style: str) -> None:
    async with script(refused("429 Slow", "rate-limited", Retry_After="1"), STORED) as raw:
        began = time.monotonic()
        await called(style, url(raw), send)
    assert time.monotonic() - began >= 1.0
    assert len({*keys(raw)}) == 1


@both_styles
async def test_a_rate_that_holds_past_the_deadline_is_an_error(style: str) -> None:
    async with script(refused("429 Slow", "rate-limited", Retry_After="60")) as raw:
        with pytest.raises(RateLimited) as caught:
            await called(style, url(raw), send)
    assert (caught.value.retry_after_s, len(raw.seen)) == (60.0, 1)


@both_styles
async def test_a_retry_whose_answer_is_lost_is_not_repeated(style: str) -> None:
    async with script(CLOSE, FOUND) as raw:
        with pytest.raises(Unavailable):
            await called(style, url(raw), retry)
    assert len(raw.seen) == 1


@both_styles
async def test_a_connection_that_the_server_closed_is_opened_again(style: str) -> None:
    async with script(FOUND, closes=True) as raw:
        first, second = await called(style, url(raw), read, read)
    assert first == second
    assert raw.connections == 2


@both_styles
async def test_a_connection_is_kept(style: str) -> None:
    async with script(FOUND) as raw:
        await called(style, url(raw), *[read] * 5)
    assert raw.connections == 1


@both_styles
async def test_nobody_listens(style: str) -> None:
    async with script(STORED) as raw:
        pass
    with pytest.raises(Unavailable, match="POST http") as caught:
        await called(style, url(raw), send, deadline_s=0.5)
    assert caught.value.idempotency_key


@both_styles
async def test_the_text_of_an_error_has_no_filters(style: str) -> None:
    async with script(CLOSE) as raw:
        with pytest.raises(Unavailable) as caught:
            await called(style, url(raw), find, deadline_s=0.3)
    assert "ada" not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        http_response("200 OK", b"<html>sign in</html>"),
        http_response("200 OK", b"\xff\xfe\x00"),
        http_response("200 OK", b"not gzip", Content_Encoding="gzip"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        http_response("302 Found", b"", Location="http://127.0.0.1:1/"),
        http_response("404 Not Found", b"nginx"),
        http_response("500 Oops", b"\xff"),
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"220 mail.example.com ESMTP\r\n",
    ],
)
@both_styles
async def test_what_is_no_answer_of_notifier_is_an_error(style: str, reply: bytes) -> None:
    async with script(reply, closes=True) as raw:
        with pytest.raises(NotifierError):
            await called(style, url(raw), read, deadline_s=0.3)
    assert raw.seen


async def test_a_cancelled_call_ends_its_request() -> None:
    async with script(SILENCE) as raw, AsyncNotifier(url(raw)) as notifier:
        calling = asyncio.ensure_future(send(notifier))  # noqa: TID251 it is cancelled alone
        await raw.arrived.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    assert len(raw.seen) == 1
