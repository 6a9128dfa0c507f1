"""A whole system as an operator runs it: real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from notifier.embedded.free_ports import free_ports
from notifier.embedded.process import Steps, run_steps, spawn, until

START_S: Final = 60.0
STOP_S: Final = 40.0  # the grace of 25 s, and room for two busy cores
REQUEST_TIMEOUT_S: Final = 5.0
LOG_LINES: Final = 80
LOOPBACK: Final = "127.0.0.1"


class Child:
    """One running `python -m notifier ...` with its log file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, ready_url: str) -> None:
        self._process = process
        self._ready_url = ready_url
        self.log = log
        self.has_started = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        """The base URL of its health and metrics endpoints."""
        return self._ready_url.removesuffix("/health/ready")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL and wait for the exit."""
        self._process.kill()
        self._process.wait()

    def starting(self) -> Steps:
        yield from until(lambda: self._is_ready() or not self.is_running, timeout_s=START_S)
        assert self.is_running, (
            f"{self.log.name} ended with {self._process.poll()}: {self.log_tail()}"
        )
        assert self._is_ready(), (
            f"{self.log.name} is not ready after {START_S:g} s: {self.log_tail()}"
        )
        self.has_started = True

    def stopping(self, number: signal.Signals = signal.SIGTERM) -> Steps:
        """Send the signal and wait for exit code 0."""
        if self.is_running:
            self.send(number)
        yield from until(lambda: not self.is_running, timeout_s=STOP_S)
        code = self._process.poll()
        assert code == 0, f"{self.log.name} stopped with {code}, expected 0: {self.log_tail()}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        run_steps(self.stopping(number))

    def log_tail(self) -> str:
        """Return the last lines of its log, without the line per attempt."""
        lines = [
            line for line in self.log.read_text().splitlines() if '"attempt_finished"' not in line
        ]
        return "\n".join(lines[-LOG_LINES:])

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._ready_url, timeout=REQUEST_TIMEOUT_S):  # noqa: S310 our own port
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False


class System:
    """Starts the processes of one system: one folder, one set of ports, one environment.

    `settings` are dotted keys, as in the TOML file. The folder has mode 0711, because a Postgres
    that root starts runs as `nobody`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        folder.mkdir(mode=0o711)
        api, metrics, http, smtp = free_ports(4)
        self.folder = folder
        self.api_port, self.http_port, self.smtp_port = api, http, smtp
        self.api_url = f"http://{LOOPBACK}:{api}"
        self.worker_url = f"http://{LOOPBACK}:{metrics}"
        self.sandbox_url = f"http://{LOOPBACK}:{http}"
        self.providers = _providers(self.sandbox_url, smtp)
        self.children: list[Child] = []
        self._settings: dict[str, object] = {
            "api.port": api,
            "api.auth": "off",
            "worker.metrics_port": metrics,
            "sandbox.http_port": http,
            "sandbox.smtp_port": smtp,
            **self.providers,
            **settings,
        }

    def start_sandbox(self) -> Child:
        return self._start("sandbox", ready_url=f"{self.sandbox_url}/calls/summary")

    def start_api(self) -> Child:
        return self._start("api", ready_url=f"{self.api_url}/health/ready")

    def start_worker(self) -> Child:
        return self._start("worker", ready_url=f"{self.worker_url}/health/ready")

    def start_another_worker(self) -> Child:
        """Start a further worker on a free port and wait until it is ready."""
        child = self.spawn_worker()
        self._all_ready(child)
        return child

    def spawn_worker(self, *words: str, module: str = "notifier", **environ: str) -> Child:
        """Start a further worker without waiting; `child.starting()` waits until it is ready.

        `words` are more arguments, `environ` more variables, `module` is what `python -m` runs.
        """
        (port,) = free_ports(1)
        ready = f"http://{LOOPBACK}:{port}/health/ready"
        words = ("worker", "--metrics-port", str(port), *words)
        return self._spawn(*words, ready_url=ready, module=module, **environ)

    def spawn_api(self, module: str = "notifier", **environ: str) -> Child:
        """Start the API without waiting; parameters as in `spawn_worker`."""
        ready = f"{self.api_url}/health/ready"
        return self._spawn("api", ready_url=ready, module=module, **environ)

    def spawn_api_at(self, port: int, **environ: str) -> Child:
        """Start a further API at this port without waiting; `environ` as in `spawn_worker`."""
        ready = f"http://{LOOPBACK}:{port}/health/ready"
        environ = {"NOTIFIER_API__PORT": str(port), **environ}
        return self._spawn("api", ready_url=ready, **environ)

    def spawn_sandbox(self) -> Child:
        """Start the sandbox without waiting."""
        return self._spawn("sandbox", ready_url=f"{self.sandbox_url}/calls/summary")

    def start_all(self) -> None:
        """Start sandbox, API and worker in parallel and wait until all are ready."""
        self._all_ready(
            self.spawn_sandbox(),
            self.spawn_api(),
            self._spawn("worker", ready_url=f"{self.worker_url}/health/ready"),
        )

    def start_dev(self, *words: str) -> Child:
        return self._start(*self.dev(*words), ready_url=f"{self.api_url}/health/ready")

    def dev(self, *words: str) -> tuple[str, ...]:
        """Return the arguments of a `notifier dev` on this system's data folder."""
        return "dev", "--data", str(self.folder / "data"), *words

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command until it exits."""
        return subprocess.run(
            self._command(words),
            cwd=self.folder,
            env=self.environment() | environ,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    def end(self) -> None:
        """Stop the running children in reverse order and print the logs for a failed test."""
        try:
            for child in reversed(self.children):
                if child.is_running and child.has_started:
                    child.stop()
        finally:
            for child in self.children:
                if child.is_running:
                    child.kill()
                sys.stdout.write(f"---- {child.log.name} ----\n{child.log_tail()}\n")

    def _start(self, *words: str, ready_url: str) -> Child:
        child = self._spawn(*words, ready_url=ready_url)
        self._all_ready(child)
        return child

    def _spawn(
        self, *words: str, ready_url: str, module: str = "notifier", **environ: str
    ) -> Child:
        log = self.folder / f"{len(self.children)}-{words[0]}.log"
        process = spawn(
            [sys.executable, "-m", module, *words],
            death_signal=signal.SIGTERM,
            environment=self.environment() | environ,
            folder=self.folder,
            log=log,
        )
        child = Child(process, log, ready_url)
        self.children.append(child)
        return child

    def _all_ready(self, *children: Child) -> None:
        for child in children:
            run_steps(child.starting())

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "notifier", *words]

    def take_out(self, keys: Collection[str]) -> dict[str, str]:
        """Remove settings that an earlier version does not know; return them as variables."""
        return _variables({key: self._settings.pop(key) for key in keys})

    def environment(self) -> dict[str, str]:
        """Return our environment without NOTIFIER_ variables, plus this system's settings."""
        ours = {name: text for name, text in os.environ.items() if not name.startswith("NOTIFIER_")}
        return ours | _variables(self._settings)


def _variables(settings: Mapping[str, object]) -> dict[str, str]:
    return {
        f"NOTIFIER_{key.replace('.', '__').upper()}": str(value) for key, value in settings.items()
    }


def _providers(sandbox_url: str, smtp_port: int) -> Mapping[str, object]:
    """Return the provider settings that send to this sandbox."""
    sms, push = "2010-04-01/Accounts/ACsandbox/Messages.json", "v1/projects/e2e/messages:send"
    return {
        "providers.smtp.port": smtp_port,
        "providers.smtp.final_timeout_s": 15,  # a hang ends as soon as that of the other providers
        "providers.twilio.url": f"{sandbox_url}/{sms}",
        "providers.fcm.url": f"{sandbox_url}/{push}",
    }


@contextmanager
def running_system(folder: Path, settings: Mapping[str, object]) -> Iterator[System]:
    """Yield a system with no process started; on exit every started process must stop with 0."""
    system = System(folder, settings)
    try:
        yield system
    finally:
        system.end()


def urls(database: str, broker: str) -> dict[str, object]:
    """Return the settings that name these servers."""
    return {"database.url": database, "broker.url": broker}
