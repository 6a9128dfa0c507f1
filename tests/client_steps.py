"""Plays the calls of the client against replies that a test gives, on a clock of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from notifier_client.calls import Calls
from notifier_client.exchange import Answer, Exchange, NoAnswer, Request, Steps, perform
from notifier_client.retrying import Policy

T = TypeVar("T")
LOST = NoAnswer("cut", was_sent=True)
REFUSED = NoAnswer("nobody listens", was_sent=False)


def answer(status: int, document: object = None, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, names, b"" if document is None else json.dumps(document).encode())


def problem(slug: str, status: int, **more: object) -> dict[str, Any]:
    type_ = f"urn:notifier:problem:{slug}"
    return {"type": type_, "title": "A title", "status": status, "detail": "Why.", **more}


def refusal(slug: str, status: int, **headers: str) -> Answer:
    return answer(status, problem(slug, status), **headers)


def accepted(id_: str = "n1", **more: object) -> dict[str, Any]:
    return {"id": id_, "status": "queued", "queue": "email.medium", **more}


def row(status: str = "queued", id_: str = "n1", **more: object) -> dict[str, Any]:
    """A notification, and a member that this version does not know."""
    return {
        "id": id_,
        "status": status,
        "channel": "email",
        "priority": "medium",
        "queue": "email.medium",
        "created_at": "2026-11-28T18:40:46.820768Z",
        "of_a_later_version": {"a": 1},
        **more,
    }


class Player:
    """Gives the replies in their order; the last one again and again.

    An exchange without an answer takes its whole time-out.
    """

    def __init__(self, *replies: Answer | NoAnswer) -> None:
        self._replies = list(replies)
        self.now = 1000.0
        self.requests: list[Request] = []
        self.timeouts: list[float] = []
        self.pauses: list[float] = []
        self.calls = Calls(Policy(clock=lambda: self.now, jitter=lambda: 0.0))

    def run(self, steps: Steps[T]) -> T:
        return perform(steps, self._answer, self._pause)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.body or b"null") for request in self.requests]

    @property
    def paths(self) -> Iterable[str]:
        return [f"{request.method} {request.path}" for request in self.requests]

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def _answer(self, step: Exchange) -> Answer | NoAnswer:
        self.requests.append(step.request)
        self.timeouts.append(step.timeout_s)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        self.now += step.timeout_s if reply is LOST else 0.0
        return reply
