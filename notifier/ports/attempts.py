"""Attempts: what the scheduling side asks of the delivery side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from notifier.domain.timing import AttemptTiming
from notifier.ports.broker import Delivery, Pointer


class AttemptRunner(Protocol):
    """Runs the attempts of one worker. Implemented by delivery.attempt.Attempts."""

    async def attempt(self, delivery: Delivery, ack: Callable[[Delivery], None]) -> AttemptTiming:
        """Claim, send and record one notification, then call `ack` with the delivery.

        A duplicate delivery of a notification in flight is acknowledged and ignored. Whatever
        else it raises than CancelledError ends the worker. Cancelled during the provider call,
        it records the outcome as Ambiguous before it ends; cancelled elsewhere, it leaves the
        message unacknowledged, and the release of orphans gives the row back.
        """
        ...

    async def give_back_pointers(self, pointers: Sequence[Pointer]) -> None:
        """Make buffered, unclaimed rows due again without spending a try.

        Returns when Postgres has confirmed it; raises an InfrastructureError if it has not.
        """
        ...
