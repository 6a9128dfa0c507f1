"""An event loop whose clock jumps to the next timer, so that simulated time passes at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Final, TypeVar

T = TypeVar("T")
MIN_STEP_S: Final = 1e-9
"""The clock advances at every step: a limiter does not expect a clock that stands still."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A test may move `now` forward, as if a callback had blocked the loop for that long."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "deadlock: no timer is left, and every task waits"
        self._loop.now += max(MIN_STEP_S, timeout)
        return super().select(0)


def run_virtually(coroutine: Coroutine[None, None, T]) -> T:
    """Run a coroutine on a new loop with a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)
