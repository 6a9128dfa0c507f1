"""The measured systems: how Notifier and each peer are started, filled and called."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from benchmarks.bench.children import answer, run_to_end
from benchmarks.bench.place import ROOT, Place
from notifier.embedded.free_ports import free_ports

BATCH = 1000
FILL_S = 300.0
CONNECTIONS = 128
"""The `max_connections` of a provider in config/notifier.toml."""
PEER_PYTHON = ROOT / ".cache/bench/venv/bin/python"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manning:
    """The configuration of a system's workers."""

    processes: int = 2
    concurrency: int = 128
    prefetch: int = 256
    queues: tuple[str, ...] = ("email.medium",)
    has_priorities: bool = False
    celery_processes: int = 2
    """Celery's prefork pool; 0 means one process of `concurrency` threads, for jobs that wait."""
    dramatiq_threads: int = 8
    """Dramatiq's threads per process; its default is 8."""
    notifier_consumers: int = 0
    """Notifier's consumers per process; 0 means `concurrency`."""
    sandbox_url: str = ""
    """What SMS are posted to; with it Notifier uses its real providers."""
    smtp_port: int = 0
    """What emails are sent to; with it Notifier uses its real providers."""

    @property
    def consumers(self) -> int:
        """Notifier's consumers per process."""
        return self.notifier_consumers or self.concurrency


