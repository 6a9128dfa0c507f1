"""Checks whether the server of an HTTP provider accepts connections. Sends no request."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Final
from urllib.parse import urlsplit

from notifier.adapters.providers.http.provider import open_http
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.reachability import (
    CHECK_TIMEOUT_S,
    Address,
    reachable,
    timed_out,
    unreachable,
    untrusted,
)
from notifier.domain.finding import Finding

_FIXED: Final = re.compile(r"https?://[^/?#{}]+(?=[/?#]|$)")
_PORTS: Final = {"http": 80, "https": 443}


async def check_http(name: str, settings: HttpSettings) -> Finding:
    """Open a connection. Raises ConfigError for settings that cannot work."""
    async with open_http(name, settings):
        address = address_of(settings.url)
    if address is None:
        return reachable(name, "not connected: each notification names the host of its request")
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await _connect(address)
    except TimeoutError:
        return timed_out(name, address)
    except ssl.SSLCertVerificationError as error:
        return untrusted(name, f"{address}: {error.verify_message}")
    except (OSError, UnicodeError) as error:
        return unreachable(name, f"{address}: {error}")
    return reachable(name, f"{address} accepts connections")


async def _connect(address: Address) -> None:
    """Connect over TCP, and TLS if the URL is https."""
    tls = ssl.create_default_context() if address.is_tls else None
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
    writer.transport.abort()


def address_of(url: str) -> Address | None:
    """The host and port of a URL template; None if they come from the notification."""
    fixed = _FIXED.match(url)
    if fixed is None:
        return None
    try:
        parts = urlsplit(fixed[0])
        port = parts.port or _PORTS[parts.scheme]
    except ValueError:
        return None
    return Address(parts.hostname, port, parts.scheme == "https") if parts.hostname else None
