"""A private nginx with its own folder and ports."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from notifier.embedded.process import (
    ServerFailed,
    Steps,
    read_log,
    run_steps_async,
    spawn,
    terminating,
    until,
)

ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAMS: Final = ("/usr/sbin/nginx", "/usr/local/sbin/nginx")
UNPACKED: Final = ROOT / ".notifier/nginx/usr/sbin/nginx"
START_S: Final = 20.0
STOP: Final = ((signal.SIGQUIT, 10.0),)
MAIN: Final = """\
daemon off;
master_process off;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    include {site};
}}
"""


class Nginx:
    """Serves the servers of a site file, whose paths are relative to the folder."""

    def __init__(self, folder: Path, site: str) -> None:
        self._folder, self._site = folder, site
        self._process: subprocess.Popen[bytes] | None = None

    def starting(self) -> Steps:
        """Start and wait until it serves. Raises ServerFailed with the log."""
        (self._folder / "site.conf").write_text(self._site, encoding="utf-8")
        main = self._folder / "nginx.conf"
        main.write_text(MAIN.format(site="site.conf"), encoding="utf-8")
        self._process = spawn(
            [find_nginx(), "-e", "stderr", "-p", self._folder, "-c", main],
            death_signal=signal.SIGKILL,
            environment={"PATH": os.environ["PATH"]},
            folder=self._folder,
            log=self._folder / "nginx.log",
        )
        try:
            yield from until(lambda: self._serves() or self._has_ended(), timeout_s=START_S)
            self._require_started()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def stopping(self) -> Steps:
        """Stop it with SIGQUIT, which answers the requests in flight."""
        if self._process:
            yield from terminating(self._process, STOP)

    def _require_started(self) -> None:
        if not self._serves() or self._has_ended():
            raise ServerFailed(f"nginx did not start: {read_log(self._folder / 'nginx.log')}")

    def _serves(self) -> bool:
        # It writes the file after it has opened its ports.
        return (self._folder / "nginx.pid").exists()

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None


def find_nginx() -> Path:
    """Find the installed nginx, else the unpacked one. Raises ServerFailed."""
    for program in (*map(Path, PROGRAMS), UNPACKED):
        if program.is_file():
            return program
    raise ServerFailed("no nginx is installed: `make test` unpacks it")


@asynccontextmanager
async def open_nginx(folder: Path, site: str) -> AsyncIterator[Nginx]:
    """Run an nginx during the block without blocking the event loop."""
    server = Nginx(folder, site)
    await run_steps_async(server.starting())
    try:
        yield server
    finally:
        await run_steps_async(server.stopping())
