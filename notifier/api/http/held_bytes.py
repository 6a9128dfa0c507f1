"""A limit on the bytes of large bodies that this process holds at once."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused


class HeldBytes:
    """The bytes of all requests that hold a large body; at most `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    def request(self) -> HeldBody:
        """Returns the part of one request, for the time of a `with` block."""
        return HeldBody(self)

    def take(self, size: int) -> None:
        """Holds more bytes. Raises RequestRefused (503) if that would be too many.

        A body that is larger than the limit is held if it is the only one.
        """
        if self._held and self._held + size > self._limit:
            problem = ProblemType.OVERLOADED.problem(
                "Other requests with files fill the memory for them. Repeat the request after the "
                "time in Retry-After."
            )
            raise RequestRefused(problem, {"Retry-After": "1"})
        self._held += size

    def give_back(self, size: int) -> None:
        """Holds these bytes no longer."""
        self._held -= size


class HeldBody:
    """A context manager around one request: what it takes is given back at its end."""

    def __init__(self, held: HeldBytes) -> None:
        self._held = held
        self._size = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was taken."""
        return not self._size

    def take(self, size: int) -> None:
        """Takes bytes. Raises RequestRefused (503)."""
        self._held.take(size)
        self._size += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.give_back(self._size)
        self._size = 0
