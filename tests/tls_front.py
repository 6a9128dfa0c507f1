"""A TLS proxy in front of a Postgres that was built without TLS, as a connection pooler is.

It answers SSLRequest and does the handshake as Postgres does ("Frontend/Backend Protocol", SSL
Session Encryption), then forwards all bytes. It runs in threads because the test's event loop may
be blocked.
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
CHUNK_BYTES: Final = 65536


class TlsFront(ThreadingTCPServer):
    """Listens on the loopback. A client that does not ask for TLS is disconnected."""

    daemon_threads = True

    def __init__(self, upstream: Path, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.upstream, self.context = upstream, context

    @property
    def port(self) -> int:
        port: int = self.server_address[1]
        return port


class Connection(BaseRequestHandler):
    """One client, from its SSLRequest until it disconnects."""

    server: TlsFront

    def handle(self) -> None:
        if self.request.recv(len(SSL_REQUEST)) != SSL_REQUEST:
            return
        self.request.sendall(b"S")
        with (
            suppress(OSError),
            self.server.context.wrap_socket(self.request, server_side=True) as client,
            socket.socket(socket.AF_UNIX) as postgres,
        ):
            postgres.connect(str(self.server.upstream))
            replies = Thread(target=forward, args=(postgres, client), daemon=True)
            replies.start()
            forward(client, postgres)
            replies.join()


def forward(source: socket.socket, target: socket.socket) -> None:
    """Forwards bytes until one side closes, then closes both."""
    with suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def tls_in_front_of(upstream: Path, certificate: Path) -> Iterator[int]:
    """Yields a port on which `upstream`, the socket of a Postgres, is reachable over TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with TlsFront(upstream, context) as front:
        serving = Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield front.port
        finally:
            front.shutdown()
            serving.join()
