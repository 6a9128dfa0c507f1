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

The rows that a dead process took and may not have published are found by the time of the take,
relative to the last heartbeat (recovery/unpublished.py). A process that others count as dead may
still take rows if only its heartbeat fails. Rows taken so late must not be published again, else
they would go back and forth: UNPUBLISHED_AFTER_BEAT_S < DEAD_AFTER_S.
"""

from __future__ import annotations

from typing import Final

BEAT_INTERVAL_S: Final = 1.0
BEAT_TIMEOUT_S: Final = 2.0
MAX_BEAT_GAP_S: Final = 2.5
STALE_AFTER_S: Final = 4.0
DEAD_AFTER_S: Final = 6.0

UNPUBLISHED_BEFORE_BEAT_S: Final = 15.0
"""What a process took longer than this before its last heartbeat it published or unpublished."""
UNPUBLISHED_AFTER_BEAT_S: Final = 5.0
"""What a process took longer than this after its last heartbeat is left to it: it still runs."""
