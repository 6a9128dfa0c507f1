"""Takes a few of many keys at a time, each in its turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

K = TypeVar("K")


class Rotation:
    """The place in a list that may change between two turns."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, keys: Sequence[K], count: int) -> Sequence[K]:
        """Return the next `count` keys, all of them if there are not more.

        If the list stays the same, each key is returned once in `len(keys) / count` turns.
        """
        if count >= len(keys):
            return keys
        first = self._next % len(keys)
        self._next = first + count
        taken = keys[first : first + count]
        return [*taken, *keys[: count - len(taken)]]
