"""A client of a running system: Notifier's API and the sandbox's log of calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from itertools import islice
from typing import Any, Final

import aiohttp

from notifier.domain.notification import FINAL

QUEUES: Final = tuple(
    f"{channel}.{priority}"
    for channel in ("email", "sms", "push")
    for priority in ("high", "medium", "low")
)
TIMEOUT_S: Final = 90.0
POLL_INTERVAL_S: Final = 0.1
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
    "delivered": 8,
    "bounced": 9,
}

Document = dict[str, Any]


def submit_body(queue: str = "email.high", fate: str = "ok", **more: object) -> Document:
    """Return the body of a submit to a recipient with this fate."""
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
    """Return `count` submit bodies, spread over the nine queues."""
    return [submit_body(QUEUES[number % len(QUEUES)]) for number in range(count)]


class Client:
    """Calls one system. An unexpected error response raises AssertionError with its text.

    The API gets the `key`, if there is one.
    """

    def __init__(self, session: aiohttp.ClientSession, api: str, sandbox: str) -> None:
        self._session, self.api, self.sandbox = session, api, sandbox
        self.key = ""

    async def post(self, body: Document) -> tuple[int, Mapping[str, str], Document]:
        """Submit one notification. Returns status, headers and document of any response."""
        url = f"{self.api}/v1/notifications"
        async with self._session.post(url, json=body, headers=self._headers(url)) as response:
            return response.status, response.headers, await response.json(content_type=None)

    async def call(self, method: str, path: str, **more: Any) -> Any:
        """Call the API at this path below /v1; return the document, None if there is none."""
        return await self._call(method, f"{self.api}/v1/{path}", **more)

    async def submit_one(self, body: Document) -> str:
        """Submit one notification and return its id."""
        (accepted,) = await self.submit([body])
        return accepted

    async def submit(self, bodies: Sequence[Document]) -> list[str]:
        """Submit all in batches and return the ids in the same order."""
        remaining, ids = iter(bodies), list[str]()
        while batch := list(islice(remaining, BATCH)):
            url = f"{self.api}/v1/notifications/batch"
            response = await self._call("POST", url, json={"notifications": batch})
            ids += [result["id"] for result in response["results"]]
        return ids

    async def notification(self, which: str) -> Document:
        found: Document = await self.read(f"{self.api}/v1/notifications/{which}")
        return found

    async def hold(self, verb: str, kind: str, name: str) -> Document:
        """Pause or resume (`verb`) a queue, channel or provider (`kind`)."""
        method = {"pause": "PUT", "resume": "DELETE"}[verb]
        held: Document = await self._call(method, f"{self.api}/v1/pauses/{kind}/{name}")
        return held

    async def final(self, which: str) -> Document:
        """Wait until the notification has a final status and return it."""
        found: Document = await until(
            lambda: self.notification(which), lambda document: document["status"] in FINAL
        )
        return found

    async def statuses(self) -> Mapping[str, str]:
        """Return the status of every notification by id."""
        rows = await self._pages()
        return {row["id"]: row["status"] for row in rows}

    async def failures(self) -> Sequence[Document]:
        """Return the failed notifications, newest first."""
        return await self._pages(status="failed")

    async def items(self, path: str) -> Sequence[Document]:
        """Return the items of a list of one page, such as `queues`."""
        page: Document = await self.read(f"{self.api}/v1/{path}")
        items: list[Document] = page["items"]
        return items

    async def all_final(self, ids: Sequence[str]) -> Counter[str]:
        """Wait until all of these are final and count them by status."""

        def all_are_final(found: Mapping[str, str]) -> bool:
            return all(found.get(which) in FINAL for which in ids)

        found = await until(self.statuses, all_are_final)
        return Counter(found[which] for which in ids)

    async def set_behaviour(self, **behaviour: object) -> None:
        await self._call("PUT", f"{self.sandbox}/behaviour", json=behaviour)

    async def calls(self, which: str) -> Sequence[Document]:
        """Return the calls for one notification, oldest first; `at` is a datetime."""
        return await self.log(notification_id=which)

    async def log(self, **wanted: str) -> Sequence[Document]:
        """Return the calls that match `channel`, `since` and `notification_id`, oldest first."""
        calls = await self.read(f"{self.sandbox}/calls", **wanted)
        return [call | {"at": datetime.fromisoformat(call["at"])} for call in calls]

    async def summary(self) -> Document:
        found: Document = await self.read(f"{self.sandbox}/calls/summary")
        return found

    async def wait_for_calls(self, minimum: int) -> None:
        """Wait until the sandbox has received at least `minimum` calls."""
        await until(self.summary, lambda found: found["calls"] >= minimum)

    async def accepted(self) -> Counter[str]:
        """Count how often the sandbox accepted each notification."""
        calls = await self.read(f"{self.sandbox}/calls")
        return Counter(call["notification_id"] for call in calls if call["accepted"])

    async def unexplained_duplicates(self) -> list[str]:
        """Return the ids that were accepted more than once without an ambiguous attempt."""
        doubled = [which for which, count in (await self.accepted()).items() if count > 1]
        return [
            which
            for which in doubled
            if "ambiguous"
            not in {attempt["outcome"] for attempt in (await self.notification(which))["attempts"]}
        ]

    async def read(self, url: str, **query: str) -> Any:
        return await self._call("GET", url, params=query)

    async def text(self, url: str) -> str:
        async with self._session.get(url, headers=self._headers(url)) as response:
            return await response.text()

    async def readiness(self, url: str) -> tuple[int, Document]:
        """Return the HTTP status and the document of a process's /health/ready."""
        ready = f"{url}/health/ready"
        async with self._session.get(ready) as response:
            return response.status, await response.json(content_type=None)

    async def _call(self, method: str, url: str, **more: Any) -> Any:
        headers = self._headers(url)
        async with self._session.request(method, url, headers=headers, **more) as response:
            assert response.ok, f"{method} {url}: {response.status} {await response.text()}"
            return await response.json() if response.status != HTTPStatus.NO_CONTENT else None

    def _headers(self, url: str) -> Mapping[str, str]:
        is_for_api = self.key and url.startswith(self.api)
        return {"Authorization": f"Bearer {self.key}"} if is_for_api else {}

    async def _pages(self, **filters: str) -> list[Document]:
        rows, query = list[Document](), {"limit": str(PAGE), **filters}
        while True:
            page = await self.read(f"{self.api}/v1/notifications", **query)
            rows += page["items"]
            if not page["next_cursor"]:
                return rows
            query["cursor"] = page["next_cursor"]


async def until(
    read: Callable[[], Awaitable[Any]],
    condition: Callable[[Any], bool],
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """Call `read` every 0.1 s until `condition` holds for its value, and return that value.

    Raises AssertionError with the last value after `timeout_s`.
    """
    last: Any = None
    try:
        async with asyncio.timeout(timeout_s):
            while not condition(last := await read()):
                await asyncio.sleep(POLL_INTERVAL_S)
    except TimeoutError as error:
        raise AssertionError(
            f"condition not met within {timeout_s:g} s, last value: {str(last)[:2000]}"
        ) from error
    return last


@asynccontextmanager
async def open_client(api: str, sandbox: str) -> AsyncIterator[Client]:
    timeout = aiohttp.ClientTimeout(total=30)
    # The API closes a connection that is idle for 5 s: a POST must not meet that.
    connector = aiohttp.TCPConnector(keepalive_timeout=4)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield Client(session, api, sandbox)
