"""Sessions of browsers: a signed cookie that names a key. A revoked key ends its sessions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from notifier.domain.credentials import KEY_ID, KeyId
from notifier.domain.signing import Purpose, Signer

if TYPE_CHECKING:
    from notifier.ports.keys import SecretReader

COOKIE: Final = "notifier_session"


@dataclass(frozen=True, slots=True, kw_only=True)
class CookiePlace:
    """Where a browser sends the cookie: below `path`, and only over TLS if `is_secure`."""

    path: str
    is_secure: bool


class Sessions:
    """Makes and reads session cookies.

    Without `secrets` the one of Postgres signs; it is read at the first use.
    """

    def __init__(
        self, reader: SecretReader, *, secrets: tuple[bytes, ...] = (), session_s: float
    ) -> None:
        self._reader = reader
        self._signer = Signer(secrets) if secrets else None
        self._session_s = session_s

    async def cookie(self, key: KeyId, place: CookiePlace) -> str:
        """Return the value of `Set-Cookie` that begins a session. Raises StoreUnavailable."""
        expires_at = int(time.time() + self._session_s)
        signer = await self._signing()
        token = signer.sign(Purpose.SESSION, f"{key}.{expires_at}")
        return _cookie(token, int(self._session_s), place)

    @staticmethod
    def end_cookie(place: CookiePlace) -> str:
        """Return the value of `Set-Cookie` that ends a session."""
        return _cookie("", 0, place)

    async def key_of(self, cookies: str) -> KeyId | None:
        """Return the key of the session in a `Cookie` header; None without a valid one.

        Raises StoreUnavailable.
        """
        token = _value(cookies)
        if not token:
            return None
        payload = (await self._signing()).verify(Purpose.SESSION, token)
        key, _, expires_at = (payload or "").partition(".")
        is_valid = KEY_ID.fullmatch(key) is not None and time.time() < float(expires_at or 0)
        return KeyId(key) if is_valid else None

    async def _signing(self) -> Signer:
        if self._signer is None:
            self._signer = Signer([await self._reader.signing_secret()])
        return self._signer


def _cookie(token: str, max_age_s: int, place: CookiePlace) -> str:
    secure = "; Secure" if place.is_secure else ""
    attributes = f"Path={place.path or '/'}; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"
    return f"{COOKIE}={token}; {attributes}"


def _value(cookies: str) -> str:
    for cookie in cookies.split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == COOKIE:
            return value
    return ""
