"""A TLS server whose handshakes fail with an alert; asyncio's servers do not send theirs."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread


class Handshake(BaseRequestHandler):
    """Tries the handshake, and reads until the client closes, so that no reset beats the alert."""

    server: ClosedDoor

    def handle(self) -> None:
        with self.request.dup() as connection:
            with suppress(OSError), self.server.context.wrap_socket(self.request, server_side=True):
                pass
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass


class ClosedDoor(ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handshake)
        self.context = context


@contextmanager
def closed_door(context: ssl.SSLContext) -> Iterator[int]:
    """A server whose handshake fails. Yields its port."""
    with ClosedDoor(context) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()
