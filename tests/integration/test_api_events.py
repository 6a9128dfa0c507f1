"""`/v1/events` and `/v1/logs` over HTTP, on a real Postgres."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import aiohttp
import pytest
from msgspec.structs import replace

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.events import PostgresEvents, open_events
from notifier.adapters.postgres.key_rates import open_key_rates
from notifier.adapters.postgres.keys import PostgresKeys, open_keys
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.api.auth.gate import KeyAuth
from notifier.api.auth.keyring import Keyring
from notifier.api.auth.rates import KeyRates
from notifier.api.auth.sessions import Sessions
from notifier.api.events import feed as feed_module
from notifier.api.events import stream
from notifier.api.events.feed import EventFeed
from notifier.api.routes.events import EventSources
from notifier.domain.credentials import ENTROPY_BYTES, Credential, Mode, new_credential
from notifier.domain.event_cursor import EventCursor, decode_cursor, encode_cursor
from notifier.domain.keys import Key, KeyScope, NewKey
from notifier.domain.notification import Status
from notifier.domain.tenants import TenantId
from notifier.lifecycle import background_task
from notifier.ports.events import CursorGone, EventPage
from notifier.ports.keys import Author
from tests.builders import a_notification, a_result, worker_id
from tests.integration.test_events import write_late
from tests.live_rows import claimed
from tests.unit.fakes_api import MemoryStore, make_api, open_client

ADA: Final = Author(actor="cli:ada@desk")
EVENTS: Final = "/v1/events"
LOGS: Final = "/v1/logs"
SHOP, BANK = TenantId("shop"), TenantId("bank")
STREAM: Final = {"Accept": "text/event-stream"}
LINES: Final = {"Accept": "text/plain"}

Document = dict[str, Any]


class Counted:
    """Implements ports.observer.EventObserver."""

    def __init__(self) -> None:
        self.read = self.cut = self.streams = 0

    def events_read(self, count: int, lag_s: float) -> None:
        assert lag_s >= 0
        self.read += count

    def event_streams_open(self, count: int) -> None:
        self.streams = count

    def event_stream_cut(self) -> None:
        self.cut += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    client: aiohttp.ClientSession
    store: PostgresStore
    observer: Counted
    stop: asyncio.Event

    async def send(self, *tags: str, **changes: Any) -> list[str]:
        """Store notifications and record them as sent, one transaction each; return their ids."""
        ids = []
        for tag in tags or ("a",):
            [row] = await claimed(self.store, replace(a_notification(tag=tag), **changes))
            await self.store.record([a_result(row)])
            ids.append(str(row.id))
        return ids

    async def get(self, path: str, **more: Any) -> tuple[int, Document]:
        async with self.client.get(path, **more) as response:
            return response.status, await response.json()

    @asynccontextmanager
    async def stream(
        self, query: str = "", **headers: str
    ) -> AsyncIterator[AsyncIterator[tuple[str, Document]]]:
        """A stream; yields pairs of id and document."""
        async with self.client.get(
            EVENTS + query, headers={**STREAM, **headers}, timeout=aiohttp.ClientTimeout(total=60)
        ) as response:
            assert response.status == 200, await response.text()
            assert response.headers["Content-Type"] == "text/event-stream"
            assert (await response.content.readuntil(b"\n\n")).startswith(b":")
            yield frames(response)


async def frames(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Document]]:
    while frame := await response.content.readuntil(b"\n\n"):
        if frame.startswith(b":"):
            continue
        fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
        document = json.loads(fields["data"])
        assert document["type"] == fields["event"]
        yield fields["id"], document


def ids_in(documents: list[Document]) -> list[str]:
    return [document["data"]["notification"]["id"] for document in documents]


async def take(frames: AsyncIterator[tuple[str, Document]], count: int) -> list[Document]:
    return [(await anext(frames))[1] for _ in range(count)]


@asynccontextmanager
async def open_api(url: str, **options: Any) -> AsyncIterator[Api]:
    settings, observer, stop = ConnectionSettings(url=url), Counted(), asyncio.Event()
    async with (
        open_store(settings, worker_id()) as store,
        open_events(settings) as reader,
        open_events(settings) as shared,
        asyncio.TaskGroup() as group,
    ):
        feed = EventFeed(reader=shared, observer=observer)
        group.create_task(feed.run(stop), name="feed")
        app = make_api(MemoryStore(), events=EventSources(reader, feed), **options)
        try:
            async with open_client(app) as client:
                yield Api(client=client, store=store, observer=observer, stop=stop)
                stop.set()
        finally:
            stop.set()


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    async with open_api(database_url) as api:
        yield api


async def test_events_are_read_page_by_page_to_the_end_and_on(api: Api) -> None:
    sent = await api.send("a", "b", "a", "b", "a")
    found: list[Document] = []
    query = "?limit=2"
    for _ in range(4):
        status, page = await api.get(EVENTS + query)
        assert status == 200
        found += page["items"]
        query = f"?limit=2&cursor={page['next_cursor']}"
    assert ids_in(found) == sent
    assert (await api.get(EVENTS + query))[1]["items"] == []
    [later] = await api.send("a")
    _, page = await api.get(EVENTS + query)
    assert ids_in(page["items"]) == [later]


async def test_an_event_is_shown_as_the_contract_has_it(api: Api) -> None:
    [row] = await claimed(api.store, replace(a_notification(tag="login"), metadata=b'{"n":"1"}'))
    result = a_result(row, Status.FAILED, outcome="refused", reason="refused", code="21211")
    await api.store.record([result])
    _, page = await api.get(EVENTS)
    [event] = page["items"]
    assert (event["type"], event["tenant"]) == ("notification.failed", "default")
    shown = event["data"]["notification"]
    at = shown["result"].pop("at")
    assert datetime.fromisoformat(at).tzinfo is not None
    assert shown == {
        "id": str(row.id),
        "mode": "live",
        "status": "failed",
        "channel": "email",
        "priority": "high",
        "recipient": "ok@example.com",
        "tag": "login",
        "topic": None,
        "tries": 1,
        "reference": None,
        "metadata": {"n": "1"},
        "result": {"reason": "refused", "provider": "smtp", "code": "21211", "detail": None},
    }


async def test_events_and_logs_are_shown_as_lines(api: Api) -> None:
    first, second, third = await api.send("a", "b", "a")
    async with api.client.get(f"{EVENTS}?limit=2", headers=LINES) as response:
        lines = (await response.text()).splitlines()
        cursor = response.headers["Next-Cursor"]
    assert [line.split()[1:4] for line in lines] == [
        ["email.high", id_, "sent"] for id_ in (first, second)
    ]
    async with api.client.get(f"{EVENTS}?cursor={cursor}", headers=LINES) as response:
        assert third in await response.text()
    async with api.client.get(f"{LOGS}?limit=1&tag=a") as response:
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        [line] = (await response.text()).splitlines()
    assert line.split()[2:] == [third, "sent", "smtp", "250"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("tag=a", [0, 2]),
        ("tag=a,b", [0, 1, 2]),
        ("type=notification.sent", [0, 1, 2]),
        ("type=notification.*,pause.created", [0, 1, 2]),
        ("type=notification.failed", []),
        ("channel=sms", []),
        ("channel=email&priority=high", [0, 1, 2]),
        ("priority=low", []),
        ("tenant=shop", []),
        ("mode=test", []),
    ],
)
async def test_filters_select_events(api: Api, query: str, expected: list[int]) -> None:
    sent = await api.send("a", "b", "a")
    _, page = await api.get(f"{EVENTS}?{query}")
    assert ids_in(page["items"]) == [sent[number] for number in expected]
    _, page = await api.get(f"{EVENTS}?notification={sent[1]}&{query}")
    assert ids_in(page["items"]) == [sent[1]] * (1 in expected)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cursor=abc", "?cursor"),
        ("cursor=" + "A" * 3000, "?cursor"),
        ("type=notification.accepted", "?type"),
        ("notification=5", "?notification"),
        ("limit=0", "?limit"),
        ("from=yesterday", "?from"),
        ("status=sent", "?status"),
    ],
)
async def test_a_wrong_parameter_is_named(api: Api, query: str, field: str) -> None:
    status, problem = await api.get(f"{EVENTS}?{query}")
    assert (status, problem["errors"][0]["field"]) == (400, field)
    status, problem = await api.get(EVENTS, headers={**STREAM, "Last-Event-ID": "x"})
    assert (status, problem["errors"][0]["field"]) == (400, "Last-Event-ID")


async def test_a_stream_gets_what_happens_and_resumes_at_the_last_id(api: Api) -> None:
    [before] = await api.send()
    async with api.stream() as frames:
        sent = await api.send("a", "b", "c")
        received = [await anext(frames) for _ in range(3)]
        assert ids_in([document for _, document in received]) == sent
    later = await api.send("d", "e")
    last_id = received[0][0]
    async with api.stream(**{"Last-Event-ID": last_id}) as frames:
        assert ids_in(await take(frames, 4)) == [*sent[1:], *later]
        [newest] = await api.send("f")
        assert ids_in(await take(frames, 1)) == [newest]
    async with api.stream("?from=2020-01-01T00:00:00Z&tag=a") as frames:
        assert ids_in(await take(frames, 2)) == [before, sent[0]]
    assert api.observer.read >= 3


async def test_a_stream_that_resumes_while_events_are_written_misses_and_repeats_none(
    api: Api,
) -> None:
    received: list[str] = []
    sent: list[str] = []

    async def write() -> None:
        for _ in range(30):
            sent.extend(await api.send())

    async def read() -> None:
        last: dict[str, str] = {}
        query = "?from=2020-01-01T00:00:00Z"
        while len(received) < 30:
            async with api.stream(query, **last) as frames:
                for _ in range(min(7, 30 - len(received))):
                    id_, document = await anext(frames)
                    received.extend(ids_in([document]))
                    last = {"Last-Event-ID": id_}

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(read())
    assert received == sent


@pytest.fixture
def catch_ups(monkeypatch: pytest.MonkeyPatch) -> list[EventCursor]:
    """The cursors after which streams had Postgres read what they had missed."""
    asked: list[EventCursor] = []
    read = PostgresEvents.read

    async def noted(
        self: PostgresEvents, cursor: EventCursor, *arguments: Any, until: EventCursor | None = None
    ) -> EventPage | CursorGone:
        if until is not None:
            asked.append(cursor)
        return await read(self, cursor, *arguments, until=until)

    monkeypatch.setattr(PostgresEvents, "read", noted)
    return asked


async def test_a_stream_that_resumes_soon_reads_nothing_again(
    api: Api, catch_ups: list[EventCursor]
) -> None:
    async with api.stream() as others:
        async with api.stream("?tag=a") as frames:
            sent = await api.send("a", "b", "a")
            assert ids_in(await take(others, 3)) == sent
            last_id, _ = await anext(frames)
        later = await api.send("b", "a")
        assert ids_in(await take(others, 2)) == later
        async with api.stream("?tag=a", **{"Last-Event-ID": last_id}) as frames:
            assert ids_in(await take(frames, 2)) == [sent[2], later[1]]
            [newest] = await api.send("a")
            assert ids_in(await take(frames, 1)) == [newest]
    assert catch_ups == []


async def test_a_stream_that_resumes_later_has_what_it_missed_read(
    api: Api, monkeypatch: pytest.MonkeyPatch, catch_ups: list[EventCursor]
) -> None:
    monkeypatch.setattr(feed_module, "RECENT_S", 0.0)
    async with api.stream() as others:
        sent = await api.send("a", "a")
        last_id, _ = await anext(others)
        assert ids_in(await take(others, 1)) == sent[1:]
        sent += await api.send("a")
        assert ids_in(await take(others, 1)) == sent[2:]
        async with api.stream(**{"Last-Event-ID": last_id}) as frames:
            assert ids_in(await take(frames, 2)) == sent[1:]
    assert encode_cursor(catch_ups[0]) == last_id


@pytest.mark.parametrize(
    ("recent_bytes", "max_read"),
    [
        (0, feed_module.MAX_READ),
        (feed_module.MAX_RECENT_BYTES, feed_module.MAX_READ),
        (feed_module.MAX_RECENT_BYTES, 3),
    ],
)
async def test_streams_that_are_cut_while_transactions_end_late_miss_and_repeat_none(
    api: Api,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    recent_bytes: int,
    max_read: int,
) -> None:
    monkeypatch.setattr(feed_module, "MAX_RECENT_BYTES", recent_bytes)
    monkeypatch.setattr(feed_module, "MAX_READ", max_read)
    written: list[UUID] = []
    received: list[list[str]] = [[], [], []]
    is_over = asyncio.Event()

    async def read(number: int) -> None:
        chance, last = random.Random(number), dict[str, str]()
        query = "?from=2020-01-01T00:00:00Z"
        while not (is_over.is_set() and len(received[number]) >= len(written)):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0), api.stream(query, **last) as frames:
                    for _ in range(chance.choice((1, 2, 5, 30))):
                        id_, document = await anext(frames)
                        received[number].extend(ids_in([document]))
                        last = {"Last-Event-ID": id_}

    async with asyncio.TaskGroup() as group:
        for number in range(len(received)):
            group.create_task(read(number))
        async with asyncio.TaskGroup() as writers:
            for seed in range(4):
                writers.create_task(write_late(database_url, seed, written))
        is_over.set()
    expected = Counter(map(str, written))
    assert [Counter(each) for each in received] == [expected] * len(received)


async def test_line_breaks_in_metadata_do_not_end_a_frame(api: Api) -> None:
    metadata = b'{"a":\n\n"data: 1",\r\n"event"\n:2}'
    async with api.stream() as frames:
        await api.send(metadata=metadata)
        [document] = await take(frames, 1)
    assert document["data"]["notification"]["metadata"] == {"a": "data: 1", "event": 2}


async def test_streams_share_what_is_read_and_end_at_the_stop(api: Api) -> None:
    async with api.stream("?tag=a") as some, api.stream() as all_:
        assert api.observer.streams == 2
        sent = await api.send("a", "b")
        assert ids_in(await take(all_, 2)) == sent
        assert ids_in(await take(some, 1)) == sent[:1]
        assert api.observer.read == 2
        api.stop.set()
        for frames in (some, all_):
            with pytest.raises((StopAsyncIteration, asyncio.IncompleteReadError)):
                await anext(frames)
    status, problem = await api.get(EVENTS, headers=STREAM)
    assert (status, problem["type"].rpartition(":")[2]) == (503, "overloaded")


async def test_a_slow_stream_is_cut_and_resumes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_QUEUED", 3)
    start = (await api.get(EVENTS))[1]["next_cursor"]
    rows = await claimed(api.store, *(a_notification() for _ in range(5)))
    async with api.stream() as frames:
        await api.store.record([a_result(row) for row in rows])
        with pytest.raises((StopAsyncIteration, asyncio.IncompleteReadError)):
            await anext(frames)
    assert api.observer.cut == 1
    async with api.stream(**{"Last-Event-ID": start}) as frames:
        assert sorted(ids_in(await take(frames, 5))) == sorted(str(row.id) for row in rows)


async def test_too_many_streams_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_STREAMS_OF_KEY", 1)
    async with api.stream():
        status, problem = await api.get(EVENTS, headers=STREAM)
        assert (status, problem["type"].rpartition(":")[2]) == (503, "overloaded")


async def test_a_cursor_of_another_history_is_gone(api: Api) -> None:
    _, page = await api.get(EVENTS)
    cursor = decode_cursor(page["next_cursor"])
    gone = encode_cursor(replace(cursor, epoch=cursor.epoch ^ 1))
    for asked in (
        api.get(f"{EVENTS}?cursor={gone}"),
        api.get(EVENTS, headers={**STREAM, "Last-Event-ID": gone}),
    ):
        status, problem = await asked
        assert (status, problem["type"].rpartition(":")[2]) == (410, "cursor-gone")


async def test_a_silent_stream_has_comments(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "COMMENT_INTERVAL_S", 0.0)
    async with api.client.get(EVENTS, headers=STREAM) as response:
        comments = [await response.content.readuntil(b"\n\n") for _ in range(2)]
    ids = [comment.decode().removeprefix(":\nid: ").strip() for comment in comments]
    sent = await api.send()
    for id_ in ids:
        async with api.stream(**{"Last-Event-ID": id_}) as frames:
            assert ids_in(await take(frames, 1)) == sent


async def test_a_head_request_does_not_stream(api: Api) -> None:
    async with api.client.head(EVENTS, headers=STREAM) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
    assert api.observer.streams == 0


async def test_events_that_are_switched_off_are_not_found() -> None:
    async with open_client(make_api(MemoryStore())) as client:
        for path in (EVENTS, LOGS):
            async with client.get(path) as response:
                assert response.status == 404


@pytest.fixture
async def keyed(database_url: str) -> AsyncIterator[tuple[Api, PostgresKeys, Keyring]]:
    """An API that asks for keys, and what makes and reads them."""
    settings = ConnectionSettings(url=database_url)
    async with open_keys(settings) as keys, open_key_rates(settings) as rates:
        keyring = Keyring(keys)
        auth = KeyAuth(
            keyring=keyring,
            rates=KeyRates(rates, deadline_s=5.0),
            sessions=Sessions(keys, session_s=600.0),
        )
        for tenant in (SHOP, BANK):
            await keys.put_tenant(tenant, note="", author=ADA)
        async with (
            background_task(keyring, "keys"),
            open_api(database_url, access=keys, auth=auth) as api,
        ):
            yield api, keys, keyring


async def key_of(keys: PostgresKeys, tenant: TenantId | None, mode: Mode = Mode.LIVE) -> Credential:
    credential = new_credential(mode, os.urandom(ENTROPY_BYTES))
    new = NewKey(
        tenant=tenant, mode=mode, scopes=(KeyScope.READ,), rate_per_s=None, expires_at=None
    )
    assert isinstance(await keys.create(new, credential, ADA), Key)
    return credential


def bearer(key: Credential) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.text}"}


async def test_a_key_gets_the_events_of_its_tenant_and_mode_alone(
    keyed: tuple[Api, PostgresKeys, Keyring],
) -> None:
    api, keys, _ = keyed
    shop, bank = await key_of(keys, SHOP), await key_of(keys, BANK)
    test, deployment = await key_of(keys, SHOP, Mode.TEST), await key_of(keys, None)
    async with api.stream(**bearer(bank)) as frames:
        [of_shop] = await api.send(tenant=SHOP)
        [of_test] = await api.send(tenant=SHOP, test_channel="email")
        [of_bank] = await api.send(tenant=BANK)
        assert ids_in(await take(frames, 1)) == [of_bank]
    seen = {
        key: ids_in((await api.get(EVENTS, headers=bearer(key)))[1]["items"])
        for key in (shop, bank, test, deployment)
    }
    assert seen == {
        shop: [of_shop],
        bank: [of_bank],
        test: [of_test],
        deployment: [of_shop, of_bank],
    }
    for path in (EVENTS, LOGS):
        _, page = await api.get(f"{EVENTS}?tenant=shop", headers=bearer(deployment))
        assert ids_in(page["items"]) == [of_shop]
        status, problem = await api.get(f"{path}?tenant=shop", headers=bearer(bank))
        assert (status, problem["errors"][0]["field"]) == (400, "?tenant")
        status, problem = await api.get(f"{path}?mode=live", headers=bearer(test))
        assert (status, problem["errors"][0]["field"]) == (400, "?mode")
    _, page = await api.get(f"{EVENTS}?notification={of_shop}", headers=bearer(bank))
    assert page["items"] == []
    async with api.client.get(LOGS, headers=bearer(bank)) as response:
        text = await response.text()
        assert (of_bank in text, of_shop in text, of_test in text) == (True, False, False)


async def test_a_stream_ends_when_its_key_is_revoked(
    keyed: tuple[Api, PostgresKeys, Keyring],
) -> None:
    api, keys, keyring = keyed
    revoked, other = await key_of(keys, SHOP), await key_of(keys, SHOP)
    async with api.stream(**bearer(revoked)) as ended, api.stream(**bearer(other)) as going_on:
        assert await keys.revoke(revoked.id, ADA, tenant=None)
        await keyring.read()
        with pytest.raises((StopAsyncIteration, asyncio.IncompleteReadError)):
            await anext(ended)
        sent = await api.send(tenant=SHOP)
        assert ids_in(await take(going_on, 1)) == sent
