"""Suppressions in memory, behind the ports that the API needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from notifier.domain.suppressions import (
    NewSuppression,
    Suppression,
    SuppressionReason,
    SuppressionScope,
)
from notifier.domain.unsubscribing import Unsubscribe
from notifier.ports.keys import Author
from notifier.ports.suppressions import AddedSuppression, SuppressionFilter, SuppressionPage


class MemorySuppressions:
    """SuppressionPort, WaitingSuppressor and UnsubscribeReader in one.

    Every method raises `error`, if it is set. A token is valid if `wishes` has it.
    """

    def __init__(self) -> None:
        self.stored: dict[UUID, Suppression] = {}
        self.scopes: dict[UUID, SuppressionScope] = {}
        self.suppressed: list[UUID] = []
        self.wishes: dict[str, Unsubscribe] = {}
        self.error: Exception | None = None

    async def add(
        self, scope: SuppressionScope, new: Sequence[NewSuppression], author: Author
    ) -> Sequence[AddedSuppression]:
        del author
        self._raise_error()
        return [self._added(scope, each) for each in new]

    async def suppressions(self, selection: SuppressionFilter) -> SuppressionPage:
        self._raise_error()
        newest = sorted(self.stored.values(), key=lambda each: each.id, reverse=True)
        found = [
            each
            for each in newest
            if self.scopes[each.id] == selection.scope and _matches(each, selection)
        ]
        shown = found[: selection.limit]
        return SuppressionPage(
            suppressions=shown, next_before=shown[-1].id if len(found) > len(shown) else None
        )

    async def remove(
        self,
        scope: SuppressionScope,
        id: UUID,  # noqa: A002 the port's word
        author: Author,
    ) -> bool:
        del author
        self._raise_error()
        return self.scopes.get(id) == scope and self.stored.pop(id, None) is not None

    async def unsubscribe(self, wish: Unsubscribe) -> UUID:
        self._raise_error()
        new = NewSuppression(
            channel=wish.channel,
            recipient=str(wish.recipient),
            topic=wish.topic,
            reason=SuppressionReason.UNSUBSCRIBE,
        )
        return self._added(wish.scope, new).suppression.id

    async def suppress(self, ids: Collection[UUID]) -> None:
        self._raise_error()
        self.suppressed += ids

    async def read(self, token: str) -> Unsubscribe | None:
        self._raise_error()
        return self.wishes.get(token)

    def _added(self, scope: SuppressionScope, new: NewSuppression) -> AddedSuppression:
        for each in self.stored.values():
            if (self.scopes[each.id], each.channel, each.recipient, each.topic) == (
                scope,
                new.channel,
                new.recipient,
                new.topic,
            ):
                return AddedSuppression(each, is_new=False)
        stored = Suppression(
            id=uuid7(),
            channel=new.channel,
            recipient=new.recipient,
            topic=new.topic,
            reason=new.reason,
            note=new.note,
            notification=None,
            created_at=datetime.now(UTC),
            expires_at=new.expires_at,
        )
        self.stored[stored.id] = stored
        self.scopes[stored.id] = scope
        return AddedSuppression(stored, is_new=True)

    def _raise_error(self) -> None:
        if self.error is not None:
            raise self.error


def _matches(each: Suppression, selection: SuppressionFilter) -> bool:
    return all(
        not wanted or value in wanted
        for value, wanted in (
            (each.channel, selection.channel),
            (each.recipient, selection.recipient),
            (each.topic or "", selection.topic),
            (each.reason, selection.reason),
        )
    ) and (selection.before is None or each.id < selection.before)
