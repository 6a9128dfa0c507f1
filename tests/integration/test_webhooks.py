"""Webhooks on a real Postgres: what is kept, and that each event becomes one call of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from notifier.adapters.postgres import webhooks as webhooks_module
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.events import open_events
from notifier.adapters.postgres.keys import open_keys
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.postgres.webhooks import (
    PostgresWebhooks,
    WebhookConnections,
    open_webhook_calls,
    open_webhooks,
)
from notifier.api.events.encoding import JsonEvents
from notifier.delivery import webhook_fanout
from notifier.delivery.webhook_fanout import HOLD_S, WebhookFanout
from notifier.domain.credentials import Mode
from notifier.domain.notification import Status
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.domain.turns import turn_of
from notifier.domain.webhooks import (
    MAX_WEBHOOKS,
    Webhook,
    WebhookScope,
    WebhookStatus,
    call_id,
    call_of,
)
from notifier.lifecycle import uptime_s
from notifier.ports.keys import AuditFilter, Author
from notifier.ports.queries import Filter, View
from notifier.ports.webhooks import CallSummary, NewWebhook, WebhookChange, WebhookRefusal
from tests.builders import a_notification, a_result, worker_id
from tests.live_rows import claim_new

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from notifier.domain.notification import NewNotification
    from tests.live_rows import Connection

LIVE = WebhookScope(DEFAULT_TENANT, Mode.LIVE)
SHOP = WebhookScope(TenantId("shop"), Mode.LIVE)
ADA = Author(actor="key:ada", request_id="r1")
SECRET = b"s" * 32
URL = "https://shop.example.com/hooks"
ALL = ("notification.*",)


class Observed:
    """Implements ports.observer.WebhookObserver."""

    def __init__(self) -> None:
        self.stored = self.expired = 0
        self.disabled: list[str] = []

    def webhook_calls_stored(self, count: int) -> None:
        self.stored += count

    def webhook_lag(self, seconds: float) -> None:
        assert seconds >= 0

    def webhook_calls_expired(self, count: int) -> None:
        self.expired += count

    def webhook_disabled(self, reason: str) -> None:
        self.disabled.append(reason)


class World:
    """A database with its webhooks, and processes that turn events into calls."""

    def __init__(
        self,
        url: str,
        stack: AsyncExitStack,
        connection: Connection,
        webhooks: PostgresWebhooks,
        store: PostgresStore,
    ) -> None:
        self.url = url
        self.stack = stack
        self.connection = connection
        self.webhooks = webhooks
        self.store = store
        self.observed = Observed()
        self.skew_s = 0.0

    async def create(
        self,
        scope: WebhookScope = LIVE,
        url: str = URL,
        events: Sequence[str] = ALL,
    ) -> Webhook:
        made = await self.webhooks.create(scope, NewWebhook(url=url, events=events), SECRET, ADA)
        assert isinstance(made, Webhook)
        return made

    async def process(self) -> tuple[WebhookFanout, WebhookConnections]:
        """Another process."""
        settings = ConnectionSettings(url=self.url)
        connections = await self.stack.enter_async_context(
            open_webhook_calls(settings, worker_id())
        )
        reader = await self.stack.enter_async_context(open_events(settings))
        fanout = WebhookFanout(
            store=connections.fanout,
            reader=reader,
            encoder=JsonEvents(),
            observer=self.observed,
            clock=self.clock,
            ttl=timedelta(days=1),
            most_waiting=5,
        )
        return fanout, connections

    def clock(self) -> float:
        return uptime_s() + self.skew_s

    async def sent(self, count: int = 1) -> list[NewNotification]:
        """Store notifications and record that they were sent: each has an event."""
        items = [a_notification() for _ in range(count)]
        await self.store.insert(items, direct=())
        for item in items:
            row = await claim_new(self.store, item)
            await self.store.record([a_result(row, Status.SENT)])
        return items

    async def calls(self) -> Counter[str]:
        """How many calls each webhook has."""
        rows = await self.connection.fetch(
            "SELECT recipient FROM notifications WHERE queue = 'webhook.medium'"
        )
        return Counter(row["recipient"] for row in rows)

    async def let_the_lease_end(self) -> None:
        await self.connection.execute("UPDATE webhook_fanout SET held_until = '-infinity'")


@pytest.fixture
async def world(database_url: str, connection: Connection) -> AsyncIterator[World]:
    settings = ConnectionSettings(url=database_url)
    async with AsyncExitStack() as stack:
        webhooks = await stack.enter_async_context(open_webhooks(settings))
        store = await stack.enter_async_context(open_store(settings, worker_id()))
        yield World(database_url, stack, connection, webhooks, store)


async def test_a_webhook_is_kept_changed_and_deleted_and_each_change_is_audited(
    world: World,
) -> None:
    made = await world.create()
    assert (made.status, made.reason, made.events) == (WebhookStatus.ENABLED, None, ALL)
    assert await world.webhooks.webhooks(LIVE) == [made]
    assert await world.webhooks.webhook(SHOP, made.id) is None
    test = WebhookScope(DEFAULT_TENANT, Mode.TEST)
    for scope in (SHOP, test, WebhookScope(None, Mode.LIVE)):
        assert await world.webhooks.change(scope, made.id, WebhookChange(note="x"), ADA) is None
        assert await world.webhooks.rotate(scope, made.id, SECRET, 1.0, ADA) is None
        assert await world.webhooks.delete(scope, made.id, ADA) is False
    off = WebhookChange(status=WebhookStatus.DISABLED, note="away")
    changed = await world.webhooks.change(LIVE, made.id, off, ADA)
    assert changed is not None
    assert (changed.status, changed.reason, changed.note) == ("disabled", "request", "away")
    assert changed.url == URL
    assert await world.webhooks.delete(LIVE, made.id, ADA)
    assert await world.webhooks.webhooks(LIVE) == []
    async with open_keys(ConnectionSettings(url=world.url)) as keys:
        page = await keys.audit(AuditFilter(is_all=True))
    actions = [entry.action for entry in page.entries]
    assert [action.name for action in actions] == [
        "webhook.deleted",
        "webhook.changed",
        "webhook.created",
    ]
    assert "secret" not in msgspec.json.encode(actions).decode()


async def test_a_scope_has_at_most_so_many_webhooks_of_a_tenant_that_exists(world: World) -> None:
    new = NewWebhook(url=URL, events=ALL)
    refused = await world.webhooks.create(SHOP, new, SECRET, ADA)
    assert refused is WebhookRefusal.UNKNOWN_TENANT
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        settings = ConnectionSettings(url=world.url)
        others = [await stack.enter_async_context(open_webhooks(settings)) for _ in range(3)]
        tasks = [
            group.create_task(others[number % 3].create(LIVE, new, SECRET, ADA))
            for number in range(MAX_WEBHOOKS + 3)
        ]
        await asyncio.wait(tasks)
    results = [task.result() for task in tasks]
    assert results.count(WebhookRefusal.TOO_MANY) == 3
    assert len(await world.webhooks.webhooks(LIVE)) == MAX_WEBHOOKS
    assert isinstance(
        await world.webhooks.create(WebhookScope(None, Mode.LIVE), new, SECRET, ADA), Webhook
    )


async def test_both_secrets_sign_until_the_overlap_ends(world: World) -> None:
    made = await world.create()
    _, connections = await world.process()
    await world.webhooks.rotate(LIVE, made.id, b"n" * 32, 3600.0, ADA)
    target = await connections.calls.target(made.id)
    assert target is not None
    assert target.secrets == [b"n" * 32, SECRET]
    await world.webhooks.rotate(LIVE, made.id, b"m" * 32, 60.0, ADA)  # its answer was lost
    target = await connections.calls.target(made.id)
    assert target is not None
    assert target.secrets == [b"m" * 32, b"n" * 32, SECRET]
    await world.connection.execute(
        "UPDATE webhooks SET old_secrets_until[1] = now() - interval '1 s'"
    )
    target = await connections.calls.target(made.id)
    assert target is not None
    assert target.secrets == [b"m" * 32, SECRET]
    await world.webhooks.rotate(LIVE, made.id, SECRET, 0.0, ADA)
    target = await connections.calls.target(made.id)
    assert target is not None
    assert (target.secrets, target.url, target.is_enabled) == ([SECRET], URL, True)
    assert await connections.calls.target(uuid4()) is None


async def test_each_event_becomes_one_call_of_each_webhook_that_wants_it(world: World) -> None:
    await world.sent()
    fanout, _ = await world.process()
    await fanout.run_once()
    assert await world.calls() == {}
    one, two = await world.create(), await world.create()
    await world.create(events=["notification.failed"])
    await world.create(WebhookScope(DEFAULT_TENANT, Mode.TEST))
    await world.create(WebhookScope(None, Mode.LIVE), events=["breaker.opened"])
    await world.webhooks.change(
        LIVE, (await world.create()).id, WebhookChange(status=WebhookStatus.DISABLED), ADA
    )
    (item,) = await world.sent()
    world.skew_s += 3
    await fanout.run_once()
    await fanout.run_once()
    assert await world.calls() == {str(one.id): 1, str(two.id): 1}
    rows = await world.connection.fetch(
        "SELECT content, tenant, test_channel FROM notifications WHERE queue = 'webhook.medium'"
    )
    for row in rows:
        event = msgspec.json.decode(row["content"])["event"]
        assert event["type"] == "notification.sent"
        assert event["data"]["notification"]["id"] == str(item.id)
        assert (row["tenant"], row["test_channel"]) == ("", "")
    assert len(await world.connection.fetch("SELECT FROM live")) == 2
    assert world.observed.stored == 2


async def test_what_is_read_again_after_a_restore_is_stored_once(world: World) -> None:
    made = await world.create()
    await world.sent(3)
    fanout, _ = await world.process()
    await fanout.run_once()
    await world.connection.execute("UPDATE webhook_fanout SET cursor = NULL")
    again, _ = await world.process()
    await world.let_the_lease_end()
    await again.run_once()
    assert await world.calls() == {str(made.id): 3}
    assert world.observed.stored == 3


async def test_many_processes_at_once_store_each_call_once(world: World) -> None:
    made = [await world.create() for _ in range(3)]
    processes = [(await world.process())[0] for _ in range(4)]
    for _ in range(5):
        await world.sent(4)
        world.skew_s += 3
        await world.let_the_lease_end()
        async with asyncio.TaskGroup() as group:
            for each in processes:
                group.create_task(each.run_once())
    for each in processes:  # the one that has the right by now ends what is left
        await each.run_once()
    assert await world.calls() == {str(each.id): 20 for each in made}


@pytest.mark.parametrize("statement", range(1, 6))
async def test_a_process_that_dies_at_any_statement_leaves_all_to_the_next(
    world: World, statement: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_fanout, "MAX_READ", 2)
    made = await world.create()
    await world.sent(3)
    doomed, connections = await world.process()
    connection = connections.fanout._connection
    count = 0

    async with connection.acquire() as raw:
        for name in ("fetch", "fetchrow"):
            real = getattr(raw, name)

            async def dying(sql: str, *args: object, real: Any = real) -> object:
                nonlocal count
                count += 1
                found = await real(sql, *args)
                if count == statement:
                    raw.terminate()
                    raise asyncpg.InterfaceError("killed")
                return found

            monkeypatch.setattr(type(raw), name, _bound(raw, dying, getattr(type(raw), name)))
    await doomed.run_once()
    assert count >= statement
    monkeypatch.undo()
    assert (await world.calls()).total() < 3
    await world.let_the_lease_end()
    survivor, _ = await world.process()
    await survivor.run_once()
    assert await world.calls() == {str(made.id): 3}


def _bound(raw: object, dying: Any, real: Any) -> object:
    async def call(self: object, sql: str, *args: object, **more: object) -> object:
        if self is raw or getattr(self, "_con", None) is raw:
            return await dying(sql, *args)
        return await real(self, sql, *args, **more)

    return call


async def test_another_process_begins_when_the_holder_has_been_silent(world: World) -> None:
    made = await world.create()
    (holder, _), (other, _) = await world.process(), await world.process()
    await holder.run_once()
    await world.sent()
    await other.run_once()
    assert await world.calls() == {}
    left_s = await world.connection.fetchval(
        "SELECT date_part('epoch', held_until - now()) FROM webhook_fanout"
    )
    assert HOLD_S / 2 < left_s <= HOLD_S
    await world.let_the_lease_end()
    world.skew_s += webhook_fanout.TAKE_INTERVAL_S
    await other.run_once()
    assert await world.calls() == {str(made.id): 1}


async def test_another_process_begins_at_once_when_the_holder_stops(world: World) -> None:
    made = await world.create()
    (holder, _), (other, _) = await world.process(), await world.process()
    await holder.run_once()
    await world.sent()
    await holder.release()
    await other.run_once()
    assert await world.calls() == {str(made.id): 1}


async def test_the_oldest_calls_beyond_the_maximum_expire(world: World) -> None:
    one, two = await world.create(), await world.create(events=["notification.failed"])
    fanout, connections = await world.process()
    await world.sent(8)
    await fanout.run_once()
    assert world.observed.expired == 3
    rows = await world.connection.fetch("SELECT id FROM live WHERE expires_at <= now() ORDER BY id")
    oldest = await world.connection.fetch("SELECT id FROM live ORDER BY id LIMIT 3")
    assert [row["id"] for row in rows] == [row["id"] for row in oldest]
    assert await connections.fanout.expire_surplus(5) == 0
    await world.connection.execute("VACUUM ANALYZE live")
    assert await world.store.estimate_backlog() == 0
    assert await world.calls() == {str(one.id): 8}
    assert two.events == ("notification.failed",)


async def test_a_surplus_expires_from_the_oldest_on_in_as_many_statements_as_it_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "MAX_EXPIRED", 2)
    await world.create()
    fanout, connections = await world.process()
    await world.sent(12)
    await fanout.run_once()
    await world.connection.execute("UPDATE live SET expires_at = now() + interval '1 hour'")
    assert await connections.fanout.expire_surplus(5) == 7
    rows = await world.connection.fetch("SELECT expires_at <= now() FROM live ORDER BY id")
    assert [row[0] for row in rows] == [True] * 7 + [False] * 5


async def test_with_many_webhooks_fewer_calls_wait_for_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "MAX_WAITING_IN_ALL", 12)
    made = [await world.create() for _ in range(4)]
    fanout, _ = await world.process()
    await world.sent(5)
    await fanout.run_once()
    rows = await world.connection.fetch(
        "SELECT n.recipient, count(*) FROM live JOIN notifications n USING (id)"
        " WHERE live.expires_at > now() GROUP BY 1"
    )
    assert dict(map(tuple, rows)) == {str(each.id): 3 for each in made}


async def test_calls_of_deleted_webhooks_do_not_count_as_a_backlog(world: World) -> None:
    made = await world.create()
    fanout, _ = await world.process()
    await world.sent(4)
    await fanout.run_once()
    await world.webhooks.delete(LIVE, made.id, ADA)
    for waiting in (4, 0):
        world.skew_s += webhook_fanout.COUNT_INTERVAL_S + HOLD_S
        await fanout.run_once()
        await world.connection.execute("VACUUM ANALYZE live")
        assert await world.connection.fetchval("SELECT waiting FROM webhook_fanout") == waiting
        assert await world.store.estimate_backlog() == 0
        await world.connection.execute("DELETE FROM live")


async def test_calls_that_wait_keep_no_tenant_from_being_deleted(world: World) -> None:
    await world.connection.execute("INSERT INTO tenants (name, note) VALUES ('shop', '')")
    made = await world.create(SHOP)
    fanout, connections = await world.process()
    await fanout.run_once()
    call = call_of(made.id, SHOP, call_id(uuid4(), made.id, made.created_at), b"{}", timedelta(1))
    cursor = await world.connection.fetchval("SELECT cursor FROM webhook_fanout")
    assert await connections.fanout.advance(cursor, "after", [call]) == 1
    async with open_keys(ConnectionSettings(url=world.url)) as keys:
        assert await keys.delete_tenant(TenantId("shop"), ADA) is None
    assert await connections.calls.target(made.id) is None


async def test_the_calls_of_each_tenant_wait_in_its_turn(world: World) -> None:
    await world.connection.execute("INSERT INTO tenants (name, note) VALUES ('shop', '')")
    of_default, of_shop = await world.create(), await world.create(SHOP)
    await world.create(WebhookScope(None, Mode.LIVE), events=["pause.created"])
    fanout, _ = await world.process()
    shop = TenantId("shop")
    items = [a_notification(), a_notification(tenant=shop)]
    await world.store.insert(items, direct=())
    for item in items:
        await world.store.record([a_result(await claim_new(world.store, item), Status.SENT)])
    await fanout.run_once()
    rows = await world.connection.fetch(
        "SELECT n.recipient, turn FROM live JOIN notifications n USING (id)"
    )
    turns = {str(of_default.id): turn_of(DEFAULT_TENANT), str(of_shop.id): turn_of(shop)}
    assert dict(map(tuple, rows)) == turns
    noted = await world.connection.fetch("SELECT turn FROM turns WHERE queue = 'webhook.medium'")
    assert {row["turn"] for row in noted} == set(turns.values())


async def test_a_webhook_that_has_only_failed_for_long_is_disabled_with_an_event(
    world: World,
) -> None:
    made, other = await world.create(), await world.create()
    _, connections = await world.process()

    async def note(**values: float) -> list[str]:
        found = await connections.calls.note_calls(
            {made.id: CallSummary(url=URL, **values)}, disable_after_s=100.0
        )
        return [each.reason for each in found]

    assert await note(failed_s=1.0, failing_s=60.0) == []
    assert await note(failed_s=1.0, failing_s=1.0) == []
    found = await world.webhooks.webhook(LIVE, made.id)
    assert found is not None
    assert found.failing_since is not None
    assert datetime.now(UTC) - found.failing_since > timedelta(seconds=50)
    assert await note(succeeded_s=0.0) == []
    assert await note(failed_s=1.0, failing_s=1.0) == []
    elsewhere = CallSummary(url="https://else.example.com/", failed_s=1.0, failing_s=900.0)
    assert await connections.calls.note_calls({made.id: elsewhere}, 100.0) == []
    assert await note(failed_s=1.0, failing_s=1.0, succeeded_s=500.0) == []
    await world.connection.execute(
        "UPDATE webhooks SET failing_since = now() - interval '101 s' WHERE id = $1", made.id
    )
    seen = "UPDATE webhooks SET last_failure_at = now() - $2::interval WHERE id = $1"
    await world.connection.execute(seen, made.id, timedelta(hours=25))
    assert await note(failed_s=1.0, failing_s=1.0) == [], "it is the first one for a day"
    await world.connection.execute(
        "UPDATE webhooks SET failing_since = now() - interval '101 s' WHERE id = $1", made.id
    )
    await world.connection.execute(seen, made.id, timedelta(hours=23))
    assert await note(failed_s=1.0, failing_s=1.0) == ["failing"]
    assert await note(failed_s=1.0, failing_s=1.0) == []
    found = await world.webhooks.webhook(LIVE, made.id)
    assert found is not None
    assert (found.status, found.reason) == (WebhookStatus.DISABLED, "failing")
    events = await world.connection.fetch("SELECT type, ids, tenant, mode FROM event_batches")
    assert [(row["type"], row["ids"], row["tenant"], row["mode"]) for row in events] == [
        ("webhook.disabled", [made.id], "", "live")
    ]
    on = WebhookChange(status=WebhookStatus.ENABLED)
    enabled = await world.webhooks.change(LIVE, made.id, on, ADA)
    assert enabled is not None
    assert (enabled.status, enabled.reason, enabled.failing_since) == ("enabled", None, None)
    assert (await world.webhooks.webhook(LIVE, other.id)) == other


async def test_a_url_that_is_gone_disables_the_webhook_unless_it_has_another_one(
    world: World,
) -> None:
    made = await world.create()
    _, connections = await world.process()
    assert not await connections.calls.disable_gone(made.id, "https://before.example.com/")
    assert await connections.calls.disable_gone(made.id, URL)
    assert not await connections.calls.disable_gone(made.id, URL)
    found = await world.webhooks.webhook(LIVE, made.id)
    assert found is not None
    assert (found.status, found.reason) == (WebhookStatus.DISABLED, "gone")


async def test_without_any_webhook_what_was_reached_is_forgotten(world: World) -> None:
    made = await world.create()
    fanout, _ = await world.process()
    await world.sent()
    await fanout.run_once()
    assert await world.connection.fetchval("SELECT cursor FROM webhook_fanout") is not None
    await world.webhooks.delete(LIVE, made.id, ADA)
    world.skew_s += HOLD_S
    await fanout.run_once()
    assert await world.connection.fetchval("SELECT cursor FROM webhook_fanout") is None
    await world.sent(2)
    newer = await world.create()
    await world.sent()
    world.skew_s += HOLD_S
    await fanout.run_once()
    assert await world.calls() == {str(made.id): 1, str(newer.id): 1}


async def test_calls_are_found_by_their_channel_and_webhook_alone(world: World) -> None:
    test = WebhookScope(DEFAULT_TENANT, Mode.TEST)
    scopes = (LIVE, test, WebhookScope(None, Mode.LIVE))
    made = [await world.create(scope, events=["pause.created"]) for scope in scopes]
    fanout, connections = await world.process()
    await fanout.run_once()
    calls = [
        call_of(
            each.id, each.scope, call_id(uuid4(), each.id, each.created_at), b"{}", timedelta(1)
        )
        for each in made
    ]
    cursor = await world.connection.fetchval("SELECT cursor FROM webhook_fanout")
    assert await connections.fanout.advance(cursor, "after", calls) == 3
    async with open_reader(ConnectionSettings(url=world.url)) as reader:

        async def found(mode: Mode, tenant: TenantId | None, **fields: Any) -> list[UUID]:
            selection = Filter(view=View(tenant, mode), **fields)
            return [view.id for view in (await reader.notifications(selection)).views]

        ids = [call.id for call in calls]
        channel = ("webhook",)
        assert await found(Mode.LIVE, None) == []
        assert await found(Mode.TEST, None) == []
        assert await found(Mode.LIVE, None, status=("queued",)) == []
        assert sorted(await found(Mode.LIVE, None, channel=channel)) == sorted(ids[::2])
        assert await found(Mode.TEST, DEFAULT_TENANT, channel=channel) == [ids[1]]
        assert await found(Mode.LIVE, DEFAULT_TENANT, channel=channel) == [ids[0]]
        for number, (mode, tenant) in enumerate(
            [(Mode.LIVE, DEFAULT_TENANT), (Mode.TEST, DEFAULT_TENANT), (Mode.LIVE, None)]
        ):
            recipient = (str(made[number].id),)
            assert await found(mode, tenant, channel=channel, recipient=recipient) == [ids[number]]


async def test_no_call_is_stored_that_names_somebody_who_was_erased_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = await world.create()
    fanout, connections = await world.process()
    [erased] = await world.sent()
    store = connections.fanout
    enabled = store.enabled

    async def erased_meanwhile(tenants: Collection[TenantId | None]) -> Sequence[Webhook]:
        await world.connection.execute(
            "UPDATE notifications SET recipient = '' WHERE id = $1", erased.id
        )
        return await enabled(tenants)

    monkeypatch.setattr(store, "enabled", erased_meanwhile)
    await fanout.run_once()
    assert await world.calls() == {}
    world.skew_s += webhook_fanout.TAKE_INTERVAL_S
    await fanout.run_once()
    assert await world.calls() == {str(webhook.id): 1}
    content = await world.connection.fetchval(
        "SELECT content FROM notifications WHERE queue = 'webhook.medium'"
    )
    assert msgspec.json.decode(content)["event"]["data"]["notification"]["recipient"] is None
