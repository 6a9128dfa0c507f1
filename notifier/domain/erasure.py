"""Erasures: what is stored of a recipient is wiped, and only a hash tells who it was.

The hashes have the key of the deployment, so that nobody who lacks it can test guesses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from notifier.domain.lookups import ANY_SCOPE, Lookup, LookupHasher
from notifier.domain.mailbox import NamedAddress
from notifier.domain.recipients import recipient_identity

KIND: Final = "erase"
"""The kind of the hashes by which erasures know recipients."""
ERASED_TEXT: Final = "erased"
"""What stands in place of a recipient in the filter of an earlier operation. Nobody has it."""


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure concerns, as it is stored.

    `recipients` are hashes of recipients in their normal form. `lookups` are those of the same in
    the scope of each tenant, as in the tables of lookups and suppressions. `channels` are the
    channels that the callers asked for; none: any.
    """

    recipients: Sequence[UUID]
    lookups: Sequence[UUID]
    channels: Sequence[str] = ()


def erasure_hash(hasher: LookupHasher, recipient: str) -> UUID:
    """Return the hash of a recipient, whatever its spelling and whosesoever it is."""
    return hasher.digest(ANY_SCOPE, Lookup(KIND, recipient_identity(recipient)))


def erased_recipient(hasher: LookupHasher, recipient: str) -> str:
    """Return what stands for an erased recipient that must still be told from others."""
    return f"{ERASED_TEXT}:{erasure_hash(hasher, named_address(recipient).strip())}"


def named_address(text: str) -> str:
    """Return the address of a mailbox that may have a name, as people write it."""
    try:
        return NamedAddress.parse(text).address
    except ValueError:
        return text


def names_recipient(hasher: LookupHasher, erasure: Erasure, text: object) -> bool:
    """Return whether a value is one of the erased recipients."""
    if not isinstance(text, str):
        return False
    return erasure_hash(hasher, named_address(text).strip()) in erasure.recipients


def without_recipients(hasher: LookupHasher, erasure: Erasure, document: object) -> object:
    """Return a JSON document in which no text is one of the erased recipients."""
    if isinstance(document, Mapping):
        return {
            name: without_recipients(hasher, erasure, value) for name, value in document.items()
        }
    if isinstance(document, list):
        return [without_recipients(hasher, erasure, value) for value in document]
    return ERASED_TEXT if names_recipient(hasher, erasure, document) else document


def all_metadata_keys(metadata: bytes) -> Sequence[str]:
    """Return the keys of stored metadata, any of which may have had a lookup."""
    try:
        return list(msgspec.json.decode(metadata, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
