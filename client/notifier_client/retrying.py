"""Which replies are followed by another attempt of the same request, and when.

The rules are those of the page `/docs/problems`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from notifier_client.decoding import Undecodable, parse_object
from notifier_client.errors import error_of, problem_slug
from notifier_client.exchange import Answer, Exchange, NoAnswer, Pause, Request, Steps

SAFE: Final = frozenset(
    {
        "body-timeout",
        "feature-unavailable",
        "head-timeout",
        "idempotency-pending",
        "not-ready",
        "overloaded",
        "rate-limited",
    }
)
"""Problems after which nothing was stored."""
_REPEATED_STATUSES: Final = frozenset({408, 429, 503})
_RATE_LIMITED: Final = 429
_FIRST_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 5.0
_MAX_DOUBLINGS: Final = 10
_MIN_TIMEOUT_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long a call and each of its attempts may take, in seconds.

    `clock` is monotonic; `jitter` returns a number from 0 to 1.
    """

    deadline_s: float = 30.0
    timeout_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random


def attempts(request: Request, policy: Policy) -> Steps[Answer]:
    """Send the request until an answer is no reason to repeat it, and return that answer.

    Raises NotifierError if there is no answer, or if the next attempt would come after the
    deadline.
    """
    ends_at = policy.clock() + policy.deadline_s
    number = 0
    while True:
        remaining_s = max(ends_at - policy.clock(), _MIN_TIMEOUT_S)
        reply = yield Exchange(request, min(policy.timeout_s, remaining_s))
        if reply is None:
            raise TypeError("expected the reply to an Exchange, got that to a Pause")
        is_last = not may_repeat(request, reply)
        if is_last and isinstance(reply, Answer):
            return reply
        pause_s = pause_before(number, reply, policy.jitter())
        if is_last or policy.clock() + pause_s >= ends_at:
            raise error_of(reply, request.idempotency_key)
        yield Pause(pause_s)
        number += 1


def may_repeat(request: Request, reply: Answer | NoAnswer) -> bool:
    """Return whether the same request may follow this reply, and has a chance.

    A problem that says that nothing was stored may be repeated. After a lost connection, a
    `store-unavailable` or the answer of a proxy only what is repeatable.
    """
    if isinstance(reply, NoAnswer):
        return request.is_repeatable or not reply.was_sent
    if reply.is_success:
        return False
    slug = _slug(reply)
    if slug in SAFE or (slug is None and reply.status == _RATE_LIMITED):
        return True
    return reply.status in _REPEATED_STATUSES and request.is_repeatable


def pause_before(number: int, reply: Answer | NoAnswer, jitter: float) -> float:
    """Return the seconds before the next attempt; `number` attempts failed before this one.

    It doubles from 0.1 s to 5 s and is shortened by up to half, so that clients do not come at
    once. A Retry-After is the least.
    """
    doubled = min(_FIRST_PAUSE_S * 2.0 ** min(number, _MAX_DOUBLINGS), _MAX_PAUSE_S)
    pause_s = doubled * (1 - jitter / 2)
    asked_s = reply.retry_after_s if isinstance(reply, Answer) else None
    return pause_s if asked_s is None else asked_s + pause_s


def _slug(answer: Answer) -> str | None:
    try:
        return problem_slug(parse_object(answer.body))
    except Undecodable:
        return None
