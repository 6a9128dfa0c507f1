"""Lookups: keyed hashes by which notifications are found.

The table of lookups holds only hashes and ids. Tenant, mode, kind and value are inside the hash, so
that one index serves all searches, and the table tells nothing without the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

MAX_METADATA_KEYS: Final = 4
METADATA_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
METADATA_KEY_EXPECTED: Final = "names like order_id: letters, digits, _ and -, at most 64"
MAX_VALUE_LENGTH: Final = 256
"""Characters of a value of metadata that can be searched; longer ones have no lookup."""
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_DIGEST_BYTES: Final = 16
_MAX_KEY_BYTES: Final = 64


class LookupKind(StrEnum):
    """By what a notification is found."""

    RECIPIENT = "recipient"
    TAG = "tag"
    REFERENCE = "reference"
    METADATA = "metadata"


class Lookup(NamedTuple):
    """A kind, with the name of the key for metadata, and a value in its normal form."""

    kind: str
    value: str


class LookupScope(NamedTuple):
    """Whose notifications are found. References have the empty scope: a provider made them."""

    tenant: str = ""
    mode: str = ""


ANY_SCOPE: Final = LookupScope()
FILE: Final = "file"
"""The kind by which those who use a blob are found. No filter has it, and no setting."""
EVENT_OF: Final = "event_of"
"""The kind by which the calls of webhooks with events of a notification are found, as FILE."""


def metadata_kind(key: str) -> str:
    """Return the kind of the values of a key of metadata."""
    return f"{LookupKind.METADATA}.{key}"


def metadata_lookups(metadata: bytes, keys: Sequence[str]) -> Iterator[Lookup]:
    """Yield the lookups of the values of these keys, of metadata that are a JSON object.

    Strings, numbers and booleans have one, as JSON writes them: 17 and "17" are the same.
    """
    if not keys or metadata == b"{}":
        return
    document = _OBJECT.decode(metadata)
    for key in keys:
        value = document.get(key)
        if isinstance(value, str | int | float):
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            if len(text) <= MAX_VALUE_LENGTH:
                yield Lookup(metadata_kind(key), text)


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupRules:
    """Which lookups are stored with a notification. Each costs one entry of an index."""

    recipient: bool = False
    tag: bool = True
    reference: bool = False
    metadata_keys: tuple[str, ...] = ()

    def has(self, kind: str) -> bool:
        """Return whether notifications can be found by this kind."""
        name, _, key = kind.partition(".")
        if name == LookupKind.METADATA:
            return key in self.metadata_keys
        return bool(getattr(self, name))


NO_LOOKUPS: Final = LookupRules(tag=False)


class LookupHasher:
    """Hashes lookups with the key of the deployment."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if not key:
            raise ValueError("got an empty key for lookups")
        self._key = key[:_MAX_KEY_BYTES]

    def digest(self, scope: LookupScope, lookup: Lookup) -> UUID:
        """Return 128 bits of BLAKE2b. No tenant, mode or kind contains NUL."""
        message = f"{scope.tenant}\0{scope.mode}\0{lookup.kind}\0{lookup.value}"
        raw = blake2b(
            message.encode("utf-8", "replace"), key=self._key, digest_size=_DIGEST_BYTES
        ).digest()
        return UUID(bytes=raw)
