"""The composition root: the only package that knows every adapter.

A process is built from three pieces: what every process has (process.py), what accepts
(accepting.py) and what sends (sending.py). roles.py puts them together for `api` and `worker`,
dev.py for `dev`. Leaving their blocks is the shutdown, in reverse order.
"""

from notifier.app.dev import DevInfo, DevOptions, run_dev
from notifier.app.roles import run_api, run_worker

__all__ = ["DevInfo", "DevOptions", "run_api", "run_dev", "run_worker"]
