"""Events of changes that are not of notifications, on a real Postgres: each once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from harness.client import until
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import open_controls
from notifier.adapters.postgres.events import PostgresEvents, open_events
from notifier.adapters.postgres.operation_steps import open_operation_steps
from notifier.adapters.postgres.operations import open_operations
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.postgres.suppressions import open_suppressions
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.credentials import Mode
from notifier.domain.events import EventFilter, EventType
from notifier.domain.operations import Operation, OperationKind, OperationStatus
from notifier.domain.suppressions import NewSuppression, SuppressionScope
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.events import EventPage
from notifier.ports.heartbeat import DeadProcess
from notifier.ports.keys import Author
from notifier.ports.operations import NewOperation
from notifier.ports.queries import Filter, View
from tests.builders import worker_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from notifier.domain.event_cursor import EventCursor

    Connection = asyncpg.Connection[asyncpg.Record]

ADA: Final = Author(actor="cli:ada@desk")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    async with open_store(ConnectionSettings(url=database_url), worker_id()) as store:
        yield store


@pytest.fixture
async def events(database_url: str) -> AsyncIterator[PostgresEvents]:
    async with open_events(ConnectionSettings(url=database_url)) as events:
        yield events


async def documents_of(
    events: PostgresEvents, cursor: EventCursor
) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Return type, tenant and what is shown of each event after a cursor."""
    page = await events.read(cursor, 100)
    assert isinstance(page, EventPage)
    shown: list[tuple[str, str | None, dict[str, Any]]] = []
    for event in (read.event for read in page.events):
        [(name, fields)] = json.loads(event.document).items()
        assert name == event.type.partition(".")[0]
        shown.append((event.type, event.tenant, fields))
    return shown


async def test_changes_of_breakers_and_pauses_are_events_of_the_deployment(
    events: PostgresEvents, database_url: str
) -> None:
    scope = Scope(ScopeKind.CHANNEL, "email")
    start = await events.now()
    settings = ConnectionSettings(url=database_url)
    async with (
        open_controls(settings, worker_id()) as one,
        open_controls(settings, worker_id()) as two,
    ):
        for controls in (one, two):
            await controls.open_breaker("smtp", "errors", code="421", wait_s=0.0)
            await controls.pause(scope, note="a mistake", for_s=None)
        assert await one.hold_probe("smtp", 30.0)
        for controls in (one, two):
            await controls.close_breaker("smtp")
            await controls.resume(scope)
    found = await documents_of(events, start)
    assert [type_ for type_, _, _ in found] == [
        EventType.BREAKER_OPENED,
        EventType.PAUSE_CREATED,
        EventType.BREAKER_CLOSED,
        EventType.PAUSE_DELETED,
    ]
    assert {tenant for _, tenant, _ in found} == {None}
    assert found[0][2] == {"provider": "smtp", "reason": "errors", "code": "421"}
    assert found[1][2] == {
        "kind": "channel",
        "name": "email",
        "note": "a mistake",
        "expires_at": None,
    }
    page = await events.read(start, 10, EventFilter(mode=Mode.LIVE, tenant=DEFAULT_TENANT))
    assert isinstance(page, EventPage)
    assert page.events == []


async def test_suppressions_are_events_of_their_tenant_whose_recipient_is_read_with_them(
    events: PostgresEvents, database_url: str, connection: Connection
) -> None:
    scope = SuppressionScope(TenantId("shop"), Mode.LIVE)
    new = NewSuppression(channel="email", recipient="ada@example.com")
    start = await events.now()
    async with open_suppressions(ConnectionSettings(url=database_url)) as suppressions:
        ((stored, _),) = await suppressions.add(scope, [new], ADA)
        await suppressions.add(scope, [new], ADA)  # it exists already
        [(type_, tenant, shown)] = await documents_of(events, start)
        assert (type_, tenant) == (EventType.SUPPRESSION_CREATED, "shop")
        assert (shown["id"], shown["recipient"]) == (str(stored.id), "ada@example.com")
        assert "ada" not in str(await connection.fetchval("SELECT documents FROM event_batches"))
        assert await suppressions.remove(scope, stored.id, ADA)
        assert not await suppressions.remove(scope, stored.id, ADA)
    created, deleted = await documents_of(events, start)
    assert created[2]["recipient"] is None
    assert (deleted[0], deleted[2]["id"]) == (EventType.SUPPRESSION_DELETED, str(stored.id))


async def test_a_lost_worker_is_one_event_whoever_finds_it(
    store: PostgresStore, events: PostgresEvents, connection: Connection
) -> None:
    start = await events.now()
    dead, api = worker_id(), worker_id()
    await connection.executemany(
        "INSERT INTO workers (id, kind, host, pid, beat, figures) VALUES ($1, $2, 'h', 7, 5, '{}')",
        [(dead, "worker"), (api, "api")],
    )
    found = [DeadProcess(dead, 5), DeadProcess(api, 5)]
    assert await store.note_lost([DeadProcess(dead, 4)]) == []  # it has moved on
    assert await store.note_lost(found) == [dead]
    assert await store.note_lost(found) == []
    [(type_, tenant, shown)] = await documents_of(events, start)
    assert (type_, tenant) == (EventType.WORKER_LOST, None)
    assert (shown["id"], shown["host"], shown["pid"]) == (str(dead), "h", 7)


async def test_the_end_of_an_operation_is_an_event(
    events: PostgresEvents, database_url: str
) -> None:
    settings = ConnectionSettings(url=database_url)
    start = await events.now()
    selection = Filter(status=("queued",), view=View(TenantId("shop"), Mode.LIVE))
    async with (
        open_operations(settings, keep_keys_s=60.0) as operations,
        open_operation_steps(settings) as steps,
    ):
        new = NewOperation(
            kind=OperationKind.CANCEL, selection=selection, shown={}, rate_per_s=None, note="why"
        )
        made = await operations.create(new, ADA)
        assert isinstance(made, Operation)
        stopped = await operations.create(new, ADA)
        assert isinstance(stopped, Operation)
        await operations.stop(stopped.id, selection.view, "", ADA)
        await operations.stop(stopped.id, selection.view, "", ADA)

        async def step() -> OperationStatus | None:
            done = await steps.step()
            return None if done is None else done.operation.status

        await until(step, lambda status: status is OperationStatus.FINISHED)
    found = await documents_of(events, start)
    assert {type_ for type_, _, _ in found} == {EventType.OPERATION_FINISHED}
    assert [(shown["id"], shown["status"]) for _, _, shown in found] == [
        (str(stopped.id), "stopped"),
        (str(made.id), "finished"),
    ]
