"""Whether RabbitMQ is there, said once in the log when it goes and once when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum, auto

from structlog import get_logger

from notifier.adapters.rabbitmq.errors import BrokerRefused
from notifier.domain.errors import BrokerUnavailable


class _State(Enum):
    UNKNOWN = auto()
    THERE = auto()
    AWAY = auto()
    REFUSED = auto()


class ConnectionState:
    """Sums up the parts (connections with their work on them) of one broker.

    `settled` is set once it is known for the first time whether the broker is there.
    """

    def __init__(self, parts: Iterable[str]) -> None:
        self._missing = set(parts)
        self._state = _State.UNKNOWN
        self.settled = asyncio.Event()

    def up(self, part: str) -> None:
        """A part works."""
        self._missing.discard(part)
        if not self._missing:
            self._turn(_State.THERE)

    def down(self, part: str, reason: BrokerUnavailable) -> None:
        """A part lost its connection, or could not connect. Refusals are logged even if away."""
        self._missing.add(part)
        if isinstance(reason, BrokerRefused):
            self._turn(_State.REFUSED, reason)
        elif self._state is not _State.REFUSED:
            self._turn(_State.AWAY, reason)

    def _turn(self, state: _State, reason: BrokerUnavailable | None = None) -> None:
        self.settled.set()
        if state is self._state:
            return
        self._state = state
        log = get_logger(__name__)
        if state is _State.THERE:
            log.info("broker_connected")
        else:
            log.warning("broker_unavailable", refused=state is _State.REFUSED, reason=str(reason))
