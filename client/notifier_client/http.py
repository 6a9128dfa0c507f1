"""What both clients share of HTTP: arguments of httpx, and what became of a request."""

from __future__ import annotations

from typing import Any, Final

import httpx

from notifier_client.configuration import api_key, api_url
from notifier_client.exchange import Answer, Exchange, NoAnswer
from notifier_client.version import __version__

_IDLE_S: Final = 4.0
"""The API closes a connection that is idle for 5 s: no request should meet that."""
_MAX_CONNECTIONS: Final = 100
_NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
)


def client_arguments(url: str | None, key: str | None) -> dict[str, Any]:
    """Return the arguments of a client of httpx."""
    headers = {"Accept": "application/json", "User-Agent": f"notifier-client/{__version__}"}
    if secret := api_key(key):
        headers["Authorization"] = f"Bearer {secret}"
    limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_IDLE_S)
    return {"base_url": f"{api_url(url)}/v1", "headers": headers, "limits": limits}


def request_arguments(exchange: Exchange) -> dict[str, Any]:
    """Return the arguments of one request."""
    request = exchange.request
    return {
        "method": request.method,
        "url": request.path,
        "content": request.body,
        "headers": {} if request.body is None else {"Content-Type": request.content_type},
        "timeout": httpx.Timeout(exchange.timeout_s),
    }


def answer_of(response: httpx.Response, body: bytes) -> Answer:
    """Return the answer with its whole body."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body)


def no_answer(error: httpx.RequestError, exchange: Exchange, api: httpx.URL) -> NoAnswer:
    """Return the reply for a request that failed."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return NoAnswer(f"{_where(exchange, api)}: {what}", was_sent=not isinstance(error, _NEVER_SENT))


def too_late(exchange: Exchange, api: httpx.URL) -> NoAnswer:
    """Return the reply for a request whose answer is not whole in time."""
    what = f"no whole answer after {exchange.timeout_s:g} s"
    return NoAnswer(f"{_where(exchange, api)}: {what}", was_sent=True)


def _where(exchange: Exchange, api: httpx.URL) -> str:
    """Describe a request without its filters, which name people."""
    request = exchange.request
    path = request.path.partition("?")[0]
    return f"{request.method} {str(api).rstrip('/')}{path}"
