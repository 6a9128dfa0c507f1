"""`queues`: shows the state of every queue, once or continuously."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_async
from notifier.cli.spans import Span

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

    from notifier.api.responses import Queue
    from notifier.cli.client import Client

_PATH: Final = "/v1/queues"
_UNLIMITED_WIDTH: Final = 10_000
_Columns = dict[str, Callable[["Queue"], object]]

_COLUMNS: Final[_Columns] = {
    "queue": lambda queue: queue.queue,
    "ready": lambda queue: queue.ready,
    "due": lambda queue: _count(queue.due, is_exact=queue.due_is_exact),
    "consumers": lambda queue: queue.consumers,
    "busy": lambda queue: queue.busy,
    "calls/s": lambda queue: queue.rate_per_s,
    "first due s ago": lambda queue: queue.oldest_wait_s,
    "limited by": lambda queue: queue.limited_by,
    "paused": lambda queue: "paused" if queue.paused else "",
}
_NARROW_COLUMNS: Final[_Columns] = {
    "queue": lambda queue: queue.queue,
    "ready\n+due": lambda queue: _count(queue.ready + queue.due, is_exact=queue.due_is_exact),
    "con-\nsumers": lambda queue: queue.consumers,
    "limited\nby": lambda queue: queue.limited_by,
}


def queues(
    *,
    watch: Annotated[
        bool, Parameter(name=["--watch", "-w"], negative="", help="Update until Ctrl-C.")
    ] = False,
    every: Annotated[Span, Parameter(help="Time between two updates of --watch.")] = 1.0,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Show every queue: waiting notifications, consumers, rate, and what limits it."""
    run_async(_queues(api_url(url), every if watch else None, as_json=json))


async def _queues(url: str, interval_s: float | None, *, as_json: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 start-up time

    from notifier.cli.client import open_client  # noqa: PLC0415

    console = Console()
    async with open_client(url) as client:
        if interval_s is not None and console.is_terminal and not as_json:
            await _watch(client, interval_s, console)
        await _print(client, console, as_json=as_json)
        while interval_s is not None:
            await asyncio.sleep(interval_s)
            await _print(client, console, as_json=as_json)


async def _print(client: Client, console: Console, *, as_json: bool) -> None:
    """Print the queues once. Without a terminal the table has its full width."""
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415 start-up time

    if as_json:
        print_json(await client.get_raw(_PATH))
        return
    rows = await _read_queues(client)
    if console.is_terminal:
        console.print(_shown(rows, console))
    else:
        print_table(list(_COLUMNS), _cells(rows, _COLUMNS))
        for note in _notes(rows):
            print(note)


async def _watch(client: Client, interval_s: float, console: Console) -> None:
    """Update one table in place until Ctrl-C."""
    from rich.live import Live  # noqa: PLC0415 start-up time

    first = _shown(await _read_queues(client), console)
    with Live(first, console=console, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(interval_s)
            live.update(_shown(await _read_queues(client), console), refresh=True)


async def _read_queues(client: Client) -> Sequence[Queue]:
    from notifier.api.responses import QueuePage  # noqa: PLC0415 start-up time

    return (await client.get(_PATH, QueuePage)).items


def _shown(rows: Sequence[Queue], console: Console) -> Group:
    """Return the table, and below it what it has no room for."""
    from rich.console import Group  # noqa: PLC0415 start-up time
    from rich.text import Text  # noqa: PLC0415

    return Group(_fitting_table(rows, console), *(Text(note) for note in _notes(rows)))


def _notes(rows: Sequence[Queue]) -> Iterator[str]:
    for queue in rows:
        if queue.limited_by_detail:
            yield f"{queue.queue}: {queue.limited_by}: {queue.limited_by_detail}"
        if queue.foreign:
            yield (
                f"{queue.queue}: {queue.foreign} pointers of another deployment in the last "
                "minute: it uses the same RabbitMQ vhost"
            )


def _count(count: int, *, is_exact: bool) -> object:
    return count if is_exact else f">= {count:,}"


def _fitting_table(rows: Sequence[Queue], console: Console) -> Table:
    """Return a table of all columns if they fit without wrapping, else of the narrow columns."""
    from notifier.cli.show import table  # noqa: PLC0415 start-up time

    full = table(list(_COLUMNS), _cells(rows, _COLUMNS))
    unlimited = console.options.update(max_width=_UNLIMITED_WIDTH)
    if console.measure(full, options=unlimited).maximum <= console.width:
        return full
    return table(list(_NARROW_COLUMNS), _cells(rows, _NARROW_COLUMNS))


def _cells(rows: Sequence[Queue], columns: _Columns) -> list[list[object]]:
    return [[cell(row) for cell in columns.values()] for row in rows]
