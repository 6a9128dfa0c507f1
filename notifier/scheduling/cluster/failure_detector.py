"""Which other processes are alive, judged by one process with its own monotonic clock.

A process is dead when its counter has not moved for DEAD_AFTER_S during which every heartbeat of
this process succeeded. An outage of Postgres or a pause of this process declares no process dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from notifier.domain.liveness import BEAT_INTERVAL_S, DEAD_AFTER_S, MAX_BEAT_GAP_S
from notifier.domain.notification import WorkerId
from notifier.ports.heartbeat import DeadProcess, WorkerFigures

BEATING_S: Final = 1.5 * BEAT_INTERVAL_S
"""A counter that has moved since then is that of a process that beats."""


@dataclass(slots=True)
class _Peer:
    figures: WorkerFigures
    moved_at: float
    has_moved: bool = False


class FailureDetector:
    """Receives the result of every heartbeat of this process. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._peers: dict[WorkerId, _Peer] = {}
        self._beat_at = float("-inf")
        self._unbroken_since = float("-inf")
        self._live: frozenset[WorkerId] = frozenset()
        self.departures = 0
        """How often another process has left: it died, or its row was deleted."""

    def beat_failed(self) -> None:
        """A heartbeat of this process failed: all spans restart at the next one that succeeds."""
        self._beat_at = float("-inf")

    def beat_succeeded(self, rows: Sequence[WorkerFigures], now: float) -> None:
        """A heartbeat of this process returned the rows of the other processes."""
        if now - self._beat_at > MAX_BEAT_GAP_S:
            self._unbroken_since = now
        self._beat_at = now
        self._peers = {row.id: self._observed(row, now) for row in rows}
        live = frozenset(peer.id for peer in self.live())
        self.departures += len(self._live - live)
        self._live = live

    def _observed(self, row: WorkerFigures, now: float) -> _Peer:
        before = self._peers.get(row.id)
        if before is None:
            return _Peer(row, now)
        if before.figures.beat == row.beat:
            return _Peer(row, before.moved_at, before.has_moved)
        return _Peer(row, now, has_moved=True)

    def dead(self) -> list[DeadProcess]:
        """The dead processes that still have a row, each with its last counter."""
        return [
            DeadProcess(peer.figures.id, peer.figures.beat)
            for peer in self._peers.values()
            if self._is_dead(peer)
        ]

    def observed_deaths(self) -> set[WorkerId]:
        """The dead processes that this process saw alive; older rows do not count."""
        return {
            peer.figures.id
            for peer in self._peers.values()
            if peer.has_moved and self._is_dead(peer)
        }

    def live(self) -> list[WorkerFigures]:
        """The other live processes.

        Live is a process that is not dead and whose counter has moved since this process observes
        it, or whose row was recent when it was read first.
        """
        return [
            peer.figures
            for peer in self._peers.values()
            if not self._is_dead(peer) and (peer.has_moved or peer.figures.age_s < DEAD_AFTER_S)
        ]

    def beating(self) -> frozenset[WorkerId]:
        """The processes whose counter moved between the last heartbeats of this process."""
        return frozenset(
            peer.figures.id
            for peer in self._peers.values()
            if peer.has_moved and self._beat_at - peer.moved_at < BEATING_S
        )

    def has_left(self, process: WorkerId) -> bool:
        """Whether another process is dead or had no row at the last heartbeat."""
        peer = self._peers.get(process)
        return peer is None or self._is_dead(peer)

    def _is_dead(self, peer: _Peer) -> bool:
        return self._beat_at - max(peer.moved_at, self._unbroken_since) >= DEAD_AFTER_S
