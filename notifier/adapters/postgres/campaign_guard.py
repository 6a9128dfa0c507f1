"""The campaign guard in Postgres: it judges by the roll-ups of minutes.

A pause, its entry in the audit and the note that the tag was judged are one transaction, under a
lock that one process at a time holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uuid_utils.compat import uuid7

from notifier.adapters.postgres.audit import add_action
from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.statements import statement
from notifier.domain.audit import SYSTEM, Action
from notifier.domain.campaign_guard import (
    REMEMBERED,
    SHARED_DAYS,
    GuardRule,
    TagResults,
    is_too_bad,
    note_of,
)
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.events import EventType
from notifier.domain.stats import OTHER, Step
from notifier.ports.campaign_guard import JudgedTag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Connection, Record

    from notifier.adapters.postgres.connection import PostgresConnection


class PostgresTagGuard:
    """Implements ports.campaign_guard.TagGuard."""

    def __init__(self, connection: PostgresConnection, events: EventWriting = WRITE_EVENTS) -> None:
        self._connection = connection
        self._events = events

    async def judge(self, rule: GuardRule) -> Sequence[JudgedTag]:
        async with self._connection.acquire() as connection, connection.transaction():
            (lock,) = await connection.fetch(statement("guard_lock"))
            if not lock["is_held"]:
                return []
            rows = await connection.fetch(
                statement("guard_results"),
                rule.window,
                rule.least_results,
                REMEMBERED,
                OTHER,
                Step.MINUTE,
            )
            found = [TagResults(**row) for row in rows]
            judged = [
                await _judge(connection, tag, rule, self._events)
                for tag in found
                if is_too_bad(tag, rule)
            ]
        return [each for each in judged if each is not None]


async def _judge(
    connection: Connection[Record], tag: TagResults, rule: GuardRule, events: EventWriting
) -> JudgedTag | None:
    """Pause a tag; None if a person has done it just now."""
    scope, note = Scope(ScopeKind.TAG, tag.tag), note_of(tag, rule)
    (tenants,) = await connection.fetch(statement("guard_shared"), tag.tag, SHARED_DAYS, Step.DAY)
    is_shared = tenants["is_shared"]
    if not is_shared:
        paused = await connection.fetch(statement("guard_pause"), scope.kind, scope.name, note)
        if not paused:
            return None
    await connection.execute(statement("guard_judged"), tag.tag, tag.share)
    if is_shared:
        return JudgedTag(tag, is_paused=False)
    action = Action(
        actor=SYSTEM,
        name="pause.created",
        target=f"pause:{scope}",
        after={"for_s": None, "note": note},
        note=note,
    )
    await add_action(connection, action)
    shown = {"kind": scope.kind, "name": scope.name, "note": note, "expires_at": None}
    await events.add(connection, EventType.PAUSE_CREATED, {uuid7(): shown})
    return JudgedTag(tag, is_paused=True)
