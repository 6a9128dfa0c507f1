"""Pauses, breakers and quiet hours in Postgres.

Every change is compare-and-set and notifies at its commit. All spans and instants are by
Postgres's clock.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from uuid_utils.compat import uuid7

from notifier.adapters.postgres.audit import add_action
from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.listening import NotifyListener, open_listener
from notifier.adapters.postgres.statements import statement
from notifier.domain.audit import Action
from notifier.domain.controls import (
    HOLD_KINDS,
    Breaker,
    BreakerState,
    Controls,
    Pause,
    Scope,
    ScopeKind,
)
from notifier.domain.events import EventType
from notifier.domain.quiet_hours import QuietHours, quiet_hours
from notifier.domain.tenants import TenantId, tenant_id, tenant_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from asyncpg import Record

    from notifier.domain.notification import WorkerId
    from notifier.ports.keys import Author

CONNECTIONS: Final = 2
"""How many connections `open_controls` opens at most."""
CHANNEL: Final = "notifier_controls"
KINDS: Final = frozenset(ScopeKind)
"""A newer version may pause what this one does not know."""
STATES: Final = frozenset(BreakerState)
"""Any other state, of a newer version, is a breaker that is not closed."""
_EARLIER_REASONS: Final = {"in_a_row": "consecutive"}
"""What the version before calls a reason."""


class PostgresControls:
    """Implements ports.controls.ControlReader, BreakerStore, PauseStore and QuietHoursStore."""

    def __init__(
        self,
        worker: WorkerId,
        connection: PostgresConnection,
        listener: NotifyListener,
        events: EventWriting = WRITE_EVENTS,
    ) -> None:
        self._worker = worker
        self._events = events
        self._connection = connection
        self._listener = listener

    async def read(self) -> Controls:
        """All pauses that have not expired, all breakers and quiet hours."""
        async with self._connection.acquire() as connection:
            pauses = await connection.fetch(statement("controls_pauses"))
            holds = await connection.fetch(statement("controls_holds"))
            breakers = await connection.fetch(statement("controls_breakers"), self._worker)
            quiet_hours = await connection.fetch(statement("controls_quiet_hours"))
        return Controls(
            pauses=tuple(pause_of(row) for row in (*pauses, *holds) if row["kind"] in KINDS),
            breakers=tuple(breaker_of(row) for row in breakers),
            quiet_hours=dict(_tenants_quiet_hours(quiet_hours)),
        )

    async def wait_for_change(self, timeout_s: float) -> None:
        """Return at a change, when a lost connection is restored, or after `timeout_s`."""
        await self._listener.wait(timeout_s)

    async def pause(
        self, scope: Scope, *, note: str, for_s: float | None, author: Author | None = None
    ) -> Pause:
        """Begin or prolong a pause."""
        name = "hold" if scope.kind in HOLD_KINDS else "pause"
        async with self._connection.acquire() as connection, connection.transaction():
            (row,) = await connection.fetch(statement(name), scope.kind, scope.name, note, for_s)
            if row["age_s"] == 0:  # it has begun in this transaction
                shown = {"kind": scope.kind, "name": scope.name, "note": note or None}
                shown["expires_at"] = row["expires_at"]
                await self._events.add(connection, EventType.PAUSE_CREATED, {uuid7(): shown})
            if author is not None:
                after = {"for_s": for_s, "note": note}
                await add_action(connection, _pause_action(scope, author, after=after, note=note))
        return pause_of(row)

    async def resume(self, scope: Scope, author: Author | None = None) -> bool:
        """End a pause."""
        name = "hold_end" if scope.kind in HOLD_KINDS else "resume"
        async with self._connection.acquire() as connection, connection.transaction():
            was_paused = bool(await connection.fetch(statement(name), scope.kind, scope.name))
            if was_paused:
                shown = {"kind": scope.kind, "name": scope.name}
                await self._events.add(connection, EventType.PAUSE_DELETED, {uuid7(): shown})
            if was_paused and author is not None:
                await add_action(connection, _pause_action(scope, author))
        return was_paused

    async def probe_now(self, provider: str, note: str, author: Author) -> bool:
        """Make the probe of an open breaker due at once."""
        async with self._connection.acquire() as connection, connection.transaction():
            is_changed = bool(await connection.fetch(statement("breaker_probe"), provider))
            if is_changed:
                action = Action(
                    actor=author.actor,
                    name="provider.probed",
                    target=f"provider:{provider}",
                    note=note,
                    request_id=author.request_id,
                )
                await add_action(connection, action)
        return is_changed

    async def quiet_hours(self) -> Mapping[TenantId, QuietHours]:
        """The quiet hours of all tenants that have some."""
        rows = await self._connection.fetch(statement("controls_quiet_hours"))
        return dict(_tenants_quiet_hours(rows))

    async def put_quiet_hours(self, tenant: TenantId, hours: QuietHours, author: Author) -> bool:
        """Store the quiet hours of a tenant that exists."""
        times = hours.start.isoformat("minutes"), hours.end.isoformat("minutes")
        async with self._connection.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                statement("quiet_hours_put"), tenant, *times, hours.time_zone
            )
            if rows:
                after = {"start": times[0], "end": times[1], "time_zone": hours.time_zone}
                before = rows[0]["before"]
                await add_action(
                    connection, _quiet_hours_action(tenant, author, before=before, after=after)
                )
        return bool(rows)

    async def delete_quiet_hours(self, tenant: TenantId, author: Author) -> bool:
        """Remove the quiet hours of a tenant."""
        async with self._connection.acquire() as connection, connection.transaction():
            rows = await connection.fetch(statement("quiet_hours_delete"), tenant)
            if rows:
                before = rows[0]["before"]
                await add_action(connection, _quiet_hours_action(tenant, author, before=before))
        return bool(rows)

    async def open_breaker(self, provider: str, reason: str, *, code: str, wait_s: float) -> bool:
        """Closed -> open."""
        shown = {"provider": provider, "reason": reason, "code": code or None}
        return await self._announced(
            EventType.BREAKER_OPENED, shown, "breaker_open", provider, reason, code, wait_s
        )

    async def hold_probe(self, provider: str, hold_s: float) -> bool:
        """Open or half-open -> half-open, held by this process."""
        return await self._change("breaker_hold", provider, self._worker, hold_s)

    async def reopen_breaker(
        self, provider: str, *, reason: str, code: str, base_s: float, min_wait_s: float
    ) -> bool:
        """Half-open -> open."""
        return await self._change(
            "breaker_reopen", provider, self._worker, reason, code, base_s, min_wait_s
        )

    async def close_answered(self, provider: str, reason: str) -> bool:
        """Open or half-open for this reason -> closed."""
        return await self._announced(
            EventType.BREAKER_CLOSED,
            {"provider": provider},
            "breaker_close_answered",
            provider,
            reason,
        )

    async def close_breaker(self, provider: str) -> bool:
        """Half-open -> closed."""
        return await self._announced(
            EventType.BREAKER_CLOSED,
            {"provider": provider},
            "breaker_close",
            provider,
            self._worker,
        )

    async def _announced(
        self, type_: EventType, shown: Mapping[str, object], name: str, *args: object
    ) -> bool:
        """Change a breaker, and write the event of the change if it changed."""
        async with self._connection.acquire() as connection, connection.transaction():
            is_changed = bool(await connection.fetch(statement(name), *args))
            if is_changed:
                await self._events.add(connection, type_, {uuid7(): shown})
        return is_changed

    async def _change(self, name: str, *args: object) -> bool:
        # Each statement returns one row, that of its pg_notify, if it changed something.
        return bool(await self._connection.fetch(statement(name), *args))


def _pause_action(
    scope: Scope, author: Author, *, after: Mapping[str, object] | None = None, note: str = ""
) -> Action:
    return Action(
        actor=author.actor,
        name="pause.deleted" if after is None else "pause.created",
        target=f"pause:{scope}",
        tenant=tenant_id(scope.name) if scope.kind is ScopeKind.TENANT else None,
        after=after,
        note=note,
        request_id=author.request_id,
    )


def _quiet_hours_action(
    tenant: TenantId,
    author: Author,
    *,
    before: str | None,
    after: Mapping[str, object] | None = None,
) -> Action:
    return Action(
        actor=author.actor,
        name="quiet_hours.deleted" if after is None else "quiet_hours.set",
        target=f"tenant:{tenant_name(tenant)}",
        tenant=tenant,
        before=None if before is None else {"quiet_hours": before},
        after=after,
        request_id=author.request_id,
    )


def pause_of(row: Record) -> Pause:
    """A row of controls_pauses.sql, controls_holds.sql, pause.sql or hold.sql."""
    return Pause(
        scope=Scope(ScopeKind(row["kind"]), row["name"]),
        note=row["note"],
        age_s=row["age_s"],
        paused_at=row["paused_at"],
        expires_at=row["expires_at"],
        expires_in_s=row["expires_in_s"],
    )


def _tenants_quiet_hours(rows: Sequence[Record]) -> Iterator[tuple[TenantId, QuietHours]]:
    """The rows of controls_quiet_hours.sql, without those that this version does not understand."""
    for row in rows:
        try:
            yield (
                TenantId(row["tenant"]),
                quiet_hours(row["starts_at"], row["ends_at"], row["time_zone"]),
            )
        except ValueError:
            continue


def breaker_of(row: Record) -> Breaker:
    """A row of controls_breakers.sql."""
    return Breaker(
        provider=row["provider"],
        state=BreakerState(row["state"]) if row["state"] in STATES else BreakerState.OPEN,
        reason=_EARLIER_REASONS.get(row["reason"], row["reason"]),
        age_s=row["age_s"],
        probe_in_s=row["probe_in_s"],
        since_at=row["since_at"],
        probe_at=row["probe_at"],
        is_mine=row["is_mine"],
        openings=row["openings"],
        code=row["code"],
    )


@asynccontextmanager
async def open_controls(
    settings: ConnectionSettings, worker: WorkerId, *, events: EventWriting = WRITE_EVENTS
) -> AsyncIterator[PostgresControls]:
    """Yield the controls with two connections of their own.

    One reads and writes and opens at the first use; the other listens for changes.
    """
    async with (
        open_connection(settings) as connection,
        open_listener(settings, CHANNEL, name="controls listener") as listener,
    ):
        yield PostgresControls(worker, connection, listener, events)
