"""A bound on requests in flight: what is above it is refused at once, before its body is read."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from notifier.api.http.problems import Kind, Refusal


class Gate:
    """`with gate:` around a request. Raises Refusal when as many as allowed are inside."""

    def __init__(self, most: int) -> None:
        self._free = most

    def __enter__(self) -> Self:
        if self._free <= 0:
            problem = Kind.OVERLOADED.problem("Come back after the time in Retry-After.")
            raise Refusal(problem, {"Retry-After": "1"})
        self._free -= 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._free += 1
