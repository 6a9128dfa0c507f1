"""The few calls of RabbitMQ's HTTP API a private node needs."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from notifier.domain.errors import InfrastructureError
from notifier.embedded.rabbitmq_node import LOOPBACK

TIMEOUT_S = 10.0
HEADERS = {
    "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
    "Content-Type": "application/json",
}
EVERYTHING = '{"configure":".*","write":".*","read":".*"}'


class Management:
    """The HTTP API at one port of the loopback."""

    def __init__(self, port: int) -> None:
        self._port = port

    def is_up(self) -> bool:
        """Whether it answers, and so whether the node is up: listeners open last."""
        try:
            self._call("GET", "/api/whoami")
        except (OSError, http.client.HTTPException, InfrastructureError):
            return False
        return True

    def create_vhost(self, name: str) -> None:
        """Create a vhost that the default user may use."""
        vhost = quote(name, safe="")
        self._call("PUT", f"/api/vhosts/{vhost}")
        self._call("PUT", f"/api/permissions/{vhost}/guest", EVERYTHING)

    def delete_vhost(self, name: str) -> None:
        """Delete a vhost with all in it; its connections are closed."""
        self._call("DELETE", f"/api/vhosts/{quote(name, safe='')}")

    def _call(self, method: str, path: str, body: str | None = None) -> None:
        with self._connection() as connection:
            connection.request(method, path, body, HEADERS)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        if response.status >= http.client.BAD_REQUEST:
            raise InfrastructureError(
                f"RabbitMQ answered {response.status} to {method} {path}: {text}"
            )

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=TIMEOUT_S)
        try:
            yield connection
        finally:
            connection.close()
