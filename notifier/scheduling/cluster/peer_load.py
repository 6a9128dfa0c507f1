"""The load of one queue in the other workers."""

from __future__ import annotations

from typing import Final, NamedTuple


class PeerLoad(NamedTuple):
    """Messages that the other workers hold, and attempts they finish per second, of one queue.

    Both come from their last heartbeats.
    """

    held: int = 0
    done_per_s: float = 0.0


NO_PEER_LOAD: Final = PeerLoad()
