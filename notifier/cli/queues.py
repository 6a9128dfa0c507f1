"""`queues`: where the work is, and what keeps it from moving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from notifier.cli.configured import api_url
from notifier.cli.options import AsJson, Seconds, Url
from notifier.cli.running import run_briefly

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from notifier.cli.client import Client, Queue

_UNBOUND: Final = 10_000
_Columns = dict[str, Callable[["Queue"], object]]

_COLUMNS: Final[_Columns] = {
    "queue": lambda one: one.queue,
    "ready": lambda one: one.ready,
    "due": lambda one: one.due,
    "consumers": lambda one: one.consumers,
    "busy": lambda one: one.busy,
    "calls/s": lambda one: one.rate_per_s,
    "oldest s": lambda one: one.oldest_wait_s,
    "limited by": lambda one: one.limited_by,
    "paused": lambda one: "paused" if one.paused else "",
}
_NARROW: Final[_Columns] = {
    "queue": lambda one: one.queue,
    "ready\n+due": lambda one: one.ready + one.due,
    "con-\nsumers": lambda one: one.consumers,
    "limited\nby": lambda one: one.limited_by,
}


def queues(
    *,
    watch: Annotated[
        bool, Parameter(name=["--watch", "-w"], negative="", help="Until Ctrl-C.")
    ] = False,
    every: Annotated[Seconds, Parameter(help="Seconds between two looks of --watch.")] = 1.0,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Show every queue: waiting, consumers, rate, and what limits it."""
    run_briefly(_queues(api_url(url), every if watch else None, as_json=json))


async def _queues(url: str, every_s: float | None, *, as_json: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 start-up time

    from notifier.cli.client import open_client  # noqa: PLC0415

    out = Console()
    async with open_client(url) as client:
        if every_s is not None and out.is_terminal and not as_json:
            await _watch(client, every_s, out)
        await _print(client, out, as_json=as_json)
        while every_s is not None:
            await asyncio.sleep(every_s)
            await _print(client, out, as_json=as_json)


async def _print(client: Client, out: Console, *, as_json: bool) -> None:
    """One look; at its full width where nobody looks at a screen."""
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415 start-up time

    if as_json:
        print_json(await client.raw("/v1/queues"))
        return
    found = await _look(client)
    if out.is_terminal:
        out.print(_fitting(found, out))
    else:
        print_table(list(_COLUMNS), _rows(found, _COLUMNS))


async def _watch(client: Client, every_s: float, out: Console) -> None:
    """One table that changes in its place, until Ctrl-C."""
    from rich.live import Live  # noqa: PLC0415 start-up time

    with Live(_fitting(await _look(client), out), console=out, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(every_s)
            live.update(_fitting(await _look(client), out), refresh=True)


async def _look(client: Client) -> list[Queue]:
    from notifier.cli.client import Queue  # noqa: PLC0415 start-up time

    return await client.get("/v1/queues", list[Queue])


def _fitting(found: Sequence[Queue], out: Console) -> Table:
    """All columns where they fit without breaking a cell, else the few that matter most."""
    from notifier.cli.show import table  # noqa: PLC0415 start-up time

    whole = table(list(_COLUMNS), _rows(found, _COLUMNS))
    if out.measure(whole, options=out.options.update(max_width=_UNBOUND)).maximum <= out.width:
        return whole
    return table(list(_NARROW), _rows(found, _NARROW))


def _rows(found: Sequence[Queue], columns: _Columns) -> list[list[object]]:
    return [[read(one) for read in columns.values()] for one in found]
