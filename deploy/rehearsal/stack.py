"""The compose project of the rehearsal, with free ports and its own volumes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import aiohttp

from deploy.rehearsal.engine import COMPOSE, COMPOSE_FILE, Document, docker, inspect, run
from harness.client import Client, open_client, until
from notifier.embedded.free_ports import free_ports

PROJECT = "notifier-rehearsal"
PUBLISHED = ("API", "SANDBOX", "RABBITMQ", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")
READY_TIMEOUT_S = 120.0
POLL_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class Stack:
    """`services` are those whose images are available. `ports` are published on loopback."""

    client: Client
    services: Collection[str]
    ports: Mapping[str, int]

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service.upper()]}"

    async def compose(self, *arguments: str) -> str:
        """Run `docker compose ...` in a thread and return its stdout."""
        return await asyncio.to_thread(compose, self.ports, *arguments)

    async def up(self, *arguments: str) -> None:
        """Start missing containers and wait until all are healthy."""
        await self.compose("up", "--detach", "--wait", "--no-build", *arguments, *self.services)
        await self.healthy()

    async def first_key(self) -> str:
        """Return the key that the stack made at its first start, "" if its log has none."""
        written = await self.compose("logs", "--no-log-prefix", "--no-color", "first-key")
        return next((line for line in written.splitlines() if line.startswith("ntf_live_")), "")

    async def healthy(self) -> None:
        await until(lambda: asyncio.to_thread(_health, PROJECT), _all_healthy, READY_TIMEOUT_S)

    def containers(self, service: str) -> Sequence[str]:
        """Return the ids of a service's running containers."""
        return _containers(PROJECT, service)


@asynccontextmanager
async def open_stack(services: Collection[str]) -> AsyncIterator[Stack]:
    """Yield the stack, not started. Leaving the block removes it with its volumes."""
    ports = dict(zip(PUBLISHED, free_ports(len(PUBLISHED)), strict=True))
    api, sandbox = (f"http://127.0.0.1:{ports[name]}" for name in ("API", "SANDBOX"))
    async with open_client(api, sandbox) as client:
        try:
            yield Stack(client, services, ports)
        finally:
            down = ("down", "--volumes", "--remove-orphans", "--timeout", "40")
            await asyncio.to_thread(compose, ports, *down)


def compose(ports: Mapping[str, int], *arguments: str) -> str:
    """Run `docker compose ...` for the project of the rehearsal and return its stdout."""
    variables = {f"{name}_PORT": str(port) for name, port in ports.items()}
    fixed = ("--project-name", PROJECT, "--file", COMPOSE_FILE, "--progress", "quiet")
    return run([COMPOSE, *fixed, *arguments], variables=variables)


async def ready_seconds(container: str, port: int) -> float:
    """Return the seconds from the start of a container to its first `ready`."""
    container_info = await asyncio.to_thread(inspect, "container", container)
    url = f"http://{address(container_info)}:{port}/health/ready"
    started_at = datetime.fromisoformat(container_info["State"]["StartedAt"]).timestamp()
    timeout = aiohttp.ClientTimeout(total=1)
    async with asyncio.timeout(READY_TIMEOUT_S), aiohttp.ClientSession(timeout=timeout) as session:
        while not await _is_ready(session, url):  # noqa: ASYNC110 another process must be polled
            await asyncio.sleep(POLL_INTERVAL_S)
    return time.time() - started_at


def address(container_info: Document) -> str:
    """Return the address of an inspected container in its only network."""
    (network,) = container_info["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.ok
    except (aiohttp.ClientError, TimeoutError):
        return False


def _containers(project: str, service: str) -> Sequence[str]:
    labels = (f"project={project}", f"service={service}")
    filters = [f"--filter=label=com.docker.compose.{label}" for label in labels]
    return docker("ps", "--quiet", "--no-trunc", *filters).split()


def _health(project: str) -> Mapping[str, str]:
    """Return the status of every running container, such as `Up 5 seconds (healthy)`."""
    arguments = (
        f"--filter=label=com.docker.compose.project={project}",
        "--format={{.Names}}\t{{.Status}}",
    )
    lines = docker("ps", *arguments).splitlines()
    return dict(line.split("\t", 1) for line in lines)


def _all_healthy(statuses: Mapping[str, str]) -> bool:
    return bool(statuses) and all("(healthy)" in status for status in statuses.values())
