"""What calls and the code that performs them tell each other.

A call is a generator of steps: it yields an Exchange and is sent its reply, or it yields a Pause.
So the synchronous and the asynchronous client have the same calls and differ only in how they
perform a step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

T = TypeVar("T")
_SUCCESS: Final = range(200, 300)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request. `path` is below `/v1`, with its query.

    `is_repeatable` says that a second one changes nothing more: it reads, has an idempotency key,
    or asks for what is so already.
    """

    method: str
    path: str
    is_repeatable: bool
    body: bytes | None = None
    content_type: str = "application/json"
    idempotency_key: str | None = None


@dataclass(frozen=True)
class Answer:
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        """Whether the request was carried out (2xx)."""
        return self.status in _SUCCESS

    @property
    def retry_after_s(self) -> float | None:
        """The seconds of Retry-After, null if there is none that can be read."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdecimal():
            return float(text)
        try:
            at = parsedate_to_datetime(text)
        except (TypeError, ValueError):
            return None
        at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
        return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())


@dataclass(frozen=True)
class NoAnswer:
    """No answer came. `was_sent` is false if no byte of the request can have arrived."""

    reason: str
    was_sent: bool


@dataclass(frozen=True)
class Exchange:
    """Send the request once. Without a whole answer after `timeout_s` the reply is NoAnswer."""

    request: Request
    timeout_s: float


@dataclass(frozen=True)
class Pause:
    """Wait. The reply is None."""

    seconds: float


Step = Exchange | Pause
Reply = Answer | NoAnswer | None
Steps = Generator[Step, Reply, T]


def perform(
    steps: Steps[T],
    exchange: Callable[[Exchange], Answer | NoAnswer],
    pause: Callable[[float], None],
) -> T:
    """Perform the steps of a call, each by the function for it, and return the call's result."""
    reply: Reply = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if isinstance(step, Exchange):
            reply = exchange(step)
        else:
            pause(step.seconds)
            reply = None
