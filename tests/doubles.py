"""Test doubles for the narrow Protocols of the core."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from notifier.domain.notification import QueueKey
from notifier.ports.heartbeat import NO_FIGURES, DeadProcess, Figures, QueueFigures


@dataclass
class FixedFigures:
    """Reports the figures it is given."""

    value: Figures = NO_FIGURES

    def figures(self) -> Figures:
        return self.value

    def queue_figures(self) -> Mapping[QueueKey, QueueFigures]:
        return self.value.queues


@dataclass
class DeadList:
    """Lists the processes that count as dead."""

    processes: list[DeadProcess] = field(default_factory=list)

    def dead(self) -> Sequence[DeadProcess]:
        return self.processes


@dataclass
class FixedLiveness:
    """Is alive as it is set. Implements ports.heartbeat.Liveness."""

    value: bool = True

    def is_alive(self) -> bool:
        return self.value

    async def wait_until_alive(self) -> None:
        return


class PermissionChange(asyncio.Event):
    """Is set when the permission of some queue has changed."""

    def permissions_changed(self) -> None:
        self.set()
