"""Calls of webhooks reach public and allowed addresses only, whatever leads elsewhere."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from notifier.adapters.providers.webhook.settings import WebhookSettings
from notifier.adapters.providers.webhook.transport import (
    ADDRESS_REFUSED,
    SCHEME_REFUSED,
    open_transport,
)
from notifier.ports.webhooks import Answered, Unanswered
from tests.integration.raw_servers import RawServer, open_raw

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from notifier.adapters.providers.webhook.transport import CurlTransport

SETTINGS: Final = WebhookSettings(
    timeout_s=5.0, max_connections=4, retry_s=(1.0,), disable_after_s=60.0, allow_http=True
)
LOCAL: Final = ("127.0.0.0/8",)
NO_CONTENT: Final = "204 No Content"


@asynccontextmanager
async def receiver(status: str = NO_CONTENT, *headers: str) -> AsyncIterator[RawServer]:
    """A local server that answers every request alike, and counts its connections."""
    head = "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *headers, "", ""])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode())
        await writer.drain()
        await reader.read()

    async with open_raw(answer, RawServer()) as server:
        yield server


@asynccontextmanager
async def transport(**changes: object) -> AsyncIterator[CurlTransport]:
    settings = msgspec.structs.replace(SETTINGS, **changes)
    async with open_transport("webhook", settings) as opened:
        yield opened


async def post(transport: CurlTransport, url: str) -> Answered | Unanswered:
    return await transport.post(url, {"Content-Type": "application/json"}, b"{}")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "0x7f000001",
        "2130706433",
        "127.1",
        "0",
        "[::ffff:127.0.0.1]",
        "[::1]",
    ],
)
async def test_nothing_connects_to_this_machine(host: str) -> None:
    async with receiver() as server, transport() as sender:
        answer = await post(sender, f"http://{host}:{server.port}/")
        assert isinstance(answer, Unanswered)
        assert answer.code in {ADDRESS_REFUSED, "connect_failed", "name_not_resolved"}, answer
        assert host not in answer.detail
        assert server.connections == 0


async def test_an_address_of_a_name_is_refused_by_this_code() -> None:
    async with receiver() as server, transport() as sender:
        answer = await post(sender, f"http://localhost:{server.port}/")
        assert answer == Unanswered(ADDRESS_REFUSED, answer.detail)  # type: ignore[union-attr]


async def test_an_allowed_network_is_called_and_no_other() -> None:
    async with receiver() as server, transport(allow_private=LOCAL) as sender:
        assert await post(sender, f"http://127.0.0.1:{server.port}/") == Answered(204)
        assert server.connections == 1
        assert isinstance(await post(sender, f"http://[::1]:{server.port}/"), Unanswered)
        assert server.connections == 1


async def test_no_redirect_is_followed() -> None:
    async with AsyncExitStack() as stack:
        inside = await stack.enter_async_context(receiver())
        location = f"Location: http://127.0.0.1:{inside.port}/"
        outside = await stack.enter_async_context(receiver("307 Temporary Redirect", location))
        sender = await stack.enter_async_context(transport(allow_private=LOCAL))
        assert await post(sender, f"http://127.0.0.1:{outside.port}/") == Answered(307)
        assert (outside.connections, inside.connections) == (1, 0)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"])
async def test_no_proxy_of_the_environment_is_used(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(receiver())
        server = await stack.enter_async_context(receiver())
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        sender = await stack.enter_async_context(transport(allow_private=LOCAL))
        assert await post(sender, f"http://127.0.0.1:{server.port}/") == Answered(204)
        assert (proxy.connections, server.connections) == (0, 1)


async def test_a_url_without_tls_that_was_stored_before_is_not_called() -> None:
    async with (
        receiver() as server,
        transport(allow_private=LOCAL, allow_http=False) as sender,
    ):
        answer = await post(sender, f"HTTP://127.0.0.1:{server.port}/")
        assert isinstance(answer, Unanswered)
        assert answer.code == SCHEME_REFUSED
        assert server.connections == 0
