"""A private Prometheus server with its own folder and port."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import (
    ServerFailed,
    Steps,
    read_log,
    run_steps,
    run_steps_async,
    spawn,
    terminating,
    until,
)

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDERS: Final = ("/usr/bin", "/usr/local/bin", "/opt/prometheus")
UNPACKED: Final = ROOT / ".notifier/prometheus"
START_S: Final = 60.0
STOP: Final = ((signal.SIGTERM, 20.0),)
REQUEST_TIMEOUT_S: Final = 10.0

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PrometheusInstall:
    """The programs of one installation."""

    server: Path
    promtool: Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a query result with its value."""

    labels: Mapping[str, str]
    value: float


class PrometheusError(AssertionError):
    """What Prometheus said of a question that it could not answer."""


def find_prometheus(unpacked: Path = UNPACKED) -> PrometheusInstall:
    """Find the installed Prometheus, else the one in `unpacked`. Raises ServerFailed."""
    for folder in (*map(Path, FOLDERS), unpacked / "usr/bin"):
        install = PrometheusInstall(folder / "prometheus", folder / "promtool")
        if install.server.is_file() and install.promtool.is_file():
            return install
    raise ServerFailed("no Prometheus is installed: `make test` installs it")


def scraping(jobs: Mapping[str, Sequence[str]], *, every: str = "1s") -> Config:
    """Return a configuration that scrapes these URLs by job."""
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [{"targets": [urlsplit(url).netloc for url in urls]}],
            }
            for job, urls in jobs.items()
        ],
    }


class Prometheus:
    """A Prometheus server and its query API. Queries block the caller."""

    def __init__(self, folder: Path, config: Config, *, install: PrometheusInstall) -> None:
        self._folder, self._config, self._install = folder, config, install
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self._folder / "prometheus.log"

    def query(self, expr: str) -> Sequence[Sample]:
        """Evaluate an expression now; a scalar becomes one sample. Raises PrometheusError."""
        data = self.get("query", query=expr)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in data["result"]]

    def value(self, expr: str) -> float:
        """Return the sum of the expression's values, 0 if it has none."""
        return sum(sample.value for sample in self.query(expr))

    def label_values(self, label: str, *, of: str) -> Sequence[str]:
        """Return the values of a label of a metric."""
        values: Sequence[str] = self.get(f"label/{label}/values", **{"match[]": of})
        return values

    def get(self, path: str, **parameters: str) -> Any:
        """Return `data` of a response of /api/v1. Raises PrometheusError."""
        url = f"{self.url}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=REQUEST_TIMEOUT_S) as response:  # noqa: S310 our own port
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise PrometheusError(f"{parameters}: {error.read().decode()}") from error

    def starting(self) -> Steps:
        """Start and wait until it is ready. Raises ServerFailed with the log."""
        self._folder.mkdir(mode=0o711, exist_ok=True)
        self._process = spawn(
            self._command(),
            death_signal=signal.SIGKILL,
            environment={"GOMAXPROCS": "1"},
            folder=self._folder,
            log=self.log,
        )
        try:
            yield from until(lambda: self._is_ready() or self._has_ended(), timeout_s=START_S)
            self._require_ready()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def stopping(self) -> Steps:
        """Stop the server with SIGTERM."""
        if self._process:
            yield from terminating(self._process, STOP)

    def _command(self) -> list[str | Path]:
        config = self._folder / "prometheus.yml"
        config.write_text(json.dumps(self._config, indent=2), encoding="utf-8")  # JSON is YAML
        return [
            self._install.server,
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def _require_ready(self) -> None:
        if not self._is_ready():
            raise ServerFailed(f"prometheus did not start: {read_log(self.log)}")

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=REQUEST_TIMEOUT_S):  # noqa: S310 ours
                return not self._has_ended()
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False


@contextmanager
def running_prometheus(folder: Path, config: Config) -> Iterator[Prometheus]:
    """Run a Prometheus during the block; its data stay in the folder."""
    server = Prometheus(folder, config, install=find_prometheus())
    run_steps(server.starting())
    try:
        yield server
    finally:
        run_steps(server.stopping())


@asynccontextmanager
async def open_prometheus(folder: Path, config: Config) -> AsyncIterator[Prometheus]:
    """Run a Prometheus during the block without blocking the event loop."""
    server = Prometheus(folder, config, install=find_prometheus())
    await run_steps_async(server.starting())
    try:
        yield server
    finally:
        await run_steps_async(server.stopping())
