"""The text of an API key: `ntf_live_` or `ntf_test_`, id, secret, checksum, all in base62.

The prefix lets scanners of source code find a key that was committed, and the checksum lets them,
and the command line, tell a key from other text without asking a server. Only the SHA-256 of the
secret is stored: with 256 bits it cannot be guessed, so it needs no slow hash.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Final, NewType
from zlib import crc32

KeyId = NewType("KeyId", str)
ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 43
CHECKSUM_LENGTH: Final = 6
ENTROPY_BYTES: Final = 56
_ID_BYTES: Final = 16
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORMAT: Final = re.compile(
    rf"ntf_(live|test)_([0-9A-Za-z]{{{ID_LENGTH}}})([0-9A-Za-z]{{{SECRET_LENGTH}}})"
    rf"([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)
KEY_ID: Final = re.compile(rf"[0-9A-Za-z]{{{ID_LENGTH}}}")


class Mode(StrEnum):
    """Whether notifications are delivered (LIVE), or only to the sandbox in the worker (TEST)."""

    LIVE = "live"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Credential:
    """A key as its owner holds it. `secret` is in no repr."""

    mode: Mode
    id: KeyId
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """The key to show once, when it has been made."""
        body = f"ntf_{self.mode}_{self.id}{self.secret}"
        return body + _checksum(body)

    @property
    def digest(self) -> bytes:
        """What is stored of the secret: its SHA-256, 32 bytes."""
        return sha256(self.secret.encode()).digest()


NO_CREDENTIAL: Final = Credential(Mode.LIVE, KeyId(""), "")
"""What any text that is not a key stands for; no key has this id."""


def new_credential(mode: Mode, entropy: bytes) -> Credential:
    """Make a key from ENTROPY_BYTES random bytes."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"got {len(entropy)} bytes of entropy, expected {ENTROPY_BYTES}")
    id_ = _base62(int.from_bytes(entropy[:_ID_BYTES]), ID_LENGTH)
    return Credential(mode, KeyId(id_), _base62(int.from_bytes(entropy[_ID_BYTES:]), SECRET_LENGTH))


def parse_credential(text: str) -> Credential:
    """Return the key that a text holds; NO_CREDENTIAL for any other text. Raises nothing."""
    parts = _FORMAT.fullmatch(text)
    if parts is None or _checksum(text[:-CHECKSUM_LENGTH]) != parts[4]:
        return NO_CREDENTIAL
    return Credential(Mode(parts[1]), KeyId(parts[2]), parts[3])


def _checksum(body: str) -> str:
    """CRC-32 as zlib computes it: it finds typing errors, and protects nothing."""
    return _base62(crc32(body.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    """Return the last `length` digits of a number."""
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
