"""The time limits by which processes agree that another one is dead.

Every process writes a heartbeat row with a counter every BEAT_INTERVAL_S. Two rules make it safe to
take over what a dead process was sending:

1. A process begins no provider call when its last heartbeat that succeeded was requested more than
   STALE_AFTER_S ago (delivery/attempt.py asks scheduling/cluster/membership.py).
2. Others count a process as dead only when its counter has not moved for DEAD_AFTER_S by their own
   clock, and only if their own heartbeats succeeded throughout, at most MAX_BEAT_GAP_S apart
   (scheduling/cluster/failure_detector.py).

A heartbeat is requested before others can read it. With STALE_AFTER_S < DEAD_AFTER_S a dead process
has therefore begun its last provider call before another process takes its notifications over. The
difference of 2 s covers clocks that run at different speeds and the delay between check and call.

One heartbeat that times out must not stop a healthy process from sending:
BEAT_INTERVAL_S + BEAT_TIMEOUT_S < STALE_AFTER_S.

A process holds the lease of a queue while it publishes the queue's rows. It renews its leases and
reads all others in one statement every LEASE_INTERVAL_S. The same two rules apply, with shorter
times and with the clock of each process alone:

1. A process publishes under a lease only for LEASE_USABLE_S from the request of the last renewal
   that succeeded (scheduling/cluster/lease_keeper.py).
2. Others take a lease over when it has not been renewed for LEASE_FREE_AFTER_S of their own reads,
   at most MAX_LEASE_READ_GAP_S apart (scheduling/cluster/lease.py).

So LEASE_USABLE_S < LEASE_FREE_AFTER_S. The difference is small, because two holders at once only
publish some rows twice. One statement that is as slow as its time limit allows must neither stop a
healthy holder nor restart the span of an observer:
LEASE_INTERVAL_S + LEASE_TIMEOUT_S <= MAX_LEASE_READ_GAP_S < LEASE_USABLE_S.
"""

from __future__ import annotations

from typing import Final

SENDING_KINDS: Final = frozenset({"worker", "dev"})
"""The kinds of process that send and may hold leases."""

BEAT_INTERVAL_S: Final = 1.0
BEAT_TIMEOUT_S: Final = 2.0
MAX_BEAT_GAP_S: Final = 2.5
STALE_AFTER_S: Final = 4.0
DEAD_AFTER_S: Final = 6.0

LEASE_INTERVAL_S: Final = 0.5
LEASE_TIMEOUT_S: Final = 0.75
MAX_LEASE_READ_GAP_S: Final = 1.25
LEASE_USABLE_S: Final = 1.5
LEASE_FREE_AFTER_S: Final = 2.0
