"""Checks whether an SMTP server can be reached and accepts the login. Sends nothing."""

from __future__ import annotations

import asyncio
from typing import Final

from notifier.adapters.providers.reachability import (
    CHECK_TIMEOUT_S,
    Address,
    login_refused,
    misconfigured,
    reachable,
    throttled,
    timed_out,
    unreachable,
    untrusted,
)
from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.finding import Finding
from notifier.domain.outcome import Misconfigured, Outcome, Throttled

_LOCAL_CODES: Final = frozenset(
    {"connection", "tls", "tls_certificate", "tls_expected", "tls_not_expected", "unsupported"}
)
"""The outcomes whose detail is not the server's text, and may be shown."""


async def check_smtp(name: str, settings: SmtpSettings) -> Finding:
    """Open a session and log in. Raises ConfigError for settings that cannot work."""
    address = Address(settings.host, settings.port, settings.security == "tls")
    async with open_smtp(name, settings) as provider:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                failure = await provider.check_session()
        except TimeoutError:
            return timed_out(name, address)
    if failure is None:
        result = "accepts the login" if settings.username else "accepts sessions"
        return reachable(name, f"{address} {result}")
    return _finding_of(name, address, failure)


def _finding_of(name: str, address: Address, failure: Outcome) -> Finding:
    shown = failure.detail if failure.code in _LOCAL_CODES else failure.code
    result = f"{address}: {shown}"
    match failure:
        case Throttled():
            return throttled(name, result)
        case Misconfigured(code="tls_certificate"):
            return untrusted(name, result)
        case Misconfigured(code="tls_expected" | "tls_not_expected"):
            return misconfigured(name, result, f"correct security or port in [providers.{name}]")
        case Misconfigured(code="tls"):
            return misconfigured(name, result, "enable TLS 1.2 or later at the mail server")
        case Misconfigured(is_credentials=True) | Misconfigured(code="unsupported"):
            return login_refused(name, result)
        case Misconfigured():
            fix = f"correct ehlo_name and the rest of [providers.{name}], or ask the server's owner"
            return misconfigured(name, result, fix)
        case _:
            return unreachable(name, result)
