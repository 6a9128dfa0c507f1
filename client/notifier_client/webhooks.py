"""Verifies the calls of webhooks, which are signed by Standard Webhooks."""

from __future__ import annotations

import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import product
from typing import Any, Final

from notifier_client.decoding import Undecodable, decode, parse_object

TOLERANCE_S: Final = 300.0
_PREFIX: Final = "whsec_"
_VERSION: Final = "v1,"
_MAX_DIGITS: Final = 12
_MAX_SIGNATURES: Final = 16


class InvalidSignature(Exception):
    """The call is not signed with the secret, or not lately. Answer 401, and do nothing."""


@dataclass(frozen=True, kw_only=True)
class WebhookEvent:
    """An event. The same event always has the same `id`: ignore one that comes again.

    Later versions have more types; ignore those that you do not know.
    """

    id: str
    type: str
    timestamp: datetime
    data: Mapping[str, Any]
    tenant: str | None = None


class WebhookVerifier:
    """Verifies calls that are signed with one of the secrets. `now_s` returns Unix time."""

    def __init__(
        self,
        secret: str | Iterable[str],
        *,
        tolerance_s: float = TOLERANCE_S,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Raise ValueError for a secret that is none."""
        secrets = [secret] if isinstance(secret, str) else list(secret)
        self._secrets = [_secret_bytes(each) for each in secrets]
        if not self._secrets:
            raise ValueError("expected the secret of a webhook, got none")
        self._tolerance_s, self._now_s = tolerance_s, now_s

    def verify(self, body: bytes | str, headers: Mapping[str, str]) -> WebhookEvent:
        """Return the event of a call. `body` must be as it came, before any parser.

        Raises InvalidSignature. The names of headers may have any case.
        """
        raw = body.encode("utf-8", "replace") if isinstance(body, str) else bytes(body)
        found = {name.lower(): value for name, value in headers.items()}
        id_, timestamp = found.get("webhook-id", ""), found.get("webhook-timestamp", "")
        if not id_:
            raise InvalidSignature("the header webhook-id is missing")
        self._require_recent(timestamp)
        signed = f"{id_}.{timestamp}.".encode("utf-8", "replace") + raw
        if not self._is_signed(signed, found.get("webhook-signature", "")):
            raise InvalidSignature("no signature in webhook-signature is made with the secret")
        try:
            return decode(WebhookEvent, parse_object(raw))
        except Undecodable as error:
            raise InvalidSignature(f"the body is signed, but no event: {error}") from error

    def _require_recent(self, timestamp: str) -> None:
        if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= _MAX_DIGITS):
            raise InvalidSignature("webhook-timestamp is missing, or is no Unix time")
        apart_s = abs(self._now_s() - int(timestamp))
        if apart_s > self._tolerance_s:
            raise InvalidSignature(
                f"webhook-timestamp is {apart_s:.0f} s from now, at most {self._tolerance_s:g} s "
                "are allowed: check this machine's clock"
            )

    def _is_signed(self, signed: bytes, header: str) -> bool:
        given = [each.encode("utf-8", "replace") for each in header.split(" ")[:_MAX_SIGNATURES]]
        digests = (hmac.digest(secret, signed, sha256) for secret in self._secrets)
        expected = [_VERSION.encode() + b64encode(digest) for digest in digests]
        pairs = product(expected, given)
        return any([hmac.compare_digest(*pair) for pair in pairs])  # noqa: C419 compares all of them


def verify_webhook(
    body: bytes | str, headers: Mapping[str, str], secret: str | Iterable[str]
) -> WebhookEvent:
    """Return the event of a call that was signed with the secret. Raises InvalidSignature."""
    return WebhookVerifier(secret).verify(body, headers)


def _secret_bytes(text: str) -> bytes:
    try:
        secret = b64decode(text.strip().removeprefix(_PREFIX), validate=True)
    except ValueError as error:
        raise ValueError("secret: expected whsec_ and base64") from error
    if not secret:
        raise ValueError("secret: expected whsec_ and base64, got an empty one")
    return secret
