"""The series of one metric by key, bounded: whatever comes, a process has only so many."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar

OTHER: Final = "other"

K = TypeVar("K", bound=Hashable)
M = TypeVar("M")


class Children(dict[K, M], Generic[K, M]):
    """A plain lookup, where `labels()` formats and locks. All known keys are made at the start.

    A key not known at the start shares the series `other`.
    """

    def __init__(self, child: Callable[..., M], labels: int, keys: Iterable[K]) -> None:
        super().__init__((key, child(*_labels(key))) for key in keys)
        self._child, self._width = child, labels

    def __missing__(self, _: K) -> M:
        return self._child(*[OTHER] * self._width)


class FirstSeen(dict[tuple[str, str], M], Generic[M]):
    """Series by (owner, word), where words are the world's: the first `most` of each owner.

    The words that come later share its series `other`, as do all owners that are not known.
    """

    def __init__(self, child: Callable[[str, str], M], owners: Iterable[str], most: int) -> None:
        super().__init__()
        self._child = child
        self._left = dict.fromkeys(owners, most)

    def __missing__(self, key: tuple[str, str]) -> M:
        owner, _ = key
        if not self._left.get(owner):
            return self._child(owner if owner in self._left else OTHER, OTHER)
        self._left[owner] -= 1
        made = self[key] = self._child(*key)
        return made


def _labels(key: object) -> tuple[str, ...]:
    return tuple(str(part) for part in key) if isinstance(key, tuple) else (str(key),)
