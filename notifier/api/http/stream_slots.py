"""A limit on the streams that a process serves, of whatever kind."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from notifier.domain.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

MAX_STREAMS: Final = 500


class StreamSlots:
    """Counts the open streams of this process, together and by who holds them."""

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self._most = most
        self._by_holder: Counter[Hashable] = Counter()

    @contextmanager
    def held(self, holder: Hashable, most: int) -> Iterator[None]:
        """A slot for the duration of the block; `most` are those that one holder may have.

        Raises Overloaded if there are too many.
        """
        if self._by_holder.total() >= self._most:
            raise Overloaded(f"this process serves at most {self._most} streams")
        if self._by_holder[holder] >= most:
            raise Overloaded(f"a key or user may have at most {most} streams of a process")
        self._by_holder[holder] += 1
        try:
            yield
        finally:
            self._by_holder[holder] -= 1
            if not self._by_holder[holder]:
                del self._by_holder[holder]
