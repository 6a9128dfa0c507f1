"""What the demo asks over HTTP: of Notifier's API, and of the sandbox's own paths."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from notifier.cli.demo.plan import Order

PAGE: Final = 200
TIMEOUT_S: Final = 30.0

T = TypeVar("T")


class Queue(msgspec.Struct, frozen=True):
    """One row of `GET /v1/queues`, as far as the demo shows it."""

    queue: str
    ready: int
    due: int
    consumers: int


class Standing(msgspec.Struct, frozen=True):
    """Where a notification stands, as the API says it."""

    id: str
    status: str


class _Page(msgspec.Struct):
    notifications: list[Standing]
    next_cursor: str | None


class _Submitted(msgspec.Struct):
    id: str


class _Batch(msgspec.Struct):
    results: list[_Submitted]


class _Call(msgspec.Struct):
    notification_id: str | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Counters of the node by queue, since it started."""

    sent: Counter[str]
    failed: Counter[str]
    retries: Counter[str]
    finished: int


class Client:
    """The calls of the demo. A refusal raises aiohttp.ClientResponseError."""

    def __init__(self, session: aiohttp.ClientSession, api: str, sandbox: str) -> None:
        self._session = session
        self._api = api
        self._sandbox = sandbox

    async def is_ready(self) -> bool:
        """Whether the API serves already."""
        try:
            url = f"{self._api}/health/ready"
            async with self._session.get(url, raise_for_status=False) as answer:
                return answer.ok
        except aiohttp.ClientConnectionError:
            return False

    async def slow_down(self, latency_ms: int) -> None:
        """Have every channel of the sandbox answer after this time."""
        for channel in ("email", "sms", "push"):
            wish = {"channel": channel, "latency_ms": latency_ms}
            async with self._session.put(f"{self._sandbox}/behaviour", json=wish):
                pass

    async def submit(self, orders: Sequence[Order]) -> Sequence[str]:
        """Submit a batch; the ids, in order."""
        body = {"notifications": [order.body() for order in orders]}
        async with self._session.post(f"{self._api}/v1/notifications/batch", json=body) as answer:
            batch = msgspec.json.decode(await answer.read(), type=_Batch)
        return [submitted.id for submitted in batch.results]

    async def queues(self) -> Sequence[Queue]:
        """`GET /v1/queues`."""
        return await self._read(f"{self._api}/v1/queues", list[Queue])

    async def figures(self) -> Figures:
        """The counters in `/metrics`."""
        async with self._session.get(f"{self._api}/metrics") as answer:
            return read_figures(await answer.text())

    async def statuses(self) -> Mapping[str, str]:
        """The status of every notification of the node, by id."""
        found: dict[str, str] = {}
        query = {"limit": str(PAGE)}
        while True:
            page = await self._read(f"{self._api}/v1/notifications", _Page, query)
            found |= {row.id: row.status for row in page.notifications}
            if not page.next_cursor:
                return found
            query["cursor"] = page.next_cursor

    async def calls(self) -> Counter[str]:
        """How many calls the sandbox logged, by notification; `""` gathers those without one."""
        calls = await self._read(f"{self._sandbox}/calls", list[_Call])
        return Counter(call.notification_id or "" for call in calls)

    async def _read(self, url: str, kind: type[T], query: Mapping[str, str] | None = None) -> T:
        async with self._session.get(url, params=query) as answer:
            return msgspec.json.decode(await answer.read(), type=kind)


def read_figures(text: str) -> Figures:
    """Pick the demo's counters from a Prometheus exposition."""
    counts: dict[tuple[str, str | None], Counter[str]] = defaultdict(Counter)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            which = sample.name, sample.labels.get("status")
            counts[which][sample.labels.get("queue", "")] += int(sample.value)
    finished = (tally for (name, _), tally in counts.items() if name == "notifier_finished_total")
    return Figures(
        sent=counts["notifier_finished_total", "sent"],
        failed=counts["notifier_finished_total", "failed"],
        retries=counts["notifier_retries_total", None],
        finished=sum(map(Counter.total, finished)),
    )


@asynccontextmanager
async def open_client(api: str, sandbox: str) -> AsyncIterator[Client]:
    """A client with its own connections."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
        yield Client(session, api, sandbox)
