"""Webhooks in Postgres: what people keep, and what the calls read and write.

Every change of a person is one transaction with its audit entry. All instants are by Postgres's
clock.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from uuid_utils.compat import uuid7

from notifier.adapters.postgres.audit import add_action, row_action
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.inserting import NotedTurns, insert_waiting
from notifier.adapters.postgres.lookups import LookupKey
from notifier.adapters.postgres.statements import statement
from notifier.domain.credentials import Mode
from notifier.domain.events import EventType
from notifier.domain.webhooks import (
    MAX_WAITING_IN_ALL,
    MAX_WEBHOOKS,
    WEBHOOK_QUEUE,
    DisabledReason,
    Webhook,
    WebhookScope,
    WebhookStatus,
    WebhookTarget,
)
from notifier.ports.store import NO_TURNS
from notifier.ports.webhooks import Disabled, FanoutState, WebhookRefusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.domain.notification import NewNotification, NotificationId, WorkerId
    from notifier.domain.tenants import TenantId
    from notifier.ports.keys import Author
    from notifier.ports.webhooks import CallSummary, NewWebhook, WebhookChange

CONNECTIONS: Final = 1
"""How many connections `open_webhooks` opens."""
CALL_CONNECTIONS: Final = 4
"""How many connections a worker opens for webhooks, all but the first when there are any."""
MAX_INSERTED: Final = 500
"""Calls that one statement stores."""
MAX_EXPIRED: Final = 10_000
"""Calls that one statement lets expire."""
COUNT_TIMEOUT_S: Final = 60.0
"""Of the statements that read all calls that wait."""
_PLAN_ONCE: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_bitmapscan": "off",
    "enable_nestloop": "off",
    "enable_mergejoin": "off",
}


class PostgresWebhooks:
    """Implements ports.webhooks.WebhookStore."""

    def __init__(self, connection: PostgresConnection, events: EventWriting = WRITE_EVENTS) -> None:
        self._connection = connection
        self._events = events

    async def create(
        self, scope: WebhookScope, new: NewWebhook, secret: bytes, author: Author
    ) -> Webhook | WebhookRefusal:
        async with self._connection.acquire() as connection, connection.transaction():
            await connection.fetch(statement("webhooks_lock"), *scope)
            row = await connection.fetchrow(
                statement("webhook_create"),
                uuid7(),
                *scope,
                new.url,
                list(new.events),
                new.status,
                _reason(new.status),
                new.note,
                secret,
                MAX_WEBHOOKS,
            )
            if row is None:
                names = await connection.fetch(statement("tenants_read"))
                is_known = scope.tenant in {None, "", *(each["name"] for each in names)}
                return WebhookRefusal.TOO_MANY if is_known else WebhookRefusal.UNKNOWN_TENANT
            await add_action(
                connection, row_action("webhook", "created", row, author, after=_shown(row))
            )
        return _webhook(row)

    async def webhooks(self, scope: WebhookScope) -> Sequence[Webhook]:
        rows = await self._connection.fetch(statement("webhooks_list"), *scope)
        return list(map(_webhook, rows))

    async def webhook(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the port's name
    ) -> Webhook | None:
        rows = await self._connection.fetch(statement("webhook_read"), id, *scope)
        return _webhook(rows[0]) if rows else None

    async def change(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the port's name
        change: WebhookChange,
        author: Author,
    ) -> Webhook | None:
        async with self._connection.acquire() as connection, connection.transaction():
            before = await connection.fetchrow(statement("webhook_read_locked"), id, *scope)
            if before is None:
                return None
            status = before["status"] if change.status is None else change.status
            is_same = status == before["status"]
            row = await connection.fetchrow(
                statement("webhook_change"),
                id,
                before["url"] if change.url is None else change.url,
                before["events"] if change.events is None else list(change.events),
                before["note"] if change.note is None else change.note,
                status,
                before["reason"] if is_same else _reason(status),
            )
            if row is None:
                return None
            await add_action(
                connection,
                row_action(
                    "webhook", "changed", row, author, before=_shown(before), after=_shown(row)
                ),
            )
            if not is_same and status == WebhookStatus.DISABLED:
                await _announce_disabled(connection, self._events, row)
        return _webhook(row)

    async def rotate(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the port's name
        secret: bytes,
        overlap_s: float,
        author: Author,
    ) -> Webhook | None:
        async with self._connection.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(
                statement("webhook_rotate"), id, *scope, secret, overlap_s
            )
            if row is None:
                return None
            await add_action(
                connection,
                row_action("webhook", "rotated", row, author, after={"overlap_s": overlap_s}),
            )
        return _webhook(row)

    async def delete(
        self,
        scope: WebhookScope,
        id: UUID,  # noqa: A002 the port's name
        author: Author,
    ) -> bool:
        async with self._connection.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statement("webhook_delete"), id, *scope)
            if row is not None:
                await add_action(
                    connection, row_action("webhook", "deleted", row, author, before=_shown(row))
                )
        return row is not None


class PostgresFanout:
    """Implements ports.webhooks.FanoutStore for one process."""

    def __init__(
        self, connection: PostgresConnection, counting: PostgresConnection, worker: WorkerId
    ) -> None:
        self._connection = connection
        self._counting = counting
        self._worker = worker
        self._key = LookupKey()
        self._noted_turns = NotedTurns()

    async def take(self, hold_s: float) -> FanoutState | None:
        rows = await self._connection.fetch(statement("webhook_fanout_take"), self._worker, hold_s)
        if not rows:
            return None
        (row,) = rows
        return FanoutState(row["cursor"], row["since"], is_shared=row["is_shared"])

    async def release(self) -> None:
        await self._connection.fetch(statement("webhook_fanout_release"), self._worker)

    async def enabled(self, tenants: Collection[TenantId | None]) -> Sequence[Webhook]:
        rows = await self._connection.fetch(
            statement("webhooks_enabled"),
            [tenant for tenant in tenants if tenant is not None],
            None in tenants,
            list(Mode),
        )
        return [_webhook(row) for row in rows]

    async def advance(
        self,
        before: str | None,
        after: str,
        calls: Sequence[NewNotification],
        *,
        turns: Mapping[NotificationId, int] = NO_TURNS,
        named: Collection[NotificationId] = (),
    ) -> int | None:
        stored = 0
        async with self._connection.acquire() as connection:
            await self._noted_turns.note(connection, calls, turns)
        async with self._connection.acquire() as connection, connection.transaction():
            if named:
                locked = await connection.fetch(
                    statement("webhook_named_lock"), list(named), min(named), max(named)
                )
                if len(locked) < len(named):
                    return None
            moved = await connection.fetch(
                statement("webhook_fanout_move"), self._worker, before, after
            )
            if not moved:
                return None
            for start in range(0, len(calls), MAX_INSERTED):
                chunk = calls[start : start + MAX_INSERTED]
                stored += await insert_waiting(connection, chunk, turns, self._key)
        return stored

    async def expire_surplus(self, most: int) -> int:
        (row,) = await self._counting.fetch(statement("webhook_calls_waiting"), str(WEBHOOK_QUEUE))
        expired, count = MAX_EXPIRED, 0
        while row["waiting"] > most and expired == MAX_EXPIRED:
            rows = await self._counting.fetch(
                statement("webhook_calls_expire"),
                str(WEBHOOK_QUEUE),
                most,
                MAX_EXPIRED,
                MAX_WAITING_IN_ALL,
            )
            expired = len(rows)
            count += expired
        return count


class PostgresCalls:
    """Implements ports.webhooks.CallStore."""

    def __init__(self, connection: PostgresConnection, events: EventWriting) -> None:
        self._connection = connection
        self._events = events

    async def target(
        self,
        id: UUID,  # noqa: A002 the port's name
    ) -> WebhookTarget | None:
        rows = await self._connection.fetch(statement("webhook_target"), id)
        if not rows:
            return None
        (row,) = rows
        return WebhookTarget(
            row["url"],
            [bytes(secret) for secret in row["secrets"]],
            is_enabled=row["status"] == WebhookStatus.ENABLED,
        )

    async def note_calls(
        self, summaries: Mapping[UUID, CallSummary], disable_after_s: float
    ) -> Sequence[Disabled]:
        ids = sorted(summaries)
        ordered = [summaries[id_] for id_ in ids]
        async with self._connection.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                statement("webhooks_called"),
                ids,
                [each.url for each in ordered],
                [each.succeeded_s for each in ordered],
                [each.failed_s for each in ordered],
                [each.failing_s for each in ordered],
                disable_after_s,
            )
            for row in rows:
                await _announce_disabled(connection, self._events, row)
        return [Disabled(row["id"], DisabledReason.FAILING) for row in rows]

    async def disable_gone(
        self,
        id: UUID,  # noqa: A002 the port's name
        url: str,
    ) -> bool:
        async with self._connection.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(statement("webhook_gone"), id, url)
            if row is not None:
                await _announce_disabled(connection, self._events, row)
        return row is not None


async def _announce_disabled(
    connection: Connection[Record], events: EventWriting, row: Record
) -> None:
    document = {
        "id": str(row["id"]),
        "url": row["url"],
        "status": row["status"],
        "reason": row["reason"],
    }
    await events.add(
        connection,
        EventType.WEBHOOK_DISABLED,
        {row["id"]: document},
        tenant=row["tenant"],
        mode=Mode(row["mode"]),
    )


def _reason(status: str) -> str:
    return DisabledReason.REQUEST if status == WebhookStatus.DISABLED else ""


def _webhook(row: Record) -> Webhook:
    return Webhook(
        id=row["id"],
        scope=WebhookScope(row["tenant"], Mode(row["mode"])),
        url=row["url"],
        events=tuple(row["events"]),
        status=WebhookStatus(row["status"]),
        reason=row["reason"] or None,
        note=row["note"],
        created_at=row["created_at"],
        last_success_at=row["last_success_at"],
        last_failure_at=row["last_failure_at"],
        failing_since=row["failing_since"],
    )


def _shown(row: Record) -> Mapping[str, object]:
    """What the audit keeps: no secret."""
    return {
        "url": row["url"],
        "events": list(row["events"]),
        "status": row["status"],
        "reason": row["reason"] or None,
        "mode": row["mode"],
        "note": row["note"],
    }


@asynccontextmanager
async def open_webhooks(
    settings: ConnectionSettings, *, events: EventWriting = WRITE_EVENTS
) -> AsyncIterator[PostgresWebhooks]:
    """The webhooks on a connection of their own."""
    async with open_connection(settings) as connection:
        yield PostgresWebhooks(connection, events)


class WebhookConnections(NamedTuple):
    """What a worker needs to call webhooks."""

    fanout: PostgresFanout
    calls: PostgresCalls


@asynccontextmanager
async def open_webhook_calls(
    settings: ConnectionSettings, worker: WorkerId, *, events: EventWriting = WRITE_EVENTS
) -> AsyncIterator[WebhookConnections]:
    """What turns events into calls, and what the calls read and write."""
    async with (
        open_connection(settings, _PLAN_ONCE) as fanout,
        open_connection(replace(settings, statement_timeout_s=COUNT_TIMEOUT_S)) as counting,
        open_connection(settings) as calls,
    ):
        yield WebhookConnections(
            PostgresFanout(fanout, counting, worker), PostgresCalls(calls, events)
        )
