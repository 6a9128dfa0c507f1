"""`python -m harness.demo`: exits with 0 only if every total agrees with the sandbox's log."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from rich.console import Console
from rich.live import Live

from harness.client import Client, open_client
from harness.demo.comparison import compare, unknown_calls
from harness.demo.figures import read_figures
from harness.demo.node import Node, open_node
from harness.demo.plan import PlannedNotification, plan_notifications
from harness.demo.table import LiveTable, draw_totals
from notifier.api.responses import Queue
from notifier.domain.errors import NotifierError

START_TIMEOUT_S = 60.0
FINISH_TIMEOUT_S = 90.0
LATENCY_MS = 40
WAVE_SIZE = 250
WAVE_INTERVAL_S = 0.5
REFRESH_INTERVAL_S = 0.25
_EXPECTED_ERRORS = (
    NotifierError,
    AssertionError,
    aiohttp.ClientError,
    TimeoutError,
    msgspec.MsgspecError,
)

Planned = Mapping[str, PlannedNotification]


async def run(console: Console) -> int:
    """Start a node, submit, show progress, compare. Returns the exit code."""
    started_at = time.monotonic()
    async with open_node() as node, open_client(node.api, node.sandbox) as client:
        console.print(f"starting notifier dev with a private Postgres, broker: {node.broker}")
        await _wait_until_ready(node, client)
        await client.set_behaviour(latency_ms=LATENCY_MS)
        console.print(f"API {node.api}/docs, sandbox {node.sandbox}/calls, log {node.log}")
        planned = await _submit_and_watch(node, client, console)
        code = await _judge(client, planned, console)
    console.print(f"took {time.monotonic() - started_at:.0f} s on {node.broker}")
    return code


async def _wait_until_ready(node: Node, client: Client) -> None:
    async with _timeout(START_TIMEOUT_S, node, "was not ready"):
        while not await _is_ready(client):
            node.check()
            await asyncio.sleep(0.1)


async def _is_ready(client: Client) -> bool:
    try:
        status, _ = await client.readiness(client.api)
    except aiohttp.ClientConnectionError:
        return False
    return status == 200


async def _submit_and_watch(node: Node, client: Client, console: Console) -> Planned:
    planned: dict[str, PlannedNotification] = {}
    async with (
        _timeout(FINISH_TIMEOUT_S, node, "did not finish"),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_submit(client, planned), name="submit")
        await _watch(node, client, len(plan_notifications()), console)
    return planned


async def _submit(client: Client, planned: dict[str, PlannedNotification]) -> None:
    """Submits in waves; adds each notification to `planned` under its id."""
    plan = plan_notifications()
    for start in range(0, len(plan), WAVE_SIZE):
        wave = plan[start : start + WAVE_SIZE]
        ids = await client.submit([notification.body() for notification in wave])
        planned.update(zip(ids, wave, strict=True))
        await asyncio.sleep(WAVE_INTERVAL_S)


async def _watch(node: Node, client: Client, total: int, console: Console) -> None:
    table = LiveTable()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            node.check()
            figures = read_figures(await client.text(f"{client.api}/metrics"))
            queues = await client.items("queues")
            live.update(table.draw(msgspec.convert(queues, list[Queue]), figures), refresh=True)
            if figures.finished >= total:
                return
            await asyncio.sleep(REFRESH_INTERVAL_S)


@asynccontextmanager
async def _timeout(seconds: float, node: Node, failure: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise node.failed(f"{failure} within {seconds:g} s") from error


async def _judge(client: Client, planned: Planned, console: Console) -> int:
    log = await client.read(f"{client.sandbox}/calls")
    calls = Counter(call["notification_id"] or "" for call in log)
    totals = compare(planned, await client.statuses(), calls)
    console.print("\n", draw_totals(totals))
    unknown = unknown_calls(planned, calls)
    wrong = sum(total.wrong for total in totals)
    if wrong or unknown:
        console.print(
            f"{wrong} notifications differ from the plan, "
            f"{unknown} calls belong to no notification of the demo"
        )
        return 1
    console.print(f"{len(planned):,} notifications, {calls.total():,} calls: all totals agree")
    return 0


def main() -> int:
    """Run the demo on this terminal. Returns the exit code."""
    console, code = Console(), 1
    try:
        code = asyncio.run(run(console))
    except* KeyboardInterrupt:
        code = 130
    except* _EXPECTED_ERRORS as group:
        for error in group.exceptions:
            console.print(str(error), style="red", markup=False)
    return code


if __name__ == "__main__":
    sys.exit(main())
