"""Connections that break after each byte of the request and of the response."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import uuid4

import pytest

from harness.tcp_proxy import RESET_ON_CLOSE
from notifier.adapters.providers.http.failures import FAILURES
from notifier.adapters.providers.http.provider import open_http
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.http.transport import Step
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Accepted, Ambiguous, Outcome, Unavailable
from notifier.ports.provider import Envelope, Provider
from tests.integration.raw_servers import RawServer, http_response, open_raw

STATUS_LINE = b"HTTP/1.1 201 Created\r\n"
RESPONSE = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    + STATUS_LINE
    + b"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n"
    + b'{"id": "m1"}'
)
DECIDES = RESPONSE.index(STATUS_LINE) + len(STATUS_LINE)
SMALL_FORM: Mapping[str, str] = MappingProxyType({"Body": "{{ content.body }}"})
FORM = {f"B{number}": "{{ content.body }}" for number in range(8)}
BIG = 1_000_000
"""Characters of a body. FORM sends it eight times, more than the buffers of a connection hold."""


def form_length(body: int) -> int:
    return sum(len(f"{name}=") + body for name in FORM) + len(FORM) - 1


def message(body: str = "hi") -> Envelope:
    return Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=QueueKey.parse("sms.high"),
        recipient="+15005550006",
        content={"body": body},
    )


@dataclass
class Cutting:
    """A server that breaks each connection after `received` bytes, or `sent` bytes of RESPONSE."""

    raw: RawServer
    received: int | None = None
    sent: int | None = None
    is_reset: bool = False
    cuts: int = 0
    sizes: list[int] = field(default_factory=list)
    cut: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.received is None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            self.sizes.append(len(head) + length)
            writer.write(RESPONSE[: self.sent])
            await writer.drain()
        elif self.received:
            await reader.readexactly(self.received)
        if self.is_reset:
            own: socket.socket = writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()
        else:
            writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.cuts += 1
        self.cut.set()

    async def send(self, provider: Provider) -> Outcome:
        """Send, and wait until the server has broken the connection."""
        self.cut.clear()
        outcome = await provider.send(message())
        await self.cut.wait()
        return outcome


@asynccontextmanager
async def open_cutting(
    *, timeout_s: float = 5.0, form: Mapping[str, str] = SMALL_FORM
) -> AsyncIterator[tuple[Provider, Cutting]]:
    cutting = Cutting(RawServer())
    async with open_raw(cutting.serve, cutting.raw) as raw:
        settings = HttpSettings(
            url=f"http://127.0.0.1:{raw.port}/",
            form=form,
            reference="id",
            timeout_s=timeout_s,
        )
        async with open_http("sms", settings) as provider:
            yield provider, cutting


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_connection_cut_after_any_byte_of_the_request_is_ambiguous_once_all_was_written(
    *, is_reset: bool
) -> None:
    async with open_cutting() as (provider, cutting):
        await cutting.send(provider)
        (size,) = cutting.sizes
        cutting.is_reset = is_reset
        for received in range(size + 1):
            cutting.received, cutting.cuts = received, 0
            outcome = await cutting.send(provider)
            expected = (Ambiguous,) if received else (Ambiguous, Unavailable)
            assert isinstance(outcome, expected), (received, outcome)
            assert cutting.cuts == 1


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_connection_cut_after_any_byte_of_the_response_is_decided_by_the_status_line(
    *, is_reset: bool
) -> None:
    async with open_cutting() as (provider, cutting):
        cutting.is_reset = is_reset
        outcomes: list[Outcome] = []
        for sent in range(len(RESPONSE) + 1):
            cutting.sent = sent
            outcomes.append(await cutting.send(provider))
    assert len(cutting.sizes) == len(RESPONSE) + 1
    if is_reset:  # a reset may overtake bytes, so it can only be less that arrived
        assert {type(outcome) for outcome in outcomes[:DECIDES]} == {Ambiguous}
        assert {type(outcome) for outcome in outcomes[DECIDES:]} <= {Accepted, Ambiguous}
    else:
        assert [type(outcome) for outcome in outcomes[:DECIDES]] == [Ambiguous] * DECIDES
        assert set(outcomes[DECIDES:-1]) == {Accepted(code="201", http_status=201)}
        assert outcomes[-1] == Accepted(code="201", http_status=201, reference="m1")


async def test_a_request_of_which_a_part_is_missing_is_unavailable() -> None:
    async with open_cutting(form=FORM) as (provider, cutting):
        cutting.is_reset, cutting.received = True, 1000
        outcome = await provider.send(message("x" * BIG))
    assert (outcome.name, outcome.code) == ("unavailable", "disconnected")
    assert cutting.cuts == 1


async def test_a_time_out_while_a_part_is_unwritten_is_unavailable() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        await asyncio.Event().wait()

    async with open_raw(serve, RawServer()) as raw:
        settings = HttpSettings(url=f"http://127.0.0.1:{raw.port}/", form=FORM, timeout_s=0.3)
        async with open_http("sms", settings) as provider:
            outcome = await provider.send(message("x" * BIG))
    assert (outcome.name, outcome.code) == ("unavailable", "timeout")


async def test_a_kept_connection_that_breaks_before_all_was_written_is_replaced_once() -> None:
    requests: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(requests) == 1:
                requests.append(-1)
                own: socket.socket = writer.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                return
            await reader.readexactly(length)
            requests.append(length)
            writer.write(http_response("200 OK"))

    async with open_raw(serve, RawServer()) as raw:
        settings = HttpSettings(url=f"http://127.0.0.1:{raw.port}/", form=FORM)
        async with open_http("sms", settings) as provider:
            assert (await provider.send(message())).name == "accepted"
            assert (await provider.send(message("x" * BIG))).name == "accepted"
    assert requests == [form_length(len("hi")), -1, form_length(BIG)]


async def test_a_kept_connection_that_the_server_has_closed_is_not_used() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_response("200 OK"))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    closed = asyncio.Event()
    async with open_raw(serve, RawServer()) as raw:
        settings = HttpSettings(url=f"http://127.0.0.1:{raw.port}/", method="GET")
        async with open_http("sms", settings) as provider:
            for _ in range(50):
                assert (await provider.send(message())).name == "accepted"
                await closed.wait()
                closed.clear()


def test_the_table_has_an_outcome_for_each_step_and_any_error() -> None:
    for step in Step:
        rows = [row for row in FAILURES if step in row.steps]
        assert any(
            not row.errors and row.text is None and not row.proxy_statuses for row in rows
        ), step
    assert {row.verdict for row in FAILURES if row.steps == (Step.WHOLE,)} == {"ambiguous"}
