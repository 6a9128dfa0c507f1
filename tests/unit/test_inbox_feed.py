"""What streams of inboxes are given: everything after their start, and no more than they take."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from notifier.api.http.stream_slots import StreamSlots
from notifier.api.inbox import feed as feed_module
from notifier.api.inbox.feed import InboxFeed
from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.inbox import Inbox
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.ports.inbox import Entry, InboxChange, InboxChanges, InboxCursor
from tests.builders import new_id

if TYPE_CHECKING:
    from collections.abc import Sequence

ADA: Final = Inbox(DEFAULT_TENANT, Mode.LIVE, "ada")
BOB: Final = ADA._replace(user="bob")
AT: Final = datetime(2026, 12, 1, tzinfo=UTC)


class Reader:
    """Implements InboxReader: each read returns what was put, and waits while it is held."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Inbox]] = []
        self.found: dict[Inbox, Sequence[InboxChange]] = {}
        self.cut: set[Inbox] = set()
        self.error: StoreUnavailable | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def now(self) -> InboxCursor:
        return InboxCursor("", "")

    async def changes(self, cursor: InboxCursor, inboxes: Sequence[Inbox]) -> InboxChanges:
        self.asked.append(inboxes)
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        found, self.found = self.found, {}
        return InboxChanges(cursor, found, dict.fromkeys(found, 1), self.cut)


def added(body: str = "b") -> InboxChange:
    return InboxChange(Entry(new_id(), None, body, None, AT, None, AT), is_new=True)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def feed(reader: Reader) -> InboxFeed:
    return InboxFeed(reader=reader, slots=StreamSlots())


async def test_who_subscribes_during_a_read_starts_after_it(
    feed: InboxFeed, reader: Reader
) -> None:
    with feed.subscribed(ADA, "ada", 1) as first:
        await feed.run_once()
        assert first.started.is_set()
        reader.may_end.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(feed.run_once())
            await asyncio.sleep(0)
            with feed.subscribed(BOB, "bob", 1) as second:
                assert reader.asked[-1] == [ADA]
                assert not second.started.is_set()
                reader.may_end.set()
                await second.started.wait()
                await feed.run_once()
                assert reader.asked[-1] == [ADA, BOB]
    with feed.subscribed(ADA, "ada", 1) as third:
        assert third.started.is_set()


async def test_who_subscribes_during_a_read_that_fails_starts_at_the_next_one(
    feed: InboxFeed, reader: Reader
) -> None:
    with feed.subscribed(ADA, "ada", 1):
        await feed.run_once()
        reader.error = StoreUnavailable("away")
        reader.may_end.clear()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(feed.run_once())
            await asyncio.sleep(0)
            with feed.subscribed(BOB, "bob", 1) as second:
                reader.may_end.set()
                await reading
                assert not second.started.is_set()
                reader.error = None
                await feed.run_once()
                assert second.started.is_set()


async def test_streams_of_which_changes_are_missing_end_and_others_go_on(
    feed: InboxFeed, reader: Reader
) -> None:
    with feed.subscribed(ADA, "ada", 1) as cut, feed.subscribed(BOB, "bob", 1) as other:
        reader.found, reader.cut = {ADA: [added()], BOB: [added()]}, {ADA}
        await feed.run_once()
        assert (cut.closed.is_set(), other.closed.is_set()) == (True, False)
        assert (await cut.take(0), len(await other.take(0))) == ([], 1)


@pytest.mark.parametrize(("limit", "most"), [("MAX_QUEUED", 3), ("MAX_QUEUED_BYTES", 800)])
async def test_a_stream_that_does_not_take_is_closed(
    feed: InboxFeed, reader: Reader, limit: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, limit, most)
    with feed.subscribed(ADA, "ada", 1) as subscription:
        for _ in range(10):  # as long as it takes them, it goes on
            reader.found = {ADA: [added()]}
            await feed.run_once()
            assert len(await subscription.take(0)) == 1
        for _ in range(4):
            reader.found = {ADA: [added()]}
            await feed.run_once()
        assert subscription.closed.is_set()


async def test_an_entry_that_is_larger_than_the_bound_is_given_alone(
    feed: InboxFeed, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_QUEUED_BYTES", 100)
    with feed.subscribed(ADA, "ada", 1) as subscription:
        reader.found = {ADA: [added("b" * 1000)]}
        await feed.run_once()
        assert not subscription.closed.is_set()
        assert len(await subscription.take(0)) == 1
