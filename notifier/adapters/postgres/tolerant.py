"""Decodes what other versions wrote: an entry that this version does not understand is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Key = TypeVar("Key")
Value = TypeVar("Value")


def decode_entries(
    stored: Mapping[str, msgspec.Raw], read_key: Callable[[str], Key], type_: type[Value]
) -> dict[Key, Value]:
    """Decode the entries whose key and value fit. `read_key` raises ValueError for another key."""
    entries: dict[Key, Value] = {}
    for name, raw in stored.items():
        try:
            entries[read_key(name)] = msgspec.json.decode(raw, type=type_)
        except (ValueError, msgspec.DecodeError):
            continue
    return entries
