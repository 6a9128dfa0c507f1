"""Checks whether the server of an HTTP provider accepts connections. Sends no request."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from notifier.adapters.providers.http.answers import AnswerTable
from notifier.adapters.providers.http.connecting import check_connecting
from notifier.adapters.providers.http.failures import failure_outcome
from notifier.adapters.providers.http.request import Templates
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.http.transport import open_client
from notifier.adapters.providers.reachability import (
    CHECK_TIMEOUT_S,
    Address,
    certificate_refused,
    reachable,
    timed_out,
    unreachable,
    untrusted,
)
from notifier.domain.domain_names import InvalidDomain, ascii_domain
from notifier.domain.finding import Finding

_FIXED: Final = re.compile(r"https?://[^/?#{}]+(?=[/?#]|$)")
_PORTS: Final = {"http": 80, "https": 443}


async def check_http(name: str, settings: HttpSettings) -> Finding:
    """Connect as a send does, without a request: over the proxy, with TLS and our certificate.

    Raises ConfigError for settings that cannot work.
    """
    Templates(name, settings)
    AnswerTable(name, settings)
    check_connecting(name, settings)
    address = address_of(settings.url)
    if address is None:
        return reachable(name, "not connected: each notification names the host of its request")
    async with open_client(name, settings) as client:
        failure = await client.connect(_origin(address), CHECK_TIMEOUT_S)
    if failure is None:
        return reachable(name, f"{address} accepts connections; no request sent, login not tried")
    found = failure_outcome(failure)
    result = f"{address}: {failure.text}"
    match found.code:
        case "timeout":
            return timed_out(name, address)
        case "tls_certificate":
            return untrusted(name, result)
        case "client_certificate":
            return certificate_refused(name, result)
        case _:
            return unreachable(name, result)


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
    if not parts.hostname:
        return None
    try:
        return Address(ascii_domain(parts.hostname), port, parts.scheme == "https")
    except InvalidDomain:
        return None


def _origin(address: Address) -> str:
    return f"{'https' if address.is_tls else 'http'}://{address}/"
