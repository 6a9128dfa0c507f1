"""`workers`: shows every live process."""

from __future__ import annotations

from typing import Final

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_async

_PATH: Final = "/v1/workers"
_COLUMNS: Final = (
    "kind",
    "host",
    "pid",
    "version",
    "started",
    "heartbeat",
    "consumers",
    "busy",
    "lacks",
)


def workers(*, url: Url = None, json: AsJson = False) -> None:
    """Show every process with a heartbeat of the last minute, the oldest first."""
    run_async(_workers(api_url(url), as_json=json))


async def _workers(url: str, *, as_json: bool) -> None:
    from notifier.api.responses import WorkerPage  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    async with open_client(url) as client:
        if as_json:
            print_json(await client.get_raw(_PATH))
            return
        page = await client.get(_PATH, WorkerPage)
    rows = [
        (
            worker.kind,
            worker.host,
            worker.pid,
            worker.version,
            worker.started_at,
            worker.beat_at,
            worker.consumers,
            worker.busy,
            ", ".join(worker.lacks),
        )
        for worker in page.items
    ]
    print_table(_COLUMNS, rows)
