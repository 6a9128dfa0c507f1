"""What failed is sent again by operations while the processes that carry them out die."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from harness.client import Document, submit_body, until
from tests.chaos.processes import PROCESS_S, api_killed, worker_killed
from tests.chaos.round import Fault, Round

COUNT: Final = 60
RATE_PER_S: Final = 10.0
FAILED_WITHIN_S: Final = 30.0
WORKER, API = "worker", "API"


async def operations_killed(round_: Round) -> float:
    """Two people send the same failures again; the worker or the API is killed in the middle."""
    client = round_.arena.run.client
    ids = await round_.load.submit([submit_body("email.medium", "refuse")] * COUNT, "refuse")

    async def failed() -> int:
        found = [await client.notification(id_) for id_ in ids]
        return sum(each["status"] == "failed" for each in found)

    await until(failed, lambda count: count == len(ids), FAILED_WITHIN_S)
    asked = {
        "kind": "retry",
        "filter": {"ids": ids},
        "note": "the list was wrong",
        "rate_per_s": RATE_PER_S,
    }
    operations = [await client.call("POST", "operations", json=asked) for _ in range(2)]
    round_.sent_again = set(ids)
    await asyncio.sleep(COUNT / RATE_PER_S / 4)
    ended_at = await (worker_killed if round_.variant == WORKER else api_killed)(round_)

    async def finished() -> list[Document]:
        return [await client.call("GET", f"operations/{each['id']}") for each in operations]

    ended = await until(finished, lambda found: {each["status"] for each in found} == {"finished"})
    done = sum(each["done"] for each in ended)
    round_.require(f"the operations sent {done} of {len(ids)} again", holds=done == len(ids))
    return ended_at


async def each_is_called_once_more(round_: Round) -> None:
    """Check the calls; a worker that dies in a call leaves an ambiguous attempt."""
    run = round_.arena.run
    calls = Counter(call["notification_id"] for call in await run.client.log())
    marked = await run.ambiguous()
    wrong = [id_ for id_ in sorted(round_.sent_again - marked) if calls[id_] != 2]
    round_.require(f"{len(wrong)} were not called once more, such as {wrong[:1]}", holds=not wrong)
    of_them = len(round_.sent_again & marked)
    round_.found.append(f"{len(round_.sent_again)} sent again, {of_them} of them marked")


OPERATIONS: Final = (
    Fault(
        strike=operations_killed,
        timeout_s=PROCESS_S,
        variants=(WORKER, API),
        check=each_is_called_once_more,
        text=f"{COUNT} failures are sent again by two operations at once, at "
        f"{RATE_PER_S:g} per second each, and in the middle a worker or the API, in turn, is "
        "killed (-9) and another one joins. Each failure is called once more, and the operations "
        "count each once. Recovery is that of the load, from the kill.",
    ),
)
