"""What tests ask the system: of Notifier's API, and of the sandbox's own log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import islice
from typing import Any, Final

import aiohttp

FINAL: Final = frozenset({"sent", "failed", "expired", "cancelled", "suppressed"})
QUEUES: Final = tuple(
    f"{channel}.{priority}"
    for channel in ("email", "sms", "push")
    for priority in ("high", "medium", "low")
)
WITHIN_S: Final = 90.0
LOOK_EVERY_S: Final = 0.1
BATCH: Final = 1000
PAGE: Final = 200
DIGITS: Final = {
    "refuse": 1,
    "flaky-2": 2,
    "throttle-2": 3,
    "down": 4,
    "hang": 5,
    "ok": 6,
    "cut": 7,
}

Document = dict[str, Any]


def an_order(queue: str = "email.high", fate: str = "ok", **more: object) -> Document:
    """The body of a submit to a recipient with this fate."""
    channel, _, priority = queue.partition(".")
    recipient = {
        "email": f"{fate}+e2e@example.com",
        "sms": f"+1500555000{DIGITS[fate]}",
        "push": f"fate-{fate}-e2e",
    }[channel]
    return {
        "channel": channel,
        "priority": priority,
        "recipient": recipient,
        "content": {"subject": "Hello", "body": "World"},
        **more,
    }


def orders(count: int) -> Sequence[Document]:
    """As many over all nine queues."""
    return [an_order(QUEUES[number % len(QUEUES)]) for number in range(count)]


class Client:
    """Where the system refuses what it must not, the call raises AssertionError with its words."""

    def __init__(self, session: aiohttp.ClientSession, api: str, sandbox: str) -> None:
        self._session, self.api, self.sandbox = session, api, sandbox

    # ---- Notifier's API -------------------------------------------------------------------------

    async def post(self, order: Document) -> tuple[int, Mapping[str, str], Document]:
        """Submit one, whatever is answered: status, headers, document."""
        async with self._session.post(f"{self.api}/v1/notifications", json=order) as answer:
            return answer.status, answer.headers, await answer.json(content_type=None)

    async def submit_one(self, order: Document) -> str:
        """Submit one; its id."""
        (accepted,) = await self.submit([order])
        return accepted

    async def submit(self, wanted: Sequence[Document]) -> list[str]:
        """Submit all, in batches; their ids in order."""
        rest, ids = iter(wanted), list[str]()
        while batch := list(islice(rest, BATCH)):
            url = f"{self.api}/v1/notifications/batch"
            answer = await self._call("POST", url, json={"notifications": batch})
            ids += [result["id"] for result in answer["results"]]
        return ids

    async def notification(self, which: str) -> Document:
        found: Document = await self.read(f"{self.api}/v1/notifications/{which}")
        return found

    async def hold(self, verb: str, kind: str, name: str) -> Document:
        """`pause` or `resume` a queue, channel or provider."""
        held: Document = await self._call("POST", f"{self.api}/v1/{kind}s/{name}/{verb}", json={})
        return held

    async def final(self, which: str) -> Document:
        """The notification, once it is final."""
        found: Document = await until(
            lambda: self.notification(which), lambda seen: seen["status"] in FINAL
        )
        return found

    async def statuses(self) -> Mapping[str, str]:
        """The status of every notification there is, by id."""
        rows = await self._pages("notifications")
        return {row["id"]: row["status"] for row in rows}

    async def failures(self) -> Sequence[Document]:
        return await self._pages("failures")

    async def all_final(self, ids: Sequence[str]) -> Counter[str]:
        """How many of these ended as what, once all are final."""

        def is_over(found: Mapping[str, str]) -> bool:
            return all(found.get(which) in FINAL for which in ids)

        found = await until(self.statuses, is_over)
        return Counter(found[which] for which in ids)

    # ---- the sandbox ----------------------------------------------------------------------------

    async def behave(self, **wish: object) -> None:
        await self._call("PUT", f"{self.sandbox}/behaviour", json=wish)

    async def calls(self, which: str) -> Sequence[Document]:
        """The calls for one notification, oldest first, `at` as an instant."""
        return await self.log(notification_id=which)

    async def log(self, **wanted: str) -> Sequence[Document]:
        """The calls wanted (`channel`, `since`, `notification_id`), or all; as `calls` has them."""
        calls = await self.read(f"{self.sandbox}/calls", **wanted)
        return [call | {"at": datetime.fromisoformat(call["at"])} for call in calls]

    async def summary(self) -> Document:
        found: Document = await self.read(f"{self.sandbox}/calls/summary")
        return found

    async def called(self, least: int) -> None:
        """Wait until the sandbox had at least so many calls."""
        await until(self.summary, lambda found: found["calls"] >= least)

    async def accepted(self) -> Counter[str]:
        """How often the sandbox accepted each notification."""
        calls = await self.read(f"{self.sandbox}/calls")
        return Counter(call["notification_id"] for call in calls if call["accepted"])

    async def unexplained_doubles(self) -> list[str]:
        """What was accepted more than once without an ambiguous attempt that would explain it."""
        doubled = [which for which, count in (await self.accepted()).items() if count > 1]
        return [
            which
            for which in doubled
            if "ambiguous"
            not in {attempt["outcome"] for attempt in (await self.notification(which))["attempts"]}
        ]

    # ---- HTTP -----------------------------------------------------------------------------------

    async def read(self, url: str, **query: str) -> Any:
        return await self._call("GET", url, params=query)

    async def text(self, url: str) -> str:
        async with self._session.get(url) as answer:
            return await answer.text()

    async def readiness(self, url: str) -> tuple[int, Document]:
        """The status and document of a process's /health/ready."""
        ready = f"{url}/health/ready"
        async with self._session.get(ready) as answer:
            return answer.status, await answer.json(content_type=None)

    async def _call(self, method: str, url: str, **more: Any) -> Any:
        async with self._session.request(method, url, **more) as answer:
            assert answer.ok, f"{method} {url}: {answer.status} {await answer.text()}"
            return await answer.json()

    async def _pages(self, what: str) -> list[Document]:
        rows, query = list[Document](), {"limit": str(PAGE)}
        while True:
            page = await self.read(f"{self.api}/v1/{what}", **query)
            rows += page[what]
            if not page["next_cursor"]:
                return rows
            query["cursor"] = page["next_cursor"]


async def until(
    look: Callable[[], Awaitable[Any]], is_so: Callable[[Any], bool], within: float = WITHIN_S
) -> Any:
    """Look again and again until it is so; what was seen then."""
    seen: Any = None
    try:
        async with asyncio.timeout(within):
            while not is_so(seen := await look()):
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError as error:
        raise AssertionError(
            f"not so within {within:g} s, last seen: {str(seen)[:2000]}"
        ) from error
    return seen


@asynccontextmanager
async def open_client(api: str, sandbox: str) -> AsyncIterator[Client]:
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield Client(session, api, sandbox)