class Contender(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def default_queue_type(self) -> str:
        """The default queue type of its vhost: see `Servers.place`."""
        ...

    def serve(self, place: Place, manning: Manning, processes: int) -> str:
        """Start the submit API and return its base URL once all its processes respond."""
        ...

    def fill(self, place: Place, manning: Manning, many: Sequence[Document], url: str = "") -> None:
        """Enqueue jobs while no worker runs; `url` is what `serve` returned, if it was called."""
        ...

    def work(self, place: Place, manning: Manning) -> None:
        """Start the workers without waiting, as children with the name `worker`."""
        ...

    def stored(self, place: Place) -> int:
        """Count what is stored of all submits: Notifier's rows, or a peer's unfinished jobs."""
        ...


def a_notification(queue: str = "email.medium", **data: object) -> Document:
    """Return the document that every system accepts."""
    channel, _, priority = queue.partition(".")
    recipient = {"email": "ada@example.com", "sms": "+15005550006", "push": "fate-ok-1"}[channel]
    content = {"subject": "Hello", "body": "It works.", "data": {"do": "count", **data}}
    return {"channel": channel, "priority": priority, "recipient": recipient, "content": content}


@dataclass(frozen=True, slots=True)
class Notifier:
    """Notifier. Its API keeps running, as it does in a deployment."""

    name: str = "Notifier"
    default_queue_type: str = ""

    def serve(self, place: Place, manning: Manning, processes: int) -> str:
        (port,), first = free_ports(1), _two_in_a_row()
        words = ["api", "--port", str(port), "--metrics-port", str(first)]
        if processes > 1:
            words += ["--processes", str(processes)]
        command = [sys.executable, "-m", "notifier", *words]
        place.children.start("api", command, self._environment(place, manning))
        health = [f"http://127.0.0.1:{first + n}/health/ready" for n in range(processes)]
        place.children.wait(lambda: all(map(answer, health)), "Notifier's API")
        return f"http://127.0.0.1:{port}"

    def fill(self, place: Place, manning: Manning, many: Sequence[Document], url: str = "") -> None:
        asyncio.run(submit_batches(url or self.serve(place, manning, 1), many))

    def work(self, place: Place, manning: Manning) -> None:
        for port in free_ports(manning.processes):
            command = [sys.executable, "-m", "benchmarks.bench.noop_worker"]
            words = ["--metrics-port", str(port), "--consumers", str(manning.consumers)]
            place.children.start("worker", [*command, *words], self._environment(place, manning))

    def stored(self, place: Place) -> int:
        return asyncio.run(place.rows("SELECT count(*) FROM notifications"))

    def _environment(self, place: Place, manning: Manning) -> Mapping[str, str]:
        url, port = manning.sandbox_url, manning.smtp_port
        return {
            "NOTIFIER_DATABASE__URL": place.database_url,
            "NOTIFIER_BROKER__URL": place.broker_url,
            "NOTIFIER_API__AUTH": "off",
            "NOTIFIER_LOG__LEVEL": "warning",
            "NOTIFIER_PROVIDERS__SMTP__MAX_CONNECTIONS": str(max(CONNECTIONS, manning.consumers)),
            "PYTHONPATH": str(ROOT),
            "BENCH_LOG": str(place.log),
            **({"BENCH_REAL": "1"} if url or port else {}),
            **({"NOTIFIER_PROVIDERS__TWILIO__URL": url} if url else {}),
            **({"NOTIFIER_PROVIDERS__SMTP__PORT": str(port)} if port else {}),
        }


async def submit_batches(url: str, many: Iterable[Document]) -> None:
    """Submit all, 1,000 per request."""
    rest = iter(many)
    async with aiohttp.ClientSession() as session:
        while batch := list(islice(rest, BATCH)):
            body = {"notifications": batch}
            async with session.post(f"{url}/v1/notifications/batch", json=body) as response:
                results = (await response.json())["results"]
                assert all("id" in result for result in results), results[:3]


def _two_in_a_row() -> int:
    """Return a free port whose successor is free too."""
    while True:
        (port,) = free_ports(1)
        with closing(socket.socket()) as other:
            try:
                other.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer; its code is `benchmarks/peers/<module>_peer.py`."""

    name: str
    module: str
    default_queue_type: str = ""
    python: Path = PEER_PYTHON

    def serve(self, place: Place, manning: Manning, processes: int) -> str:
        (port,) = free_ports(1)
        words = f"--port {port} --workers {processes} --loop uvloop --http httptools"
        app = f"benchmarks.peers.{self.module}_peer:app"
        command = [*self.run("uvicorn"), app, *words.split(), "--no-access-log"]
        environment = self.environment(place, manning)
        place.children.start("api", [*command, "--log-level", "warning"], environment)
        return wait_for_all(place, f"http://127.0.0.1:{port}", processes)

    def fill(self, place: Place, manning: Manning, many: Sequence[Document], url: str = "") -> None:
        """Enqueue with the peer's library, without the submit app."""
        del url
        words = [self.module, str(len(many)), json.dumps(many[0])]
        command = [*self.run("benchmarks.peers.fill"), *words]
        run_to_end(command, self.environment(place, manning), FILL_S)

    def work(self, place: Place, manning: Manning) -> None:
        environment = self.environment(place, manning)
        place.children.start("worker", self._worker(manning), environment)

    def stored(self, place: Place) -> int:
        return asyncio.run(place.messages())

    def _worker(self, manning: Manning) -> list[str]:
        where = f"benchmarks.peers.{self.module}_peer"
        match self.module:
            case "celery":
                threads = f"-P threads -c {manning.concurrency}"
                pool = f"-c {manning.celery_processes}" if manning.celery_processes else threads
                quiet = "--without-gossip --without-mingle --without-heartbeat -l WARNING"
                words = f"-A {where}:celery worker {pool} {quiet}"
            case "dramatiq":
                at_once = f"--processes {manning.processes} --threads {manning.dramatiq_threads}"
                words = f"{where} {at_once}"
            case "taskiq":
                words = (
                    f"worker {where}:broker --workers {manning.processes} --log-level WARNING "
                    f"--max-async-tasks {manning.concurrency} --ack-type when_executed"
                )
            case _:
                words = f"run {where}:faststream --log-level warning --workers {manning.processes}"
        return [*self.run(self.module), *words.split()]

    def run(self, module: str) -> list[str]:
        """Return the command that runs a module with the peer's Python."""
        return [str(self.python), "-m", module]

    def environment(self, place: Place, manning: Manning) -> Mapping[str, str]:
        slots = manning.concurrency
        if self.module == "celery":
            slots = manning.celery_processes or slots
        return {
            "PYTHONPATH": str(ROOT),
            "BENCH_BROKER_URL": place.broker_url,
            "BENCH_DATABASE_URL": place.database_url,
            "BENCH_LOG": str(place.log),
            "BENCH_SANDBOX_URL": manning.sandbox_url,
            "BENCH_CONCURRENCY": str(slots),
            "BENCH_PREFETCH": str(manning.prefetch),
            "BENCH_QUEUE_NAMES": " ".join(manning.queues),
            "BENCH_QUEUES": "priorities" if manning.has_priorities else "",
            "dramatiq_queue_prefetch": str(manning.prefetch),
        }


def wait_for_all(place: Place, url: str, processes: int) -> str:
    """Wait until every process of a submit app has responded, and return its URL."""
    met = set[str]()

    def all_answer() -> bool:
        met.update({pid for pid in [answer(f"{url}/pid")] if pid})
        return len(met) == processes

    place.children.wait(all_answer, "the submit app")
    return url


NOTIFIER = Notifier()
PEERS = (
    Peer("Celery", "celery"),
    Peer("Dramatiq", "dramatiq", default_queue_type="quorum"),
    Peer("Taskiq", "taskiq"),
    Peer("FastStream", "faststream"),
)
ON_CLASSIC_QUEUES = Peer("Dramatiq, classic queues", "dramatiq")
