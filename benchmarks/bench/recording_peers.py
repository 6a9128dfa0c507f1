"""The peers that keep their jobs in Postgres or Redis: how they are started, filled and called.

Each has two worker processes. `docs/performance.md` says what each keeps of a finished job.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from benchmarks.bench.children import run_to_end
from benchmarks.bench.limits import NotHere
from benchmarks.bench.place import ROOT, Place
from benchmarks.bench.systems import FILL_S, Document, Manning, Peer, wait_for_all
from notifier.embedded.free_ports import free_ports

INSTALL_S = 60.0
ANALYZE_S = 60.0
OBAN_PYTHON = ROOT / ".cache/bench/oban/bin/python"
NODE_FOLDER = ROOT / ".cache/bench/node/node_modules"
SCRIPTS = ROOT / "benchmarks/peers/node"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresPeer:
    """A Python peer that keeps its jobs in Postgres."""

    peer: Peer
    install: str
    """The arguments of its command that installs its schema."""
    worker: str
    """The arguments of its command that starts a worker process."""
    unfinished: str
    """The statement that counts its unfinished jobs."""
    default_queue_type: str = ""

    @property
    def name(self) -> str:
        return self.peer.name

    def serve(self, place: Place, manning: Manning, processes: int) -> str:
        self._install(place, manning)
        return self.peer.serve(place, manning, processes)

    def fill(self, place: Place, manning: Manning, many: Sequence[Document], url: str = "") -> None:
        if not url:
            self._install(place, manning)
        self.peer.fill(place, manning, many, url)
        asyncio.run(_analyze(place))

    def work(self, place: Place, manning: Manning) -> None:
        environment = self._environment(place, manning)
        words = self._filled(self.worker, place, manning)
        for _ in range(manning.processes):
            place.children.start("worker", [*self._command(), *words], environment)

    def stored(self, place: Place) -> int:
        return asyncio.run(place.rows(self.unfinished))

    def _install(self, place: Place, manning: Manning) -> None:
        if not self.peer.python.exists():
            raise NotHere(f"benchmarks/install-peers has not installed {self.name}")
        words = self._filled(self.install, place, manning)
        environment = self._environment(place, manning)
        run_to_end([*self._command(), *words], environment, INSTALL_S)

    def _command(self) -> list[str]:
        return self.peer.run(self.peer.module)

    def _environment(self, place: Place, manning: Manning) -> Mapping[str, str]:
        return self.peer.environment(place, manning)

    def _filled(self, words: str, place: Place, manning: Manning) -> list[str]:
        (queue,) = manning.queues
        return [word.format(url=place.database_url, queue=queue) for word in words.split()]


async def _analyze(place: Place) -> None:
    """Give the planner statistics of the backlog, as autovacuum does in a running system."""
    connection = await asyncpg.connect(place.database_url)
    try:
        await connection.execute("VACUUM ANALYZE", timeout=ANALYZE_S)
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphileWorker:
    """graphile-worker. It deletes a finished job."""

    name: str = "graphile-worker"
    default_queue_type: str = ""
    concurrency: int = 24
    batch: int = 500

    def serve(self, place: Place, manning: Manning, processes: int) -> str:
        del manning
        return _served(place, "graphile_worker", self._environment(place), processes)

    def fill(self, place: Place, manning: Manning, many: Sequence[Document], url: str = "") -> None:
        del manning, url
        _filled(place, "graphile_worker", self._environment(place), many)
        asyncio.run(_analyze(place))

    def work(self, place: Place, manning: Manning) -> None:
        command = _node("graphile_worker", "work")
        for _ in range(manning.processes):
            place.children.start("worker", command, self._environment(place))

    def stored(self, place: Place) -> int:
        return asyncio.run(place.rows("SELECT count(*) FROM graphile_worker._private_jobs"))

    def _environment(self, place: Place) -> Mapping[str, str]:
        return {
            "NODE_PATH": str(NODE_FOLDER),
            "BENCH_LOG": str(place.log),
            "BENCH_DATABASE_URL": place.database_url,
            "BENCH_CONCURRENCY": str(self.concurrency),
            "BENCH_BATCH": str(self.batch),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BullMQ:
    """BullMQ on a private Redis or Valkey, which starts with the first submit or fill."""

    name: str = "BullMQ"
    keeps_jobs: bool = True
    """Its default. Otherwise finished jobs are removed."""
    default_queue_type: str = ""
    concurrency: int = 128

    def serve(self, place: Place, manning: Manning, processes: int) -> str:
        _start_redis(place)
        return _served(place, "bullmq", self._environment(place, manning), processes)

    def fill(self, place: Place, manning: Manning, many: Sequence[Document], url: str = "") -> None:
        if not url:
            _start_redis(place)
        _filled(place, "bullmq", self._environment(place, manning), many)

    def work(self, place: Place, manning: Manning) -> None:
        environment = self._environment(place, manning)
        for _ in range(manning.processes):
            place.children.start("worker", _node("bullmq", "work"), environment)

    def stored(self, place: Place) -> int:
        """Count the jobs of all queues in every state except `completed`."""
        keys = _redis(place, "KEYS bull:*:id").splitlines()
        queues = [key.removesuffix(":id") for key in keys if key.startswith("bull:")]
        lists = [f"LLEN {queue}:{state}" for queue in queues for state in ("wait", "active")]
        sets = [f"ZCARD {queue}:{state}" for queue in queues for state in ("delayed", "failed")]
        counts = [_redis(place, words).splitlines()[0] for words in (*lists, *sets)]
        return sum(int(count.removeprefix(":")) for count in counts)

    def _environment(self, place: Place, manning: Manning) -> Mapping[str, str]:
        return {
            "NODE_PATH": str(NODE_FOLDER),
            "BENCH_LOG": str(place.log),
            "BENCH_REDIS_SOCKET": str(_redis_socket(place)),
            "BENCH_QUEUE_NAMES": " ".join(manning.queues),
            "BENCH_CONCURRENCY": str(self.concurrency),
            "BENCH_KEEPS_JOBS": "1" if self.keeps_jobs else "",
        }


def _served(place: Place, script: str, environment: Mapping[str, str], processes: int) -> str:
    (port,) = free_ports(1)
    command = _node(script, "serve", str(port), str(processes))
    place.children.start("api", command, environment)
    return wait_for_all(place, f"http://127.0.0.1:{port}", processes)


def _filled(
    place: Place, script: str, environment: Mapping[str, str], many: Sequence[Document]
) -> None:
    place.log.touch()
    command = _node(script, "fill", str(len(many)), json.dumps(many[0]))
    run_to_end(command, environment, FILL_S)


def _node(script: str, *words: str) -> list[str]:
    node = shutil.which("node")
    if node is None or not NODE_FOLDER.exists():
        raise NotHere(f"benchmarks/install-peers has not installed the peers on Node ({script})")
    return [node, str(SCRIPTS / f"{script}.cjs"), *words]


def redis_server() -> str | None:
    """Return the path of a Redis or Valkey server, or None."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def _start_redis(place: Place) -> None:
    """An append-only file that is synced at every write, as the others sync every commit."""
    program = redis_server()
    if program is None:
        raise NotHere("there is no redis-server or valkey-server here")
    durable = ["--appendonly", "yes", "--appendfsync", "always", "--save"]
    where = ["--port", "0", "--unixsocket", str(_redis_socket(place)), "--dir", str(place.folder)]
    command = [program, *where, *durable, "", "--maxmemory-policy", "noeviction"]
    place.children.start("redis", command, {})
    place.children.wait(lambda: _answers(place), "Redis")


