"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import httpx

from notifier_client.calls import BatchResult, Calls
from notifier_client.documents import Accepted, Blob, Explanation, Notification
from notifier_client.exchange import Answer, Exchange, NoAnswer, Steps, perform
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


class Notifier:
    """Calls Notifier's API over kept connections. Threads may share it.

    Without `url` and `key` it takes those of NOTIFIER_CLIENT__URL and NOTIFIER_CLIENT__KEY (or
    NOTIFIER_CLIENT__KEY_FILE). A call, with its retries, takes at most about `deadline_s`, each
    attempt at most `timeout_s`. Every call raises NotifierError.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        deadline_s: float = 30.0,
        timeout_s: float = 10.0,
    ) -> None:
        self._http = httpx.Client(**client_arguments(url, key))
        self._calls = Calls(Policy(deadline_s=deadline_s, timeout_s=timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, channel: str, recipient: str, **fields: Unpack[SubmitFields]) -> Accepted:
        """Submit one notification; once this returns it is stored.

        Without `idempotency_key` it gets a random one. All retries have the same, so that it is
        sent once.
        """
        return self._run(self._calls.send({"channel": channel, "recipient": recipient, **fields}))

    def send_many(
        self,
        notifications: Iterable[Submit],
        *,
        idempotency_key: str | None = None,
        batch_size: int = MAX_BATCH,
    ) -> list[BatchResult]:
        """Submit many in batches, and return a result for each, in order.

        A notification that is refused has a NotifierError as its result. An error that ends the
        call is raised with the `results` before it; a repeat with its `idempotency_key` and the
        same notifications sends nothing twice.
        """
        return self._run(self._calls.send_many(notifications, idempotency_key, batch_size))

    def upload(self, data: bytes, content_type: str, *, tenant: str | None = None) -> Blob:
        """Upload a file for attachments (`blob`), or a whole mail as message/rfc822 (`mime`)."""
        return self._run(self._calls.upload(data, content_type, tenant))

    def get(self, id: str, *, include: Collection[str] = ()) -> Notification:  # noqa: A002 the field's name
        """Return one notification with its attempts; `include` may name content and receipts."""
        return self._run(self._calls.get(id, include))

    def find(self, **filters: Unpack[Filters]) -> Iterator[Notification]:
        """Iterate over notifications without attempts, newest first; reads page by page."""
        return self._pages(query_of(filters))

    def cancel(self, id: str, *, note: str | None = None) -> Notification:  # noqa: A002 the field's name
        """Cancel a notification that waits. Raises WrongStatus for any other."""
        return self._run(self._calls.cancel(id, note))

    def retry(self, id: str, *, note: str | None = None) -> Notification:  # noqa: A002 the field's name
        """Send a notification again that failed, expired, was cancelled or suppressed.

        Raises WrongStatus for any other. It is not repeated after a lost connection.
        """
        return self._run(self._calls.retry(id, note))

    def explain(self, id: str) -> Explanation:  # noqa: A002 the field's name
        """Return why a notification waits, and when it is expected to be sent."""
        return self._run(self._calls.explain(id))

    def wait(self, id: str, timeout_s: float = 60.0) -> Notification:  # noqa: A002 the field's name
        """Return the notification once its status is final. Raises TimeoutError after the time."""
        return self._run(self._calls.wait(id, timeout_s))

    def _pages(self, query: dict[str, str]) -> Iterator[Notification]:
        next_query: dict[str, str] | None = query
        while next_query is not None:
            page, next_query = self._run(self._calls.page(next_query))
            yield from page.items

    def _run(self, steps: Steps[T]) -> T:
        return perform(steps, self._exchange, time.sleep)

    def _exchange(self, exchange: Exchange) -> Answer | NoAnswer:
        ends_at = time.monotonic() + exchange.timeout_s
        body = bytearray()
        try:
            with self._http.stream(**request_arguments(exchange)) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() > ends_at:
                        return too_late(exchange, self._http.base_url)
        except httpx.RequestError as error:
            return no_answer(error, exchange, self._http.base_url)
        return answer_of(response, bytes(body))
