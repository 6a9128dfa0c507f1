"""Looks whether a provider can be reached, and sends nothing.

What a server says while we sign in is not repeated: only its code is.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from notifier.adapters.providers.http import open_http
from notifier.adapters.providers.settings import HttpSettings, SmtpSettings
from notifier.adapters.providers.smtp import open_smtp
from notifier.domain.finding import Finding, ok, warning, wrong
from notifier.domain.outcome import Outcome, Throttled, Unavailable

WITHIN_S: Final = 5.0

_FIXED: Final = re.compile(r"https?://[^/?#{}]+(?=[/?#]|$)")
_PORTS: Final = {"http": 80, "https": 443}
_OUR_WORDS: Final = frozenset({"connection", "tls_certificate", "unsupported"})
"""The outcomes whose detail is not the server's text."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a provider listens; nothing of its URL but this may be shown."""

    host: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def examine_provider(name: str, settings: SmtpSettings | HttpSettings) -> Finding:
    """Whether it can be connected to; for mail also whether it lets us in.

    Raises ConfigError for settings that no send could use.
    """
    match settings:
        case SmtpSettings():
            return await _examine_smtp(name, settings)
        case HttpSettings():
            return await _examine_http(name, settings)


async def _examine_smtp(name: str, settings: SmtpSettings) -> Finding:
    place = _Place(settings.host, settings.port, settings.security == "tls")
    async with open_smtp(name, settings) as provider:
        try:
            async with asyncio.timeout(WITHIN_S):
                obstacle = await provider.look()
        except TimeoutError:
            return _unreachable(name, f"{place}: no answer within {WITHIN_S:g} s")
    if obstacle is None:
        what = "lets us sign in" if settings.username else "takes sessions"
        return ok(_check(name), f"{place} {what}")
    return _of_obstacle(name, place, obstacle)


def _of_obstacle(name: str, place: _Place, obstacle: Outcome) -> Finding:
    said = f"{place}: {obstacle.detail if obstacle.code in _OUR_WORDS else obstacle.code}"
    match obstacle:
        case Throttled():
            return warning(_check(name), said, "wait: it says that we come too often")
        case Unavailable(code="tls_certificate"):
            return _untrusted(name, said)
        case Unavailable(spends=False):
            fix = f"correct username, password and security in [providers.{name}]"
            return wrong(_check(name), said, fix)
        case _:
            return _unreachable(name, said)


async def _examine_http(name: str, settings: HttpSettings) -> Finding:
    async with open_http(name, settings):
        place = _place_of(settings.url)
    if place is None:
        return ok(_check(name), "each notification says where its request goes")
    try:
        async with asyncio.timeout(WITHIN_S):
            await _connect(place)
    except TimeoutError:
        return _unreachable(name, f"{place}: no answer within {WITHIN_S:g} s")
    except ssl.SSLCertVerificationError as error:
        return _untrusted(name, f"{place}: {error.verify_message}")
    except (OSError, UnicodeError) as error:
        return _unreachable(name, f"{place}: {error}")
    return ok(_check(name), f"{place} takes connections")


async def _connect(place: _Place) -> None:
    """TCP, and TLS where it is spoken; no request."""
    tls = ssl.create_default_context() if place.is_tls else None
    _, writer = await asyncio.open_connection(place.host, place.port, ssl=tls)
    writer.transport.abort()


def _place_of(url: str) -> _Place | None:
    """The host and port of a URL's template, unless they are made from the notification."""
    fixed = _FIXED.match(url)
    if fixed is None:
        return None
    try:
        parts = urlsplit(fixed[0])
        port = parts.port or _PORTS[parts.scheme]
    except ValueError:
        return None
    return _Place(parts.hostname, port, parts.scheme == "https") if parts.hostname else None


def _unreachable(name: str, said: str) -> Finding:
    return wrong(_check(name), said, f"start it, open the way to it, or correct [providers.{name}]")


def _untrusted(name: str, said: str) -> Finding:
    fix = "renew its certificate, or trust the one who signed it (for mail: ca_file)"
    return wrong(_check(name), said, fix)


def _check(name: str) -> str:
    return f"provider {name}"
