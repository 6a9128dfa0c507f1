"""The colours: one meaning has one colour on every dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class State(NamedTuple):
    """One state of a state timeline: its number in the query, its name, its colour."""

    number: int
    name: str
    colour: str


PRIORITIES: Final[dict[str, str]] = {"high": "purple", "medium": "blue", "low": "light-blue"}

FINAL_STATUSES: Final[dict[str, str]] = {
    "sent": "green",
    "failed": "red",
    "expired": "orange",
    "suppressed": "purple",
    "cancelled": "yellow",
}
"""The final statuses that the dashboards show."""
FLOW: Final[Mapping[str, str]] = {"accepted": "blue"} | FINAL_STATUSES

OUTCOMES: Final[Mapping[str, str]] = {
    "accepted": "green",
    "refused": "orange",
    "deferred": "light-blue",
    "throttled": "yellow",
    "unavailable": "red",
    "misconfigured": "dark-red",
    "ambiguous": "purple",
}

FAILURES: Final[Mapping[str, str]] = {
    "refused": "orange",
    "exhausted": "red",
    "ambiguous": "purple",
    "poison": "dark-red",
    "render": "yellow",
}

WAITING: Final[Mapping[str, str]] = {"due in Postgres": "blue", "ready in RabbitMQ": "orange"}
QUANTILES: Final[dict[str, str]] = {"p50": "light-blue", "p99": "blue"}
PROMISE: Final[dict[str, str]] = {"promised": "text"}

TROUBLE: Final[Mapping[str, str]] = {
    "lost in RabbitMQ": "orange",
    "its process died": "red",
    "given back": "light-blue",
}

BREAKER_STATES: Final = (
    State(0, "closed", "green"),
    State(1, "half-open", "yellow"),
    State(2, "open", "red"),
)
BREAKER_RANKS: Final = {"half_open": 1, "open": 2}

LIMIT_STATES: Final = (
    State(0, "no worker", "dark-red"),
    State(1, "need", "green"),
    State(2, "consumers", "yellow"),
    State(3, "connections", "light-yellow"),
    State(4, "rate", "blue"),
    State(5, "hang", "orange"),
    State(6, "breaker", "red"),
    State(7, "pause", "purple"),
    State(8, "broker", "dark-orange"),
)
LIMIT_RANKS: Final = {state.name: state.number for state in LIMIT_STATES if state.number}

HANG_STATES: Final = (State(0, "answers", "green"), State(1, "hangs", "red"))
UP_STATES: Final = (State(0, "unavailable", "red"), State(1, "up", "green"))
