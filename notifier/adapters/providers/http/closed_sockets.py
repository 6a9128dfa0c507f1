"""Finds out whether the server has closed a kept connection, right before a request is written.

libcurl looks at most once a second. It tells the addresses of a connection, not its socket, so the
two are brought together here.
"""

from __future__ import annotations

import select
import socket
from typing import Final

_CLOSED: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)

LocalAddress = tuple[str, int]


class ClosedSockets:
    """Knows the sockets of one client's connections."""

    # A socket belongs to libcurl, which does not report when it closes one. The number of a closed
    # socket may be in use elsewhere; only addresses of open connections are asked about, and each
    # connection had its socket registered last under its address.

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._by_address: dict[LocalAddress, int] = {}

    def add(self, fd: int) -> None:
        """A socket was created. It has no address yet."""
        self._new.add(fd)
        if len(self._by_address) > 2 * len(set(self._by_address.values())):
            self._forget_closed()

    def is_closed(self, address: LocalAddress) -> bool:
        """Whether the server has closed the kept connection with this local address.

        False for a new connection: libcurl will say why the server closed it.
        """
        if self._new and address in self._learn_addresses():
            return False
        fd = self._by_address.get(address)
        if fd is None:
            return False
        poll = select.poll()
        poll.register(fd, _CLOSED)
        return bool(poll.poll(0))

    def _learn_addresses(self) -> set[LocalAddress]:
        """Move sockets that are connected by now, and drop those that are closed."""
        learned: set[LocalAddress] = set()
        for fd in list(self._new):
            address = _local_address(fd)
            if address is None:
                self._new.discard(fd)
            elif address[1]:
                self._new.discard(fd)
                self._by_address[address] = fd
                learned.add(address)
        return learned

    def _forget_closed(self) -> None:
        """Drop the addresses that sockets no longer have."""
        for address, fd in list(self._by_address.items()):
            if _local_address(fd) != address:
                del self._by_address[address]


def _local_address(fd: int) -> LocalAddress | None:
    """The host and port of a socket, port 0 before it connects; None if it is closed."""
    try:
        borrowed = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        host, port, *_ = borrowed.getsockname()
    except (OSError, ValueError):
        return None
    else:
        return host, port
    finally:
        borrowed.detach()
