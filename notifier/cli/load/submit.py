"""Submits the plan at its pace, over a bounded number of calls at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import aiohttp
import msgspec

from notifier.cli.client import unreachable
from notifier.cli.failures import CommandFailed

Body = Mapping[str, object]

ACCEPTED: Final = "202"
_NO_ANSWER: Final = "no answer"


@dataclass(slots=True)
class Submitted:
    """What came of the submits: ids by queue, calls by what they answered, seconds a call."""

    queue_of: dict[str, str] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    latest_s: float = 0.0
    took_s: float = 0.0


class Refusal(msgspec.Struct):
    """Why a notification was not accepted, as far as it is counted."""

    status: int


class Item(msgspec.Struct):
    """One answer: of an accepted notification, or a problem."""

    id: str = ""
    queue: str = ""
    problem: Refusal | None = None


class Batch(msgspec.Struct):
    """The answer to a batch, in the order of its notifications; also of one refused as a whole."""

    results: list[Item] = []


@dataclass(slots=True)
class Submitter:
    """Submits batches; a batch of one goes to the endpoint for one."""

    session: aiohttp.ClientSession
    url: str
    on_progress: Callable[[int], None]
    submitted: Submitted = field(default_factory=Submitted)

    async def run(
        self, bodies: Iterable[Body], instants: Iterator[float], *, batch: int, concurrency: int
    ) -> Submitted:
        """Submit all, each batch at its instant, or as soon after as one of the callers is free."""
        began = time.monotonic()
        work = zip(_chunks(bodies, batch), instants, strict=False)
        async with asyncio.TaskGroup() as group:
            for number in range(concurrency):
                group.create_task(self._call_in_turn(work, began), name=f"caller {number}")
        self.submitted.took_s = time.monotonic() - began
        return self.submitted

    async def _call_in_turn(self, work: Iterator[tuple[list[Body], float]], began: float) -> None:
        for bodies, instant in work:
            late = time.monotonic() - began - instant
            if late < 0:
                await asyncio.sleep(-late)
            elif instant > 0:
                self.submitted.latest_s = max(self.submitted.latest_s, late)
            await self._submit(bodies)
            self.on_progress(len(bodies))

    async def _submit(self, bodies: list[Body]) -> None:
        path, body = (
            ("/v1/notifications", bodies[0])
            if len(bodies) == 1
            else ("/v1/notifications/batch", {"notifications": bodies})
        )
        began = time.perf_counter()
        try:
            async with self.session.post(
                self.url + path,
                data=msgspec.json.encode(body),
                headers={"Content-Type": "application/json"},
            ) as answer:
                self._note(answer.status, await answer.read(), len(bodies))
        except aiohttp.ClientConnectorError as error:
            if not self.submitted.answers:
                raise CommandFailed(unreachable(self.url, error)) from error
            self.submitted.answers[_NO_ANSWER] += len(bodies)
        except (aiohttp.ClientError, TimeoutError):
            self.submitted.answers[_NO_ANSWER] += len(bodies)
        self.submitted.latencies.append(time.perf_counter() - began)

    def _note(self, status: int, body: bytes, count: int) -> None:
        items = _items(status, body, is_batch=count > 1)
        for item in items:
            if item.problem is None:
                self.submitted.queue_of[item.id] = item.queue
            answer = ACCEPTED if item.problem is None else str(item.problem.status)
            self.submitted.answers[answer] += 1
        if not items:
            self.submitted.answers[str(status)] += count


def _items(status: int, body: bytes, *, is_batch: bool) -> list[Item]:
    """What is said of each notification; nothing where the call was refused as one."""
    try:
        if is_batch:
            return msgspec.json.decode(body, type=Batch).results
        return [msgspec.json.decode(body, type=Item)] if str(status) == ACCEPTED else []
    except msgspec.MsgspecError:
        return []


def _chunks(bodies: Iterable[Body], size: int) -> Iterator[list[Body]]:
    source = iter(bodies)
    while chunk := list(islice(source, size)):
        yield chunk
