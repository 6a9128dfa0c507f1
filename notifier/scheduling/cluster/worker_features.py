"""Which workers lack a feature of this version, by their heartbeats.

A worker counts until it deletes its row, or until 60 s after its last heartbeat: one that died is
usually started again within that time, in the version that it had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.errors import FeatureUnavailable
from notifier.domain.features import ALL_FEATURES
from notifier.domain.liveness import SENDING_KINDS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from notifier.domain.notification import WorkerId
    from notifier.ports.heartbeat import WorkerFigures
    from notifier.ports.observer import MembershipObserver

COUNTS_FOR_S: Final = 60.0
"""As long as `GET /v1/workers` lists a process after its last heartbeat."""

log = structlog.get_logger(__name__)


class WorkerFeatures:
    """Implements ports.heartbeat.FeatureCheck and LackedFeatures by the rows of each heartbeat."""

    def __init__(self, observer: MembershipObserver) -> None:
        self._observer = observer
        self._behind: Mapping[WorkerId, WorkerFigures] | None = None

    def beat_succeeded(self, rows: Sequence[WorkerFigures]) -> None:
        """A heartbeat of this process returned the rows of the other processes."""
        known = self._behind or {}
        self._behind = {row.id: row for row in rows if _counts(row) and _lacks(row)}
        for row in self._behind.values():
            if row.id not in known:
                log.warning(
                    "worker_behind",
                    worker=str(row.id),
                    host=row.host,
                    process=row.pid,
                    version=row.version,
                    lacks=sorted(_lacks(row)),
                )
        self._observer.workers_behind(len(self._behind))

    def refusal(self, features: Collection[str]) -> FeatureUnavailable | None:
        """Return why a notification with these features may not be stored now, None if it may.

        Nothing is refused while no worker lives. Before the first heartbeat everything is.
        """
        if self._behind is None:
            return FeatureUnavailable(min(features), "this process has not read the workers yet")
        for row in self._behind.values():
            if lacking := _lacks(row).intersection(features):
                return FeatureUnavailable(min(lacking), f"{_described(row)} does not understand it")
        return None

    def is_lacked(self, feature: str) -> bool:
        """Whether a live worker is known to lack this feature."""
        return any(feature in _lacks(row) for row in (self._behind or {}).values())


def _counts(row: WorkerFigures) -> bool:
    return row.kind in SENDING_KINDS and row.age_s < COUNTS_FOR_S


def _lacks(row: WorkerFigures) -> frozenset[str]:
    return ALL_FEATURES - row.features


def _described(row: WorkerFigures) -> str:
    return f"the worker on host {row.host} with pid {row.pid} ({row.version or 'an old version'})"
