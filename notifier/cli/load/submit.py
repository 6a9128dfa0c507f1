"""Submits the notifications of a load run at their due times, over a limited number of callers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import aiohttp
import msgspec

from notifier.api.responses import Accepted, BatchRefusal, BatchResponse
from notifier.cli.client import describe_connection_error
from notifier.cli.failures import CommandFailed
from notifier.cli.load.progress import Progress

Body = Mapping[str, object]

ACCEPTED: Final = "202"
_NO_RESPONSE: Final = "no response"


@dataclass(slots=True)
class Submitted:
    """The results of the submits.

    `queue_of` has the queue of each accepted id, `responses` the number of notifications by HTTP
    status, `latencies` the seconds of each call. `max_delay_s` is the longest time from a batch's
    due time to its submit.
    """

    queue_of: dict[str, str] = field(default_factory=dict)
    responses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    max_delay_s: float = 0.0
    duration_s: float = 0.0


@dataclass(slots=True)
class Submitter:
    """Submits batches; a batch of one goes to the endpoint for single notifications."""

    session: aiohttp.ClientSession
    url: str
    progress: Progress
    submitted: Submitted = field(default_factory=Submitted)

    async def run(
        self, bodies: Iterable[Body], due_times: Iterator[float], *, batch: int, concurrency: int
    ) -> Submitted:
        """Submit all. A batch waits for its due time and for one of `concurrency` free callers.

        Raises CommandFailed if the first call finds no API. Later failures are counted.
        """
        started_at = time.monotonic()
        work = zip(_chunks(bodies, batch), due_times, strict=False)
        async with asyncio.TaskGroup() as group:
            for number in range(concurrency):
                group.create_task(self._call(work, started_at), name=f"caller {number}")
        self.submitted.duration_s = time.monotonic() - started_at
        return self.submitted

    async def _call(self, work: Iterator[tuple[list[Body], float]], started_at: float) -> None:
        """Take batches from the shared iterator and submit them, one after the other."""
        for bodies, due_at in work:
            delay_s = time.monotonic() - started_at - due_at
            if delay_s < 0:
                await asyncio.sleep(-delay_s)
            elif due_at > 0:
                self.submitted.max_delay_s = max(self.submitted.max_delay_s, delay_s)
            await self._submit(bodies)
            self.progress.advance(len(bodies))

    async def _submit(self, bodies: list[Body]) -> None:
        path, body = (
            ("/v1/notifications", bodies[0])
            if len(bodies) == 1
            else ("/v1/notifications/batch", {"notifications": bodies})
        )
        started_at = time.perf_counter()
        try:
            async with self.session.post(
                self.url + path,
                data=msgspec.json.encode(body),
                headers={"Content-Type": "application/json"},
            ) as response:
                self._record(response.status, await response.read(), len(bodies))
        except aiohttp.ClientConnectorError as error:
            if not self.submitted.responses:
                raise CommandFailed(describe_connection_error(self.url, error)) from error
            self.submitted.responses[_NO_RESPONSE] += len(bodies)
        except (aiohttp.ClientError, TimeoutError):
            self.submitted.responses[_NO_RESPONSE] += len(bodies)
        self.submitted.latencies.append(time.perf_counter() - started_at)

    def _record(self, status: int, body: bytes, count: int) -> None:
        results = _results(status, body, is_batch=count > 1)
        for result in results:
            if isinstance(result, Accepted):
                self.submitted.queue_of[str(result.id)] = result.queue
                self.submitted.responses[ACCEPTED] += 1
            else:
                self.submitted.responses[str(result.problem.status)] += 1
        if not results:
            self.submitted.responses[str(status)] += count


def _results(status: int, body: bytes, *, is_batch: bool) -> list[Accepted | BatchRefusal]:
    """Return the result of each notification; empty if the API refused the whole call."""
    try:
        if is_batch:
            results = msgspec.json.decode(body, type=BatchResponse).results
            return [_result(result) for result in results]
        return [msgspec.json.decode(body, type=Accepted)] if str(status) == ACCEPTED else []
    except msgspec.MsgspecError:
        return []


def _result(result: object) -> Accepted | BatchRefusal:
    if isinstance(result, dict) and "problem" in result:
        return msgspec.convert(result, BatchRefusal)
    return msgspec.convert(result, Accepted)


def _chunks(bodies: Iterable[Body], size: int) -> Iterator[list[Body]]:
    source = iter(bodies)
    while chunk := list(islice(source, size)):
        yield chunk
