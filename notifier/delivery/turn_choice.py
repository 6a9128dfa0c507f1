"""Chooses the turns of new rows: the first ones of each tenant go to turn 0. Pure.

A tenant has credit in each queue: some rows at once, and a few each second. What it submits beyond
them waits in the turn of its name, and so does what it submits for later. So a tenant with little
to send stands behind the first rows of others only, however much these have submitted.

Turn 0 of a queue itself takes as many rows in a second as half the workers' throughput, and beyond
that of each tenant only the first row.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from notifier.delivery.publisher import NO_THROUGHPUT
from notifier.domain.features import NEEDED_FOR_TURNS
from notifier.domain.notification import Status
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.domain.turns import turn_of
from notifier.ports.store import NO_TURNS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from notifier.delivery.direct_publish import ApiCluster
    from notifier.domain.notification import NewNotification, NotificationId, QueueKey
    from notifier.domain.tenants import TenantId
    from notifier.lifecycle import Clock
    from notifier.ports.heartbeat import FeatureCheck

TENANT_ROWS: Final = 20
TENANT_ROWS_PER_S: Final = 2.0
"""The credit of a tenant in a queue."""
QUEUE_ROWS: Final = 500
MIN_QUEUE_ROWS_PER_S: Final = 50.0
QUEUE_SHARE: Final = 0.5
"""What turn 0 takes: rows at once, and each second, at least and as a share of the throughput."""
SEVERAL: Final = 2
MAX_CREDITS: Final = 50_000


class Tenants(Protocol):
    """The tenants of the deployment; implemented by api.auth.keyring.Keyring."""

    def known_tenants(self) -> Collection[TenantId]:
        """Return the tenants that exist, as read last."""
        ...


@dataclass(slots=True)
class _Credit:
    """Rows that may be stored in turn 0, as of an instant."""

    rows: float
    at: float

    def refill(self, now: float, *, rate_per_s: float, limit: float) -> None:
        self.rows = min(limit, self.rows + (now - self.at) * rate_per_s)
        self.at = now


class TurnChoice:
    """Implements accept.TurnChooser for the submits of one process. `clock` counts seconds.

    `tenants` is None if nobody knows which tenants there are: then those count that have submitted
    here.
    """

    def __init__(
        self,
        *,
        tenants: Tenants | None,
        features: FeatureCheck,
        cluster: ApiCluster,
        clock: Clock = time.monotonic,
    ) -> None:
        self._tenants = tenants
        self._features = features
        self._cluster = cluster
        self._clock = clock
        self._seen: set[TenantId] = set()
        """Tenants that have submitted here; two are enough."""
        self._credits: dict[tuple[QueueKey, TenantId], _Credit] = {}
        self._queues: dict[QueueKey, _Credit] = {}

    def choose(
        self, items: Sequence[NewNotification], direct: Collection[NotificationId] = ()
    ) -> Mapping[NotificationId, int]:
        """Return the turns of those of these items that are not to be stored in turn 0.

        Those in `direct` are. All are stored there while one tenant uses the deployment, and while
        a worker lives that reads no other turn.
        """
        if not self._is_shared(items):
            return NO_TURNS
        items = [
            item for item in items if item.id not in direct and item.status is not Status.SUPPRESSED
        ]
        if not items or self._features.refusal(NEEDED_FOR_TURNS):
            return NO_TURNS
        now = self._clock()
        self._refill_queues({item.queue for item in items}, now)
        return {item.id: turn_of(item.tenant) for item in items if not self._is_first(item, now)}

    def _is_shared(self, items: Sequence[NewNotification]) -> bool:
        """Whether more than one tenant uses the deployment."""
        if len(self._seen) < SEVERAL:
            self._seen.update(item.tenant for item in items)
        if len(self._seen) >= SEVERAL:
            return True
        known = self._tenants.known_tenants() if self._tenants else ()
        # The default tenant may exist without being used.
        named = len(known) - (DEFAULT_TENANT in known)
        return named + (DEFAULT_TENANT in self._seen) >= SEVERAL

    def _is_first(self, item: NewNotification, now: float) -> bool:
        """Take the credit for a row of turn 0; returns whether there was enough."""
        if item.status is not Status.QUEUED:
            return False
        of_tenant = self._credit(item.queue, item.tenant, now)
        of_queue = self._queues[item.queue]
        is_full = of_tenant.rows >= TENANT_ROWS
        if of_tenant.rows < 1 or (of_queue.rows < 1 and not is_full):
            return False
        of_tenant.rows -= 1
        of_queue.rows = max(0.0, of_queue.rows - 1)
        return True

    def _credit(self, queue: QueueKey, tenant: TenantId, now: float) -> _Credit:
        credit = self._credits.get((queue, tenant))
        if credit is None:
            if len(self._credits) >= MAX_CREDITS:
                self._forget_full(now)
            credit = self._credits[queue, tenant] = _Credit(TENANT_ROWS, now)
        credit.refill(now, rate_per_s=TENANT_ROWS_PER_S, limit=TENANT_ROWS)
        return credit

    def _forget_full(self, now: float) -> None:
        """Forget the credits that are full again; all, if there are too many others."""
        spent_since = now - TENANT_ROWS / TENANT_ROWS_PER_S
        self._credits = {
            key: credit for key, credit in self._credits.items() if credit.at > spent_since
        }
        if len(self._credits) >= MAX_CREDITS:
            self._credits.clear()

    def _refill_queues(self, queues: Collection[QueueKey], now: float) -> None:
        throughput = self._cluster.throughput()
        processes = max(1, self._cluster.api_count())
        for queue in queues:
            drain_per_s = throughput.get(queue, NO_THROUGHPUT).drain_per_s
            rate = max(MIN_QUEUE_ROWS_PER_S, QUEUE_SHARE * drain_per_s) / processes
            credit = self._queues.setdefault(queue, _Credit(QUEUE_ROWS, now))
            credit.refill(now, rate_per_s=rate, limit=max(QUEUE_ROWS, rate))
