"""A limit on the number of requests in flight."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused


class InFlightLimit:
    """A context manager around a request, entered before its body is read.

    Raises RequestRefused (503) on entry when `limit` requests are inside.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit

    def __enter__(self) -> Self:
        if self._free <= 0:
            problem = ProblemType.OVERLOADED.problem(
                "Repeat the request after the time in Retry-After."
            )
            raise RequestRefused(problem, {"Retry-After": "1"})
        self._free -= 1
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._free += 1
