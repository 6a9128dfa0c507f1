"""`python -m notifier.cli.demo`: exits 0 only if every total agrees with the sandbox's log."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from rich.console import Console
from rich.live import Live

from notifier.cli.demo.client import Client, open_client
from notifier.cli.demo.node import Node, open_node
from notifier.cli.demo.plan import Order, plan_orders
from notifier.cli.demo.table import LiveTable, draw_totals
from notifier.cli.demo.verdict import compare, strangers
from notifier.domain.errors import NotifierError

START_S = 60.0
FINISH_S = 90.0
LATENCY_MS = 40
WAVE = 250
WAVE_EVERY_S = 0.5
READ_EVERY_S = 0.25
_EXPECTED = (NotifierError, aiohttp.ClientError, TimeoutError, msgspec.MsgspecError)


async def run(console: Console) -> int:
    """Start a node, submit, watch, compare. The exit code."""
    began = time.monotonic()
    async with open_node() as node, open_client(node.api, node.sandbox) as client:
        console.print(f"starting notifier dev with a private Postgres, broker: {node.broker}")
        await _until_ready(node, client)
        await client.slow_down(LATENCY_MS)
        console.print(f"API {node.api}/docs, sandbox {node.sandbox}/calls, log {node.log}")
        orders = await _submit_and_watch(node, client, console)
        code = await _judge(client, orders, console)
    console.print(f"took {time.monotonic() - began:.0f} s on {node.broker}")
    return code


async def _until_ready(node: Node, client: Client) -> None:
    async with _within(START_S, node, "did not get ready"):
        while not await client.is_ready():
            node.check()
            await asyncio.sleep(0.1)


async def _submit_and_watch(node: Node, client: Client, console: Console) -> Mapping[str, Order]:
    orders: dict[str, Order] = {}
    async with _within(FINISH_S, node, "did not finish"), asyncio.TaskGroup() as group:
        group.create_task(_submit(client, orders), name="submit")
        await _watch(node, client, len(plan_orders()), console)
    return orders


async def _submit(client: Client, orders: dict[str, Order]) -> None:
    plan = plan_orders()
    for start in range(0, len(plan), WAVE):
        wave = plan[start : start + WAVE]
        orders.update(zip(await client.submit(wave), wave, strict=True))
        await asyncio.sleep(WAVE_EVERY_S)


async def _watch(node: Node, client: Client, total: int, console: Console) -> None:
    table = LiveTable()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            node.check()
            figures = await client.figures()
            live.update(table.draw(await client.queues(), figures), refresh=True)
            if figures.finished >= total:
                return
            await asyncio.sleep(READ_EVERY_S)


@asynccontextmanager
async def _within(span_s: float, node: Node, how: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(span_s):
            yield
    except TimeoutError as error:
        raise node.failed(f"{how} within {span_s:g} s") from error


async def _judge(client: Client, orders: Mapping[str, Order], console: Console) -> int:
    calls = await client.calls()
    lines = compare(orders, await client.statuses(), calls)
    console.print("\n", draw_totals(lines))
    foreign = strangers(orders, calls)
    wrong = sum(line.wrong for line in lines)
    if wrong or foreign:
        console.print(f"{wrong} notifications differ, {foreign} calls belong to none of them")
        return 1
    console.print(f"{len(orders):,} notifications, {calls.total():,} calls: all totals agree")
    return 0


def main() -> int:
    """Run the demo on this terminal."""
    console, code = Console(), 1
    try:
        code = asyncio.run(run(console))
    except* KeyboardInterrupt:
        code = 130
    except* _EXPECTED as group:
        for error in group.exceptions:
            console.print(str(error), style="red", markup=False)
    return code


if __name__ == "__main__":
    sys.exit(main())
