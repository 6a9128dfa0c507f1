"""Checks regularly whether the broker accepts publishes."""

from __future__ import annotations

import time
from typing import Final

from notifier.ports.broker import Broker
from notifier.ports.observer import DependencyObserver

CHECK_INTERVAL_S: Final = 1.0


class BrokerCheck:
    """The result of the last check, for readiness; each check also reports to the metrics."""

    def __init__(self, broker: Broker, observer: DependencyObserver) -> None:
        self._broker = broker
        self._observer = observer
        self.is_available = False

    async def run_once(self) -> None:
        """Check once, and measure how long the broker takes."""
        began = time.monotonic()
        self.is_available = await self._broker.probe()
        if self.is_available:
            self._observer.dependency_answered("rabbitmq", time.monotonic() - began)
        else:
            self._observer.dependency_unavailable("rabbitmq")
