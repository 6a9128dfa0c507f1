"""Free loopback ports for private servers and proxies."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from itertools import islice

# Below every usual range of ephemeral ports: there, while a server is down, the kernel could lend
# its port to a client, or connect a client that keeps trying to itself.
RANGE = range(15_000, 32_000)


def free_ports(count: int) -> list[int]:
    """`count` different ports nobody listens on at 127.0.0.1."""
    with ExitStack() as held:
        candidates = random.sample(RANGE, k=len(RANGE))
        return list(islice((port for port in candidates if _holds(port, held)), count))


def _holds(port: int, held: ExitStack) -> bool:
    probe = held.enter_context(socket.socket())
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
