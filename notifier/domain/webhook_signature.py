"""Signatures of webhook requests by the Standard Webhooks scheme, version v1.

See standardwebhooks.com. HMAC-SHA256 over `id.timestamp.body`, in the header `webhook-signature`
as `v1,` and base64; the header may have several, so that a secret can be replaced.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
TOLERANCE_S: Final = 300.0
"""How old, or how far ahead, a timestamp may be: an older request may be a replay."""
MIN_SECRET_BYTES: Final = 24
"""The least that the standard allows."""
SECRET_EXPECTED: Final = (
    f"a secret of at least {MIN_SECRET_BYTES} bytes, as text or as whsec_ and base64"
)
_PREFIX: Final = "whsec_"
_VERSION: Final = "v1,"
_MAX_ID_LENGTH: Final = 256
_MAX_DIGITS: Final = 12
_MAX_SIGNATURES: Final = 16


def secret_bytes(text: str) -> bytes:
    """Return the bytes of a secret. Raises ValueError for one that is malformed or too short."""
    text = text.strip()
    secret = text.encode()
    if text.startswith(_PREFIX):
        secret = b64decode(text.removeprefix(_PREFIX), validate=True)
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"got {len(secret)} bytes, expected {SECRET_EXPECTED}")
    return secret


def signed_headers(secret: bytes, id_: str, timestamp_s: int, body: bytes) -> Mapping[str, str]:
    """Return the three headers of a request."""
    timestamp = str(timestamp_s)
    return {ID: id_, TIMESTAMP: timestamp, SIGNATURE: _signature(secret, id_, timestamp, body)}


def is_signed(secret: bytes, headers: Mapping[str, str], body: bytes, now_s: float) -> bool:
    """Return whether a request was signed with the secret, lately. Raises nothing.

    The names of the headers are in lower case, and their values were decoded as Latin-1.
    """
    id_, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not 0 < len(id_) <= _MAX_ID_LENGTH:
        return False
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= _MAX_DIGITS):
        return False
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        return False
    expected = _signature(secret, id_, timestamp, body).encode()
    given = headers.get(SIGNATURE, "").split(" ", _MAX_SIGNATURES)[:_MAX_SIGNATURES]
    matches = [compare_digest(expected, each.encode("utf-8", "replace")) for each in given]
    return any(matches)


def _signature(secret: bytes, id_: str, timestamp: str, body: bytes) -> str:
    signed = f"{id_}.{timestamp}.".encode("latin-1", "replace") + body
    return _VERSION + b64encode(hmac_digest(secret, signed, sha256)).decode()
