"""TLS before a Postgres that was built without it: what a pooler in front of it does.

The answer to SSLRequest and the handshake are Postgres's own ("Frontend/Backend Protocol", SSL
Session Encryption); what follows is handed on as it comes. It runs in threads, for the test's loop
may be blocked.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Final

SSL_REQUEST: Final = (8).to_bytes(4) + (80877103).to_bytes(4)
PART: Final = 65536


class Front(ThreadingTCPServer):
    """Listens on the loopback. Who asks for no TLS is cut off."""

    daemon_threads = True

    def __init__(self, upstream: Path, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.upstream, self.context = upstream, context

    @property
    def port(self) -> int:
        port: int = self.server_address[1]
        return port


class Connection(BaseRequestHandler):
    """One client, from its SSLRequest to its end."""

    server: Front

    def handle(self) -> None:
        if self.request.recv(len(SSL_REQUEST)) != SSL_REQUEST:
            return
        self.request.sendall(b"S")
        with (
            suppress(OSError),
            self.server.context.wrap_socket(self.request, server_side=True) as outer,
            socket.socket(socket.AF_UNIX) as inner,
        ):
            inner.connect(str(self.server.upstream))
            back = Thread(target=hand_on, args=(inner, outer), daemon=True)
            back.start()
            hand_on(outer, inner)
            back.join()


def hand_on(from_: socket.socket, to: socket.socket) -> None:
    """Until one side ends; then both end."""
    with suppress(OSError):
        while part := from_.recv(PART):
            to.sendall(part)
    for end in (from_, to):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def tls_before(upstream: Path, certificate: Path) -> Iterator[int]:
    """The port where `upstream`, the socket of a Postgres, is reached by TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with Front(upstream, context) as front:
        serving = Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield front.port
        finally:
            front.shutdown()
            serving.join()
