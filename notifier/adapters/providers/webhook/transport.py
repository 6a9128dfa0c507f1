"""Implements ports.webhooks.WebhookTransport with libcurl.

Each address is checked right before a connection to it is opened. Redirects are not followed, no
proxy of the environment is used, and nothing of an answer but its status leaves this module.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from notifier.adapters.providers.http.failures import may_repeat, row_of
from notifier.adapters.providers.http.responses import retry_after
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.http.transport import (
    Answer,
    Failure,
    HttpClient,
    open_client,
)
from notifier.adapters.providers.webhook.settings import WebhookSettings
from notifier.domain.public_addresses import IpNetwork, may_be_called, parse_address, parse_networks
from notifier.ports.webhooks import Answered, Unanswered

ADDRESS_REFUSED: Final = "address_refused"
SCHEME_REFUSED: Final = "scheme_refused"
MAX_RETRY_AFTER: Final = timedelta(hours=1)
_REFUSED_DETAIL: Final = "its address is not public, and not in webhooks.allow_private"


class PublicAddresses:
    """Implements http.transport.AddressGuard."""

    def __init__(self, allowed: Sequence[IpNetwork]) -> None:
        self._allowed = allowed

    def allows(self, address: str) -> bool:
        """Whether an address is public, or in an allowed network."""
        parsed = parse_address(address)
        return parsed is not None and may_be_called(parsed, self._allowed)


class CurlTransport:
    """Implements ports.webhooks.WebhookTransport."""

    def __init__(self, client: HttpClient, *, allow_http: bool) -> None:
        self._client = client
        self._schemes = ("https://", "http://") if allow_http else ("https://",)

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> Answered | Unanswered:
        if not url.lower().startswith(self._schemes):  # stored while the settings allowed it
            return Unanswered(SCHEME_REFUSED, "webhooks.allow_http is false")
        result = await self._client.request(url, headers, body)
        if isinstance(result, Failure) and may_repeat(result):
            result = await self._client.request(url, headers, body, is_fresh=True)
        if isinstance(result, Answer):
            return Answered(result.status, _retry_after_s(result))
        if result.is_refused:
            return Unanswered(ADDRESS_REFUSED, _REFUSED_DETAIL)
        row = row_of(result)
        return Unanswered(row.code, row.what)


def _retry_after_s(answer: Answer) -> float | None:
    value = answer.header("Retry-After")
    if value is None:
        return None
    after = retry_after(
        value, now=datetime.now(UTC), date=answer.header("Date"), limit=MAX_RETRY_AFTER
    )
    return None if after is None else after.total_seconds()


@asynccontextmanager
async def open_transport(name: str, settings: WebhookSettings) -> AsyncIterator[CurlTransport]:
    """A transport; it connects at the first call."""
    options = HttpSettings(
        url="https://",
        timeout_s=settings.timeout_s,
        max_connections=settings.max_connections,
    )
    guard = PublicAddresses(parse_networks(settings.allow_private))
    async with open_client(name, options, guard) as client:
        yield CurlTransport(client, allow_http=settings.allow_http)
