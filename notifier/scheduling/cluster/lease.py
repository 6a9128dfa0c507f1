"""Which leases one process may acquire and which it gives away: decisions, without I/O.

A lease that its holder does not renew is free after LEASE_FREE_AFTER_S, judged by this process's
own reads (see domain/liveness.py); a released one is free at once. The first worker in rank
acquires a free lease at once, each further one RANK_DELAY_S later: every free lease finds a holder,
and leases that many workers see free are spread over them. A worker that has just started comes
NEW_DELAY_S later for a lease that its holder does not renew: the new holder settles what a dead one
was sending, and a worker that has not seen it alive counts it as dead later than others do.
"""

from __future__ import annotations

from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from notifier.domain.liveness import DEAD_AFTER_S, LEASE_FREE_AFTER_S, MAX_LEASE_READ_GAP_S

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from notifier.domain.notification import QueueKey, WorkerId
    from notifier.ports.leases import HeldLease, Lease

RANK_DELAY_S: Final = 0.3
NEW_DELAY_S: Final = 1.0
"""How much later a worker that has just started takes over the lease of a silent holder."""
STALLED_AFTER_S: Final = 10.0
"""A lease is given up when its relay has finished no pass for this long."""
UNPUBLISHABLE_AFTER_S: Final = 5.0
"""A lease is given up when the broker has taken none of its publishes for this long."""
GIVEN_UP_S: Final = 10.0
"""For this long after it gave a lease up, a process is the last in rank for it."""
HAND_OVER_INTERVAL_S: Final = 10.0
"""A process hands over one lease at most in this time, to a worker that has lived for as long."""
HAND_OVER_RETRY_S: Final = 60.0
"""A worker is offered the same lease again after this time: it may be unable to acquire it."""


def rank(queue: QueueKey, worker: WorkerId, workers: Iterable[WorkerId]) -> int:
    """Return how many of `workers` come before `worker` for this queue.

    By rendezvous hashing: a worker that joins or leaves changes the first rank of few queues.
    """
    own = _score(queue, worker)
    return sum(_score(queue, other) > own for other in workers)


def _score(queue: QueueKey, worker: WorkerId) -> bytes:
    return blake2b(str(queue).encode(), key=worker.bytes, digest_size=8).digest()


class _Seen(NamedTuple):
    """`moved_at`: when term and beat were first read. `released_at`: when no holder was read."""

    lease: Lease
    moved_at: float
    released_at: float | None


class LeaseWatch:
    """Receives every read of the leases by this process, in seconds of its uptime."""

    def __init__(self) -> None:
        self._seen: dict[QueueKey, _Seen] = {}
        self._read_at = -inf
        self._unbroken_since = -inf

    def read_failed(self) -> None:
        """A read failed: all spans without a renewal restart at the next one that succeeds."""
        self._read_at = -inf

    def read_succeeded(
        self, leases: Sequence[Lease], *, requested_at: float, answered_at: float
    ) -> None:
        """A read returned all leases. It happened between the two instants."""
        if requested_at - self._read_at > MAX_LEASE_READ_GAP_S:
            self._unbroken_since = answered_at
        self._read_at = requested_at
        self._seen = {
            lease.queue: self._observed(lease, requested_at, answered_at) for lease in leases
        }

    def _observed(self, lease: Lease, requested_at: float, answered_at: float) -> _Seen:
        released_at = requested_at if lease.holder is None else None
        before = self._seen.get(lease.queue)
        if before is None or (before.lease.term, before.lease.beat) != (lease.term, lease.beat):
            return _Seen(lease, answered_at, released_at)
        if lease.holder is None and before.released_at is not None:
            released_at = before.released_at
        return _Seen(lease, before.moved_at, released_at)

    def leases(self) -> Iterable[Lease]:
        """The leases as read last."""
        return (seen.lease for seen in self._seen.values())

    def lease(self, queue: QueueKey) -> Lease | None:
        """One lease as read last, None before the first read."""
        seen = self._seen.get(queue)
        return seen.lease if seen else None

    def free_s(self, queue: QueueKey) -> float:
        """For how many seconds a lease had been free at the last read; negative if it was not."""
        seen = self._seen[queue]
        if seen.released_at is not None:
            return self._read_at - seen.released_at
        return self._read_at - max(seen.moved_at, self._unbroken_since) - LEASE_FREE_AFTER_S


