"""What the demo submits, and the status and calls that must follow."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

TRIES: Final = 4
"""`tries` in the demo's settings: the calls of a notification that never succeeds."""


@dataclass(frozen=True, slots=True)
class Fate:
    """How a recipient of the sandbox behaves, and the result of each notification to it."""

    name: str
    digit: int
    status: str
    calls: int
    share: int
    meaning: str


FATES: Final = (
    Fate("ok", 6, "sent", 1, 84, "accepted at once"),
    Fate("refuse", 1, "failed", 1, 4, "refused"),
    Fate("flaky-2", 2, "sent", 3, 6, "unavailable, twice"),
    Fate("down", 4, "failed", TRIES, 3, "always unavailable"),
    Fate("cut", 7, "failed", 2, 3, "accepted, connection cut"),
)

SIZES: Final[Mapping[str, int]] = {
    "email.low": 700,
    "push.low": 300,
    "sms.low": 200,
    "email.medium": 200,
    "push.medium": 150,
    "sms.medium": 100,
    "push.high": 150,
    "email.high": 100,
    "sms.high": 100,
}
"""Submitted in this order: the newsletters first, and later queues must not wait behind them."""


@dataclass(frozen=True, slots=True)
class PlannedNotification:
    """One notification to submit, and the fate of its recipient."""

    queue: str
    fate: Fate
    recipient: str

    def body(self) -> dict[str, Any]:
        """The body of `POST /v1/notifications`."""
        channel, _, priority = self.queue.partition(".")
        return {
            "channel": channel,
            "priority": priority,
            "recipient": self.recipient,
            "content": {"subject": "A demo", "body": f"This recipient's fate is {self.fate.name}."},
        }


def plan_notifications() -> Sequence[PlannedNotification]:
    """All notifications of the demo in the order of their submit. Every call returns the same."""
    return tuple(_plan(random.Random(2000)))  # noqa: S311 a mix of fates, no secret


def _plan(draw: random.Random) -> Iterator[PlannedNotification]:
    for queue, size in SIZES.items():
        rest = draw.choices(FATES, weights=[fate.share for fate in FATES], k=size - len(FATES))
        fates = draw.sample([*FATES, *rest], k=size)
        for number, fate in enumerate(fates):
            yield PlannedNotification(queue, fate, _recipient(queue, fate, number))


def _recipient(queue: str, fate: Fate, number: int) -> str:
    match queue.partition(".")[0]:
        case "email":
            return f"{fate.name}+{number}@example.com"
        case "sms":
            return f"+150055500{number % 10}{fate.digit}"
        case _:
            return f"fate-{fate.name}-{number}"
