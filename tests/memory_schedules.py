"""Schedules in memory, behind the port that the API needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from notifier.domain.schedules import NewSchedule, Schedule, ScheduleScope
from notifier.ports.keys import Author
from notifier.ports.schedules import AddedSchedule, ScheduleRefusal


class MemorySchedules:
    """A ScheduleStore. Every method raises `error`, if it is set. A scope has at most `most`."""

    def __init__(self) -> None:
        self.stored: dict[UUID, Schedule] = {}
        self.new: dict[UUID, NewSchedule] = {}
        self.most = 1000
        self.error: Exception | None = None

    async def create(
        self, scope: ScheduleScope, new: NewSchedule, author: Author
    ) -> AddedSchedule | ScheduleRefusal:
        del author
        self._raise_error()
        if same := self._same(scope, new):
            return AddedSchedule(same, is_new=False)
        if len(await self.schedules(scope)) >= self.most:
            return ScheduleRefusal.TOO_MANY
        now = datetime.now(UTC)
        schedule = Schedule(
            id=uuid7(),
            scope=scope,
            cron=new.cron,
            note=new.note,
            is_paused=new.is_paused,
            created_at=now,
            next_at=None if new.is_paused else new.cron.next_after(now),
            last_at=None,
            last_notification=None,
            problem=None,
            notification=new.notification,
        )
        self.stored[schedule.id], self.new[schedule.id] = schedule, new
        return AddedSchedule(schedule, is_new=True)

    async def schedules(self, scope: ScheduleScope) -> Sequence[Schedule]:
        self._raise_error()
        return [
            replace(each, notification=None) for each in self.stored.values() if each.scope == scope
        ]

    async def schedule(
        self,
        scope: ScheduleScope,
        id: UUID,  # noqa: A002 the port's word
    ) -> Schedule | None:
        self._raise_error()
        found = self.stored.get(id)
        return None if found is None or found.scope != scope else found

    async def replace(
        self,
        scope: ScheduleScope,
        id: UUID,  # noqa: A002 the port's word
        new: NewSchedule,
        author: Author,
    ) -> Schedule | ScheduleRefusal:
        del author
        before = await self.schedule(scope, id)
        if before is None:
            return ScheduleRefusal.UNKNOWN
        if (same := self._same(scope, new)) and same.id != id:
            return ScheduleRefusal.EXISTS
        self.new[id] = new
        self.stored[id] = replace(
            before,
            cron=new.cron,
            note=new.note,
            is_paused=new.is_paused,
            next_at=before.next_of(new, datetime.now(UTC)),
            notification=new.notification,
        )
        return self.stored[id]

    async def delete(
        self,
        scope: ScheduleScope,
        id: UUID,  # noqa: A002 the port's word
        author: Author,
    ) -> bool:
        del author
        found = await self.schedule(scope, id)
        return found is not None and self.stored.pop(id, None) is not None

    def _same(self, scope: ScheduleScope, new: NewSchedule) -> Schedule | None:
        for id_, each in self.stored.items():
            if each.scope == scope and self.new[id_].digest == new.digest:
                return each
        return None

    def _raise_error(self) -> None:
        if self.error is not None:
            raise self.error