def _redis_socket(place: Place) -> Path:
    return place.folder / "redis.sock"


def _answers(place: Place) -> bool:
    try:
        return _redis(place, "PING").startswith("+PONG")
    except OSError:
        return False


def _redis(place: Place, command: str) -> str:
    """Send a command as a line and return the response as Redis writes it."""
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.connect(str(_redis_socket(place)))
        connection.sendall(f"{command}\r\nQUIT\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()


GRAPHILE_WORKER = GraphileWorker()
BULLMQ = BullMQ()
BULLMQ_REMOVING = BullMQ(name="BullMQ, finished jobs removed", keeps_jobs=False)
RECORDING_PEERS = (
    PostgresPeer(
        peer=Peer("pgqueuer", "pgqueuer"),
        install="--pg-dsn {url} install",
        worker=("run benchmarks.peers.pgqueuer_peer:worker --batch-size 500 --log-level WARNING"),
        unfinished="SELECT count(*) FROM pgqueuer",
    ),
    PostgresPeer(
        peer=Peer("procrastinate", "procrastinate"),
        install="--app benchmarks.peers.procrastinate_peer.procrastinate schema --apply",
        worker=(
            "--app benchmarks.peers.procrastinate_peer.procrastinate --log-level warning "
            "worker --concurrency 10 --queues {queue}"
        ),
        unfinished="SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'",
    ),
    PostgresPeer(
        peer=Peer("oban-py", "oban", python=OBAN_PYTHON),
        install="install --dsn {url}",
        worker="start --dsn {url} --queues {queue}:128 --log-level WARNING",
        unfinished="SELECT count(*) FROM oban_jobs WHERE state <> 'completed'",
    ),
    GRAPHILE_WORKER,
    BULLMQ,
)