class LeasePolicy:
    """Decides for one process. Call `observe` before each round; times are seconds of uptime."""

    def __init__(self, worker: WorkerId) -> None:
        self._worker = worker
        self._now = -inf
        self._able_since = inf
        self._live_since: dict[WorkerId, float] = {}
        self._first: dict[QueueKey, WorkerId] = {}
        self._given_up_at: dict[QueueKey, float] = {}
        self._handed_over_at = -inf
        self._offered: dict[QueueKey, tuple[WorkerId, float]] = {}

    def observe(self, workers: Collection[WorkerId], now: float, *, is_able: bool) -> None:
        """Note the live workers, and whether this process can publish.

        A worker that is not among them has no heartbeat row yet, and acquires no lease.
        """
        if self._handed_over_at == -inf:
            self._handed_over_at = now
        self._now = now
        is_able = is_able and self._worker in workers
        self._able_since = min(self._able_since, now) if is_able else inf
        since = self._live_since
        if since.keys() != {*workers, self._worker}:
            self._first.clear()
        self._live_since = {worker: since.get(worker, now) for worker in (*workers, self._worker)}

    def may_acquire(self, lease: Lease, free_s: float) -> bool:
        """Whether this process may acquire a lease that has been free for `free_s`.

        The delay of its rank counts from when the lease is free and this process can publish.
        """
        free_s = min(free_s, self._now - self._able_since)
        return free_s >= 0 and free_s >= self._delay_s(lease)

    def _delay_s(self, lease: Lease) -> float:
        is_new = self._now - self._live_since[self._worker] < DEAD_AFTER_S
        newness_s = NEW_DELAY_S if is_new and lease.holder is not None else 0.0
        return RANK_DELAY_S * self._rank(lease.queue) + newness_s

    def _rank(self, queue: QueueKey) -> int:
        if self._now - self._given_up_at.get(queue, -inf) < GIVEN_UP_S:
            return len(self._live_since)
        return rank(queue, self._worker, self._live_since)

    def why_to_give_up(self, lease: HeldLease, usable_since: float) -> str:
        """Return why another worker should hold this lease: `relay`, `broker`, or "" if none.

        The relay cannot work under a lease before `usable_since`. Without another worker nothing
        is given up.
        """
        if len(self._live_since) == 1:
            return ""
        if self._now - max(lease.passed_at, usable_since) > STALLED_AFTER_S:
            return "relay"
        failing_since = lease.unpublishable_since
        if failing_since is None:
            return ""
        failing_s = self._now - max(failing_since, usable_since)
        return "broker" if failing_s > UNPUBLISHABLE_AFTER_S else ""

    def note_given_up(self, queue: QueueKey) -> None:
        """This process gives a lease up."""
        self._given_up_at[queue] = self._now

    def choose_to_hand_over(
        self, queues: Iterable[QueueKey], beating: Collection[WorkerId]
    ) -> QueueKey | None:
        """Choose one of the held leases for a worker that comes before this one in rank, or None.

        At most one each HAND_OVER_INTERVAL_S, and only for one of those that are `beating`: a lease
        that is left for a worker that has just died may come to one that has just started, which
        counts the dead one as dead later than others do.
        """
        if self._now - self._handed_over_at < HAND_OVER_INTERVAL_S:
            return None
        for queue in queues:
            first = self._first_in_rank(queue)
            is_other = first != self._worker and first in beating
            if is_other and self._may_offer(queue, first):
                self._handed_over_at = self._now
                self._offered[queue] = first, self._now
                return queue
        return None

    def _first_in_rank(self, queue: QueueKey) -> WorkerId:
        first = self._first.get(queue)
        if first is None:
            first = max(self._live_since, key=lambda worker: _score(queue, worker))
            self._first[queue] = first
        return first

    def _may_offer(self, queue: QueueKey, worker: WorkerId) -> bool:
        offered_to, offered_at = self._offered.get(queue, (None, -inf))
        is_declined = offered_to == worker and self._now - offered_at < HAND_OVER_RETRY_S
        has_settled = self._now - self._live_since[worker] >= HAND_OVER_INTERVAL_S
        return has_settled and not is_declined
