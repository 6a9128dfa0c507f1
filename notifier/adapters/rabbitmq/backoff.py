"""How long to wait before trying again: 0.1 s doubling up to 2 s, jittered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_S: Final = 0.1
LONGEST_S: Final = 2.0


class Backoff:
    """Half of each span is fixed, half is random, so that a fleet does not return in step."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._span_s = FIRST_S

    @property
    def is_fresh(self) -> bool:
        """Whether nothing failed since it worked."""
        return self._span_s == FIRST_S

    def next_s(self) -> float:
        """The span to wait now, in seconds; the next one is longer."""
        span, self._span_s = self._span_s, min(self._span_s * 2, LONGEST_S)
        return span / 2 + self._random() * span / 2

    def reset(self) -> None:
        """It worked: begin with the shortest span again."""
        self._span_s = FIRST_S
