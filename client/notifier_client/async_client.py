"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from typing import TYPE_CHECKING, TypeVar

import httpx

from notifier_client.calls import BatchResult, Calls
from notifier_client.documents import Accepted, Blob, Explanation, Notification
from notifier_client.exchange import Answer, Exchange, NoAnswer, Reply, Steps
from notifier_client.filters import Filters, query_of
from notifier_client.http import (
    answer_of,
    client_arguments,
    no_answer,
    request_arguments,
    too_late,
)
from notifier_client.retrying import Policy
from notifier_client.submits import MAX_BATCH, Submit, SubmitFields

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")


class AsyncNotifier:
    """As Notifier, for asyncio: the same calls, each a coroutine. Tasks of a loop may share it."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        deadline_s: float = 30.0,
        timeout_s: float = 10.0,
    ) -> None:
        self._http = httpx.AsyncClient(**client_arguments(url, key))
        self._calls = Calls(Policy(deadline_s=deadline_s, timeout_s=timeout_s))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, channel: str, recipient: str, **fields: Unpack[SubmitFields]) -> Accepted:
        """As Notifier.send. After a cancellation it is not known whether it was stored."""
        submit = {"channel": channel, "recipient": recipient, **fields}
        return await self._run(self._calls.send(submit))

    async def send_many(
        self,
        notifications: Iterable[Submit],
        *,
        idempotency_key: str | None = None,
        batch_size: int = MAX_BATCH,
    ) -> list[BatchResult]:
        """As Notifier.send_many."""
        return await self._run(self._calls.send_many(notifications, idempotency_key, batch_size))

    async def upload(self, data: bytes, content_type: str, *, tenant: str | None = None) -> Blob:
        """As Notifier.upload."""
        return await self._run(self._calls.upload(data, content_type, tenant))

    async def get(self, id: str, *, include: Collection[str] = ()) -> Notification:  # noqa: A002 the field's name
        """As Notifier.get."""
        return await self._run(self._calls.get(id, include))

    def find(self, **filters: Unpack[Filters]) -> AsyncIterator[Notification]:
        """As Notifier.find, for `async for`."""
        return self._pages(query_of(filters))

    async def cancel(self, id: str, *, note: str | None = None) -> Notification:  # noqa: A002 the field's name
        """As Notifier.cancel."""
        return await self._run(self._calls.cancel(id, note))

    async def retry(self, id: str, *, note: str | None = None) -> Notification:  # noqa: A002 the field's name
        """As Notifier.retry."""
        return await self._run(self._calls.retry(id, note))

    async def explain(self, id: str) -> Explanation:  # noqa: A002 the field's name
        """As Notifier.explain."""
        return await self._run(self._calls.explain(id))

    async def wait(self, id: str, timeout_s: float = 60.0) -> Notification:  # noqa: A002 the field's name
        """As Notifier.wait."""
        return await self._run(self._calls.wait(id, timeout_s))

    async def _pages(self, query: dict[str, str]) -> AsyncIterator[Notification]:
        next_query: dict[str, str] | None = query
        while next_query is not None:
            page, next_query = await self._run(self._calls.page(next_query))
            for notification in page.items:
                yield notification

    async def _run(self, steps: Steps[T]) -> T:
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(step, Exchange):
                reply = await self._exchange(step)
            else:
                await asyncio.sleep(step.seconds)
                reply = None

    async def _exchange(self, exchange: Exchange) -> Answer | NoAnswer:
        requesting = asyncio.create_task(self._request(exchange))  # noqa: TID251 Python 3.10 has no TaskGroup
        try:
            await asyncio.wait({requesting}, timeout=exchange.timeout_s)
        finally:
            if not requesting.done():
                requesting.cancel()
                await asyncio.wait({requesting})
        if requesting.cancelled():
            return too_late(exchange, self._http.base_url)
        return requesting.result()

    async def _request(self, exchange: Exchange) -> Answer | NoAnswer:
        try:
            response = await self._http.request(**request_arguments(exchange))
        except httpx.RequestError as error:
            return no_answer(error, exchange, self._http.base_url)
        return answer_of(response, response.content)
