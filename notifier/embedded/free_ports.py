"""Free loopback ports for private servers and proxies."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from itertools import islice
from typing import Final

# Below every usual range of ephemeral ports. A port in that range could be given to a client by the
# kernel while its server is down, or a client that keeps reconnecting could connect to itself.
RANGE: Final = range(15_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return `count` different ports on which nothing listens at 127.0.0.1."""
    with ExitStack() as sockets:
        candidates = random.sample(RANGE, k=len(RANGE))
        return list(islice((port for port in candidates if _can_bind(port, sockets)), count))


def _can_bind(port: int, sockets: ExitStack) -> bool:
    probe = sockets.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
