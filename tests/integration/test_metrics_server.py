"""The worker's health and metrics server, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import aiohttp
import pytest

from notifier.adapters.telemetry.health import open_metrics_server
from notifier.domain.errors import ConfigError

HOST = "127.0.0.1"
Server = AbstractAsyncContextManager[int]


class OneMetric:
    """Implements ports.health.MetricsSource."""

    def render(self) -> tuple[bytes, str]:
        return b"notifier_up 1\n", "text/plain; version=1.0.0; charset=utf-8"


class Readiness:
    """Implements ports.health.ReadinessCheck; ready while it has no reason."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def why_not_ready(self) -> list[str]:
        return self.reasons


def open_server(port: int, readiness: Readiness, *, next_free: bool = False) -> Server:
    return open_metrics_server(
        HOST, port, next_free=next_free, readiness=readiness, metrics=OneMetric()
    )


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that is in use."""
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


async def test_metrics_liveness_and_readiness_are_served() -> None:
    readiness = Readiness()
    async with (
        open_server(0, readiness) as port,
        aiohttp.ClientSession(f"http://{HOST}:{port}") as client,
    ):
        async with client.get("/metrics") as response:
            assert await response.read() == b"notifier_up 1\n"
            assert response.headers["Content-Type"] == OneMetric().render()[1]
        async with client.get("/health/live") as response:
            assert response.status == 200
        async with client.get("/health/ready") as response:
            assert (response.status, await response.json()) == (200, {"status": "ready"})
        readiness.reasons.append("RabbitMQ is unavailable")
        async with client.get("/health/ready") as response:
            assert response.status == 503
            assert (await response.json())["reasons"] == ["RabbitMQ is unavailable"]


async def test_the_next_port_is_taken_if_a_port_is_in_use(busy: int) -> None:
    async with open_server(busy, Readiness(), next_free=True) as port:
        assert port > busy


async def test_a_chosen_port_that_is_in_use_is_an_error(busy: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on {HOST}:{busy}"):
        async with open_server(busy, Readiness()):
            pass


async def test_the_port_is_released_afterwards() -> None:
    async with open_server(0, Readiness()) as port:
        pass
    with socket.create_server((HOST, port)):
        pass
