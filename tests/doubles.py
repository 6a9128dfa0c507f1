"""Test doubles for the narrow Protocols of the core."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from uuid import UUID

from notifier.domain.due import DueClass, Position
from notifier.domain.notification import QueueKey, WorkerId
from notifier.ports.heartbeat import NO_FIGURES, DeadProcess, Figures, QueueFigures
from notifier.ports.leases import HeldLease, Progress

BEYOND = Position(datetime(2100, 1, 1, tzinfo=UTC), UUID(int=0))
"""A position beyond all rows."""


@dataclass
class FixedFigures:
    """Reports the figures it is given."""

    value: Figures = NO_FIGURES

    def figures(self) -> Figures:
        return self.value

    def consumers(self) -> int:
        return sum(figures.consumers for figures in self.queue_figures().values())

    @property
    def is_draining(self) -> bool:
        return self.value.is_draining

    def queue_figures(self) -> Mapping[QueueKey, QueueFigures]:
        return self.value.queues


@dataclass
class FixedProcesses:
    """What one process knows of the others. Implements recovery.orphans.Processes.

    `live` have not left; `dead_processes` have a row. This process is alive as `is_alive_itself`
    says.
    """

    live: Collection[WorkerId] = ()
    dead_processes: Sequence[DeadProcess] = ()
    departures: int = 0
    is_alive_itself: bool = True

    def is_alive(self) -> bool:
        return self.is_alive_itself

    def dead(self) -> Sequence[DeadProcess]:
        return self.dead_processes

    def has_left(self, process: WorkerId) -> bool:
        return process not in self.live


@dataclass
class FixedTerms:
    """Holds leases of these terms. Implements ports.leases.HeldLeases.

    All classes of turn 0 have the same floor, those of the other `turns` none.
    """

    terms: Mapping[QueueKey, int]
    floor: Position = BEYOND
    turns: tuple[int, ...] = ()

    def held(self) -> Mapping[QueueKey, HeldLease]:
        progress = Progress(floors=dict.fromkeys(DueClass, self.floor))
        return {
            queue: HeldLease(
                queue=queue,
                term=term,
                progress=progress,
                renewed_at=0.0,
                passed_at=0.0,
                turns=self.turns,
            )
            for queue, term in self.terms.items()
        }


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


class Draws(Random):
    """Draws these numbers in turn, again and again."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self._numbers = itertools.cycle(numbers)

    def random(self) -> float:
        return next(self._numbers)
