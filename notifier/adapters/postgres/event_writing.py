"""Writes events: in the statements that end or change notifications, and beside other changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from notifier.adapters.postgres.statements import Part, statement, statement_with
from notifier.domain.credentials import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.domain.events import EventType
    from notifier.domain.tenants import TenantId

_BATCH: Final = Part("event_batch", ())


class EventWriting:
    """Adds the writing of events to statements; nothing where events are switched off."""

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on

    def parts(self, name: str, values: Sequence[object] = ()) -> Sequence[Part]:
        """Return the parts for sql/<name>.sql: <name>_events.sql, which has these parameters."""
        return (Part(f"{name}_events", values), _BATCH) if self._is_on else ()

    def statement(self, name: str, taken: int) -> str:
        """Return sql/<name>.sql, which has `taken` parameters, with its events."""
        return statement_with(name, taken, self.parts(name))

    async def add(
        self,
        connection: Connection[Record],
        type_: EventType,
        documents: Mapping[UUID, Mapping[str, object]],
        *,
        tenant: TenantId | None = None,
        mode: Mode = Mode.LIVE,
    ) -> None:
        """Write events that are not of notifications, in the transaction of the change.

        `documents` has what they show, by the ids of what they concern. `tenant` None: they are of
        the deployment.
        """
        if not self._is_on or not documents:
            return
        name = type_.partition(".")[0]
        encoded = [msgspec.json.encode({name: each}).decode() for each in documents.values()]
        await connection.execute(
            statement("event_add"), type_, tenant, mode, list(documents), encoded
        )


WRITE_EVENTS: Final = EventWriting(is_on=True)
