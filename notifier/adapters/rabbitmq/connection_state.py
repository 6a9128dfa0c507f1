"""The state of the connection to RabbitMQ, logged once when it is lost and once when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum, auto

from structlog import get_logger

from notifier.adapters.rabbitmq.errors import BrokerRefused
from notifier.domain.errors import BrokerUnavailable


class _State(Enum):
    UNKNOWN = auto()
    CONNECTED = auto()
    UNAVAILABLE = auto()
    REFUSED = auto()


class ConnectionState:
    """Sums up the parts of one broker: its connections, each with the channel that must work.

    `known` is set once the state is known for the first time.
    """

    def __init__(self, parts: Iterable[str]) -> None:
        self._failed = set(parts)
        self._state = _State.UNKNOWN
        self.known = asyncio.Event()

    def part_works(self, part: str) -> None:
        """Record that a part works."""
        self._failed.discard(part)
        if not self._failed:
            self._change(_State.CONNECTED)

    def part_failed(self, part: str, reason: BrokerUnavailable) -> None:
        """Record that a part lost its connection or could not connect.

        A refusal is logged even after the broker was unavailable.
        """
        self._failed.add(part)
        if isinstance(reason, BrokerRefused):
            self._change(_State.REFUSED, reason)
        elif self._state is not _State.REFUSED:
            self._change(_State.UNAVAILABLE, reason)

    def _change(self, state: _State, reason: BrokerUnavailable | None = None) -> None:
        self.known.set()
        if state is self._state:
            return
        self._state = state
        log = get_logger(__name__)
        if state is _State.CONNECTED:
            log.info("broker_connected")
        else:
            log.warning("broker_unavailable", refused=state is _State.REFUSED, reason=str(reason))
