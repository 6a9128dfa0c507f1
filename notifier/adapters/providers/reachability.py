"""Findings about whether a provider can be reached.

They never repeat what a server replies during login; only its code is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from notifier.domain.finding import Finding, ok, warning, wrong

CHECK_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a provider listens. Nothing else of its URL may be shown."""

    host: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def reachable(name: str, result: str) -> Finding:
    """The provider can be used."""
    return ok(_check(name), result)


def throttled(name: str, result: str) -> Finding:
    """The provider answered that connections come too fast."""
    return warning(_check(name), result, "wait: the server reports too many connections")


def timed_out(name: str, address: Address) -> Finding:
    """The provider did not answer in time."""
    return unreachable(name, f"{address}: no answer within {CHECK_TIMEOUT_S:g} s")


def unreachable(name: str, result: str) -> Finding:
    """No connection could be opened."""
    fix = f"start the server, allow the connection, or correct [providers.{name}]"
    return wrong(_check(name), result, fix)


def untrusted(name: str, result: str) -> Finding:
    """The server's TLS certificate is not trusted."""
    fix = "renew the certificate, or trust the authority that signed it (ca_file)"
    return wrong(_check(name), result, fix)


def certificate_refused(name: str, result: str) -> Finding:
    """The server refused our certificate, or requires one."""
    return wrong(_check(name), result, f"correct cert_file and key_file in [providers.{name}]")


def login_refused(name: str, result: str) -> Finding:
    """The server refused the credentials, or the way they were offered."""
    fix = f"correct username, password and security in [providers.{name}]"
    return wrong(_check(name), result, fix)


def misconfigured(name: str, result: str, fix: str) -> Finding:
    """The server cannot be used with these settings."""
    return wrong(_check(name), result, fix)


def _check(name: str) -> str:
    return f"provider {name}"
