"""Every call of the client against the API itself, over a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from notifier.api.http.server import open_server
from notifier.domain.errors import StoreUnavailable
from notifier_client import (
    Accepted,
    InvalidRequest,
    NotFound,
    NotifierError,
    Unavailable,
    WrongStatus,
)
from tests.client_styles import STYLES, called
from tests.unit.fakes_api import MemoryStore, make_api

pytestmark = pytest.mark.parametrize("style", STYLES)
UNKNOWN = "01a22375-b455-7605-a5d8-2a5c96469f96"


def send(notifier: Any) -> Any:
    return notifier.send("email", "ada@example.com", subject="Hi", body="You")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def url(store: MemoryStore) -> AsyncIterator[str]:
    async with open_server(make_api(store), host="127.0.0.1", port=0, grace_s=5) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_notification_is_sent_read_explained_and_cancelled(style: str, url: str) -> None:
    (sent,) = await called(
        style,
        url,
        lambda notifier: notifier.send(
            "email",
            "Ada <ada@example.com>",
            priority="high",
            subject="Grüße",
            body="Hello",
            reply_to=["a@example.com"],
            metadata={"order": 17},
            tag="spring",
            ttl_s=60,
        ),
    )
    assert (sent.status, sent.queue, sent.is_replay) == ("queued", "email.high", False)

    read, explained, cancelled = await called(
        style,
        url,
        lambda notifier: notifier.get(sent.id, include=["content"]),
        lambda notifier: notifier.explain(sent.id),
        lambda notifier: notifier.cancel(sent.id, note="wrong price"),
    )
    assert (read.recipient, read.tag, read.metadata) == ("ada@example.com", "spring", {"order": 17})
    assert read.content["subject"] == "Grüße"
    assert [blocker.kind for blocker in explained.blockers] == ["pause"]
    assert (explained.ahead.count, explained.expected.latest_at is not None) == (4210, True)
    assert (cancelled.status, cancelled.is_final) == ("cancelled", True)


async def test_what_failed_is_sent_again(style: str, url: str, store: MemoryStore) -> None:
    (sent,) = await called(style, url, send)
    (id_,) = store.views
    store.fail(id_)
    failed, again = await called(
        style,
        url,
        lambda notifier: notifier.wait(sent.id, 5),
        lambda notifier: notifier.retry(sent.id),
    )
    assert (failed.status, failed.result.reason, failed.result.code) == ("failed", "refused", "550")
    assert [attempt.outcome for attempt in failed.attempts] == ["refused"]
    assert again.status == "queued"
    with pytest.raises(WrongStatus) as caught:
        await called(style, url, lambda notifier: notifier.retry(sent.id))
    assert caught.value.current_status == "queued"


async def test_a_wait_ends_after_its_time(style: str, url: str) -> None:
    (sent,) = await called(style, url, send)
    with pytest.raises(TimeoutError, match="queued"):
        await called(style, url, lambda notifier: notifier.wait(sent.id, 0.3))


async def test_many_are_sent_and_found_over_pages(style: str, url: str) -> None:
    orders = [
        {"channel": "email", "recipient": f"{n}@example.com", "subject": "Hi"} for n in range(450)
    ]
    orders[3] = {"channel": "email", "recipient": "nobody", "subject": "Hi"}
    results, found, failed = await called(
        style,
        url,
        lambda notifier: notifier.send_many(orders, batch_size=200),
        lambda notifier: notifier.find(channel="email", priority=["medium", "low"]),
        lambda notifier: notifier.find(status="failed"),
    )
    ids = [result.id for result in results if isinstance(result, Accepted)]
    assert [item.id for item in found] == sorted(ids, reverse=True)
    assert (len(found), failed) == (449, [])
    assert isinstance(results[3], InvalidRequest)
    assert [error.field for error in results[3].errors] == ["recipient"]


async def test_a_file_is_uploaded_once_for_a_batch(
    style: str, url: str, store: MemoryStore
) -> None:
    first, again = await called(
        style,
        url,
        lambda notifier: notifier.upload(b"%PDF-1.7", "application/pdf"),
        lambda notifier: notifier.upload(b"%PDF-1.7", "application/pdf", tenant="default"),
    )
    assert (first.size_bytes, first.content_type) == (8, "application/pdf")
    assert first.id == again.id
    assert len(store.blobs) == 1
    file = {"filename": "menu.pdf", "content_type": "application/pdf", "blob": first.id}
    order = {"channel": "email", "recipient": "ada@example.com", "subject": "Hi"}
    (results,) = await called(
        style, url, lambda notifier: notifier.send_many([{**order, "attachments": [file]}])
    )
    assert [type(result) for result in results] == [Accepted]


async def test_a_batch_of_which_nothing_is_accepted_has_results(style: str, url: str) -> None:
    wrong = [{"channel": "email", "recipient": "x"}, {"channel": "fax", "recipient": "y"}]
    (results,) = await called(style, url, lambda notifier: notifier.send_many(wrong))
    assert [type(result) for result in results] == [InvalidRequest] * 2


async def test_errors_name_the_field_the_request_and_the_key(style: str, url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await called(style, url, lambda notifier: notifier.send("email", "x", subject="Hi"))
    assert [error.field for error in caught.value.errors] == ["recipient"]
    assert caught.value.request_id
    assert caught.value.idempotency_key
    with pytest.raises(NotFound):
        await called(style, url, lambda notifier: notifier.get(UNKNOWN))
    with pytest.raises(InvalidRequest):
        await called(style, url, lambda notifier: notifier.find(status=[]))


async def test_a_store_that_stays_away_is_reported_at_the_deadline(
    style: str, url: str, store: MemoryStore
) -> None:
    store.error = StoreUnavailable("away")
    with pytest.raises(Unavailable) as caught:
        await called(style, url, send, deadline_s=0.5)
    assert caught.value.type == "store-unavailable"
    with pytest.raises(NotifierError):
        await called(style, url, lambda notifier: notifier.retry(UNKNOWN))
