"""Calls of a private node's HTTP API."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from notifier.domain.errors import InfrastructureError
from notifier.embedded.rabbitmq_node import LOOPBACK

TIMEOUT_S: Final = 10.0
HEADERS: Final = {
    "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
    "Content-Type": "application/json",
}


class Management:
    """The HTTP API at a port of the loopback."""

    def __init__(self, port: int) -> None:
        self._port = port

    def is_up(self) -> bool:
        """Return whether the API responds. A node opens its listeners last, so it is up then."""
        try:
            self.call("GET", "/api/whoami")
        except (OSError, http.client.HTTPException, InfrastructureError):
            return False
        return True

    def call(self, method: str, path: str, body: str | None = None) -> None:
        """Send a request. Raises InfrastructureError for an error response, OSError for none."""
        with self._connection() as connection:
            connection.request(method, path, body, HEADERS)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        if response.status >= http.client.BAD_REQUEST:
            raise InfrastructureError(
                f"RabbitMQ responded {response.status} to {method} {path}: {text}"
            )

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=TIMEOUT_S)
        try:
            yield connection
        finally:
            connection.close()
