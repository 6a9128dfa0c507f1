"""Which notifications this worker has in its hands: the judge of what is an orphan.

An id enters before its claim is asked and leaves when its record or release is confirmed.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notifier.domain.notification import NotificationId


class InFlight:
    """A multiset of ids: two copies of one pointer may be in hand at once."""

    def __init__(self) -> None:
        self._held: Counter[NotificationId] = Counter()

    def __contains__(self, id_: object) -> bool:
        return id_ in self._held

    @contextmanager
    def holding(self, id_: NotificationId) -> Iterator[None]:
        """In the set for the length of the block."""
        self._held[id_] += 1
        try:
            yield
        finally:
            self._held[id_] -= 1
            if not self._held[id_]:
                del self._held[id_]
