"""One compose project of its own: ports nobody else has, volumes that go with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import aiohttp

from deploy.rehearsal.engine import COMPOSE, COMPOSE_FILE, Document, docker, inspected, run
from harness.client import Client, open_client, until
from notifier.embedded.free_ports import free_ports

PROJECT = "notifier-rehearsal"
PUBLISHED = ("API", "SANDBOX", "RABBITMQ", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")
READY_WITHIN_S = 120.0
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Stack:
    """`services` are those whose images could be had; `ports` are published on loopback."""

    client: Client
    services: Collection[str]
    ports: Mapping[str, int]

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service.upper()]}"

    async def compose(self, *words: str) -> str:
        """`docker compose ...`, while the loop goes on; what it printed."""
        return await asyncio.to_thread(compose, self.ports, *words)

    async def up(self, *words: str) -> None:
        """Start what is not there, and wait until all of it is healthy."""
        await self.compose("up", "--detach", "--wait", "--no-build", *words, *self.services)
        await self.healthy()

    async def healthy(self) -> None:
        await until(lambda: asyncio.to_thread(_health, PROJECT), _is_well, READY_WITHIN_S)

    def containers(self, service: str) -> Sequence[str]:
        """The ids of a service's running containers."""
        return _containers(PROJECT, service)


@asynccontextmanager
async def open_stack(services: Collection[str]) -> AsyncIterator[Stack]:
    """The stack, not yet up; taken down with its volumes when the block is left."""
    ports = dict(zip(PUBLISHED, free_ports(len(PUBLISHED)), strict=True))
    api, sandbox = (f"http://127.0.0.1:{ports[name]}" for name in ("API", "SANDBOX"))
    async with open_client(api, sandbox) as client:
        try:
            yield Stack(client, services, ports)
        finally:
            down = ("down", "--volumes", "--remove-orphans", "--timeout", "40")
            await asyncio.to_thread(compose, ports, *down)


def compose(ports: Mapping[str, int], *words: str) -> str:
    """`docker compose ...` for the project of the rehearsal."""
    variables = {f"{name}_PORT": str(port) for name, port in ports.items()}
    fixed = ("--project-name", PROJECT, "--file", COMPOSE_FILE, "--progress", "quiet")
    return run([COMPOSE, *fixed, *words], variables=variables)


async def ready_seconds(container: str, port: int) -> float:
    """From its start to its first `ready`, asked at its own address."""
    found = await asyncio.to_thread(inspected, "container", container)
    url = f"http://{address(found)}:{port}/health/ready"
    began = datetime.fromisoformat(found["State"]["StartedAt"]).timestamp()
    timeout = aiohttp.ClientTimeout(total=1)
    async with asyncio.timeout(READY_WITHIN_S), aiohttp.ClientSession(timeout=timeout) as session:
        while not await _is_ready(session, url):  # noqa: ASYNC110 another process's readiness
            await asyncio.sleep(LOOK_EVERY_S)
    return time.time() - began


def address(found: Document) -> str:
    """The address of an inspected container in its only network."""
    (network,) = found["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.ok
    except (aiohttp.ClientError, TimeoutError):
        return False


def _containers(project: str, service: str) -> Sequence[str]:
    labels = (f"project={project}", f"service={service}")
    filters = [f"--filter=label=com.docker.compose.{label}" for label in labels]
    return docker("ps", "--quiet", "--no-trunc", *filters).split()


def _health(project: str) -> Mapping[str, str]:
    """The status of every running container: `Up 5 seconds (healthy)`."""
    words = (
        f"--filter=label=com.docker.compose.project={project}",
        "--format={{.Names}}\t{{.Status}}",
    )
    lines = docker("ps", *words).splitlines()
    return dict(line.split("\t", 1) for line in lines)


def _is_well(statuses: Mapping[str, str]) -> bool:
    return bool(statuses) and all("(healthy)" in status for status in statuses.values())
