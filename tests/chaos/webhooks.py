"""The workers are killed again and again while one of them turns events into calls of webhooks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from datetime import datetime
from functools import partial
from operator import le, not_
from typing import Final
from uuid import UUID

from harness.client import until
from harness.statuses import on_statuses
from tests.chaos.processes import PROCESS_S, all_workers_killed
from tests.chaos.round import Fault, Round

KILLS: Final = 3
ENDPOINTS: Final = ("first", "second")
CALLS_BETWEEN: Final = 50
"""Calls that are stored after a kill before the next one: the worker does its work again."""
STEADY_S, SPREAD_S = 5.0, 1.0
"""How long the load is steady again before a kill, at least, and by how much longer at random."""
TAKEN_OVER_S: Final = 60.0
WAITING: Final = "SELECT count(*) FROM live WHERE id = ANY($1)"
RECEIVED_S: Final = 120.0
STORED: Final = "SELECT count(*) FROM notifications WHERE queue = 'webhook.medium'"
STORED_TWICE: Final = f"""SELECT count(*) - count(DISTINCT (recipient, content))
                          FROM ({STORED.replace("count(*)", "recipient, content")}) AS calls"""
ENDED: Final = on_statuses("SELECT id, status FROM statuses WHERE id::text = ANY($1)")


async def fanout_killed(round_: Round) -> float:
    """Kill all workers three times, each time while one of them turns events into calls."""
    run = round_.arena.run
    for name in ENDPOINTS:
        url = f"{round_.receiver.url}/{_endpoint(round_, name)}"
        asked = {"url": url, "events": ["notification.*"]}
        await run.client.call("POST", "webhooks", json=asked)
    ended_at = time.time()
    for _ in range(KILLS):
        least = await run.number(STORED) + CALLS_BETWEEN
        await until(lambda: run.number(STORED), partial(le, least), TAKEN_OVER_S)
        await asyncio.sleep(STEADY_S + round_.random.random() * SPREAD_S)
        ended_at = await all_workers_killed(round_)
        # Rows whose workers have died twice are sent one by one, which takes its time.
        held = [UUID(id_) for id_ in round_.held if round_.load.accepted[id_] == "ok"]
        await until(partial(run.number, WAITING, held), not_, TAKEN_OVER_S)
    return ended_at


async def each_end_is_called_once(round_: Round) -> None:
    """Check the calls: one event of each end for each webhook. A call itself may be repeated."""
    run, load = round_.arena.run, round_.load
    webhooks = (await run.client.call("GET", "webhooks"))["items"]
    made_at = max(datetime.fromisoformat(each["created_at"]).timestamp() for each in webhooks)
    rows = await run.rows(ENDED, [id_ for id_, at in load.asked_at.items() if at > made_at])
    ended = {(str(row["id"]), row["status"]) for row in rows}
    twice = calls = 0
    for name in ENDPOINTS:
        endpoint = _endpoint(round_, name)
        await until(partial(_missed, round_, endpoint, ended), not_, RECEIVED_S)
        events = _received(round_, endpoint)
        twice += sum(events[end] > 1 for end in ended)
        calls += len(round_.receiver.ids(endpoint))
    round_.require(f"{twice} ends reached a webhook as two events", holds=not twice)
    stored_twice = round(await run.number(STORED_TWICE))
    round_.require(f"{stored_twice} calls are stored twice", holds=not stored_twice)
    round_.found.append(f"{len(ended)} ends for each of {len(ENDPOINTS)} webhooks, {calls} calls")
    for each in webhooks:
        await run.client.call("DELETE", f"webhooks/{each['id']}")


def _endpoint(round_: Round, name: str) -> str:
    return f"{name}-{id(round_)}"


async def _missed(round_: Round, endpoint: str, ended: Collection[tuple[str, str]]) -> int:
    """Return how many of these ends have not reached an endpoint."""
    received = _received(round_, endpoint)
    return sum(end not in received for end in ended)


def _received(round_: Round, endpoint: str) -> Counter[tuple[str, str]]:
    """Return how many events of each notification and status an endpoint received."""
    events = defaultdict[tuple[str, str], set[str]](set)
    for each in round_.receiver.received[endpoint]:
        shown = each.event["data"]["notification"]
        events[shown["id"], shown["status"]].add(each.headers["webhook-id"])
    return Counter({end: len(ids) for end, ids in events.items()})


WEBHOOKS: Final = (
    Fault(
        strike=fanout_killed,
        timeout_s=PROCESS_S,
        receives=True,
        settings={
            "webhooks.allow_http": True,
            "webhooks.allow_private": '["127.0.0.0/8"]',
            "webhooks.retry_s": "[1, 2, 4, 4, 4, 4, 4, 4]",
        },
        check=each_end_is_called_once,
        text=f"Both workers are killed (-9) {KILLS} times, each time while one of them turns "
        "events into calls of webhooks, and two others join. Each end of a notification reaches "
        "both webhooks as one event. Recovery is that of the load, from the first ready after the "
        "last kill.",
    ),
)
