"""The address at which callers see the API, which proxies may serve elsewhere than it listens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from litestar.types import ASGIApp, Receive, Scope, Send

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class _Address:
    scheme: str
    host: str
    prefix: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


class PublicAddress:
    """Tells the public URL of the API, and the path prefix that links must have.

    `public_url` counts for every request, if it is set. Otherwise the request does: its Host, and
    X-Forwarded-Proto, -Host, -Port and -Prefix if it comes from a network of `trusted_proxies`. Of
    several values the last counts, which the nearest proxy added. Values that could not be part of
    a URL are ignored.
    """

    def __init__(self, public_url: str, trusted_proxies: Sequence[str]) -> None:
        parts = urlsplit(public_url)
        prefix = path_prefix(public_url)
        self._fixed = _Address(parts.scheme, parts.netloc, prefix) if public_url else None
        self._trusted = [ip_network(network, strict=False) for network in trusted_proxies]

    def prefix(self, scope: Scope) -> str:
        """Returns what stands before the path of every link, such as "/notify", or ""."""
        if self._fixed:
            return self._fixed.prefix
        return self._requested(scope).prefix if self._trusted else ""

    def url(self, scope: Scope) -> str:
        """Returns the public URL without a slash at the end. It is safe in HTML and in a shell."""
        return (self._fixed or self._requested(scope)).url

    def host(self, scope: Scope) -> str:
        """Returns the host and port that the caller asked for."""
        return self._requested(scope).host

    def _requested(self, scope: Scope) -> _Address:
        headers = dict(scope["headers"])
        forwarded = headers if self._is_from_trusted_proxy(scope) else {}
        scheme = _last(forwarded, b"x-forwarded-proto").lower()
        if scheme not in _DEFAULT_PORTS:
            scheme = scope["scheme"]
        prefix = _last(forwarded, b"x-forwarded-prefix").rstrip("/")
        return _Address(
            scheme=scheme,
            host=_forwarded_host(forwarded, scheme) or _own_host(headers, scope),
            prefix=prefix if _PREFIX.fullmatch(prefix) else "",
        )

    def _is_from_trusted_proxy(self, scope: Scope) -> bool:
        if not self._trusted or not scope["client"]:
            return False
        peer = _plain(ip_address(scope["client"][0].partition("%")[0]))
        return any(peer in network for network in self._trusted)


class WithoutPrefix:
    """An ASGI app that serves another one below a path prefix as well as at the root.

    So it does not matter whether the proxy removes the prefix.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if f"{scope['path']}/".startswith(f"{self._prefix}/"):
            length = len(self._prefix)
            scope["path"] = scope["path"][length:] or "/"
            scope["raw_path"] = scope["raw_path"][length:] or b"/"
        await self._app(scope, receive, send)


def path_prefix(public_url: str) -> str:
    """Returns the path of a public URL without a slash at the end, "" if it has none."""
    return urlsplit(public_url).path.rstrip("/")


def _forwarded_host(headers: Mapping[bytes, bytes], scheme: str) -> str:
    host = _last(headers, b"x-forwarded-host")
    if not _HOST.fullmatch(host):
        return ""
    port = _last(headers, b"x-forwarded-port")
    has_port = re.search(r":[0-9]+\Z", host) is not None and not host.endswith("]")
    is_needed = _PORT.fullmatch(port) is not None and port != _DEFAULT_PORTS[scheme]
    return f"{host}:{port}" if is_needed and not has_port else host


def _own_host(headers: Mapping[bytes, bytes], scope: Scope) -> str:
    """Returns the Host of the request if it is one, else the server's own address."""
    requested = headers.get(b"host", b"").decode("latin-1")
    if _HOST.fullmatch(requested):
        return requested
    host, port = scope["server"] or ("127.0.0.1", None)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _last(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").rpartition(b",")[2].strip().decode("latin-1")


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Returns the IPv4 address that a server listening on `::` sees inside an IPv6 one."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
