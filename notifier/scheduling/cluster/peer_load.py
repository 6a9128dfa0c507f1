"""The load of one queue in the other workers."""

from __future__ import annotations

from typing import Final, NamedTuple


class PeerLoad(NamedTuple):
    """What the other workers reported of one queue in their last heartbeats.

    `held` are pointers that they hold, `done_per_s` attempts that they finish per second, `idle`
    consumers of the queue that run no attempt.
    """

    held: int = 0
    done_per_s: float = 0.0
    idle: int = 0


NO_PEER_LOAD: Final = PeerLoad()
