"""`queues`: where the work is, and what keeps it from moving."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from notifier.cli.configured import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_briefly

if TYPE_CHECKING:
    from rich.table import Table

    from notifier.cli.client import Client

_COLUMNS = (
    "queue",
    "ready",
    "due",
    "consumers",
    "busy",
    "sent/s",
    "oldest s",
    "limited by",
    "paused",
)


def queues(
    *,
    watch: Annotated[
        bool, Parameter(name=["--watch", "-w"], negative="", help="Until Ctrl-C.")
    ] = False,
    every: Annotated[float, Parameter(help="Seconds between two looks of --watch.")] = 1.0,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Show every queue: waiting, consumers, rate, and what limits it."""
    run_briefly(_queues(api_url(url), every if watch else None, as_json=json))


async def _queues(url: str, every_s: float | None, *, as_json: bool) -> None:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        while as_json:
            print_json(await client.raw("/v1/queues"))
            if every_s is None:
                return
            await asyncio.sleep(every_s)
        await _show(client, every_s)


async def _show(client: Client, every_s: float | None) -> None:
    from rich.console import Console  # noqa: PLC0415 start-up time
    from rich.live import Live  # noqa: PLC0415

    first = await _table(client)
    if every_s is None:
        Console().print(first)
        return
    with Live(first, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(every_s)
            live.update(await _table(client), refresh=True)


async def _table(client: Client) -> Table:
    from notifier.cli.client import Queue  # noqa: PLC0415 start-up time
    from notifier.cli.show import table  # noqa: PLC0415

    found = await client.get("/v1/queues", list[Queue])
    return table(
        _COLUMNS,
        [
            (
                one.queue,
                one.ready,
                one.due,
                one.consumers,
                one.busy,
                one.rate_per_s,
                one.oldest_wait_s,
                one.limited_by,
                "paused" if one.paused else "",
            )
            for one in found
        ],
    )
