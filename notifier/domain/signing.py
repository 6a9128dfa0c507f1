"""Tokens that this deployment signs, so that it need not store them."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest


class Purpose(StrEnum):
    """What a token is for. A token of one purpose is none of another."""

    SESSION = "session"
    UNSUBSCRIBE = "unsubscribe"
    INBOX = "inbox"


class Signer:
    """Signs with the first of its secrets, and verifies with all of them."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("got no secret, expected at least one")
        self._secrets = tuple(secrets)

    def sign(self, purpose: Purpose, payload: str) -> str:
        """Return a token: the payload, a dot and the signature, in ASCII if the payload is."""
        return f"{payload}.{_signature(self._secrets[0], purpose, payload)}"

    def verify(self, purpose: Purpose, token: str) -> str | None:
        """Return the payload of a token; None for any other text. Raises nothing."""
        payload, _, signature = token.rpartition(".")
        given = signature.encode("utf-8", "replace")
        matches = [
            compare_digest(_signature(secret, purpose, payload).encode(), given)
            for secret in self._secrets
        ]
        return payload if any(matches) else None


def _signature(secret: bytes, purpose: Purpose, payload: str) -> str:
    message = f"{purpose}\0{payload}".encode("utf-8", "replace")
    return urlsafe_b64encode(hmac_digest(secret, message, sha256)).decode().rstrip("=")
