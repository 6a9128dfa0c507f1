"""Sends notifications and receives their receipts, on a real Postgres."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID, uuid4

import msgspec

from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import PostgresReader, open_reader
from notifier.adapters.postgres.receipts import (
    PostgresReceiptMatching,
    PostgresReceiptStore,
    open_receipts,
)
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.receipts import NewReceipt, ReceiptEvent, UndeliveredReason
from notifier.ports.receipts import MatchingRules
from tests.builders import a_notification, a_result, worker_id
from tests.live_rows import claim_new

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.domain.notification import Claimed, NewNotification, NotificationId
    from notifier.ports.receipts import MatchedReceipt
    from tests.live_rows import Connection

PROVIDER: Final = "smtp"
WEEK_S: Final = 604_800.0
BEGAN_AT: Final = datetime.now(UTC) - timedelta(hours=1)


def a_receipt(
    reference: str,
    event: ReceiptEvent = ReceiptEvent.DELIVERED,
    *,
    at_s: float | None = 0.0,
    key: UUID | None = None,
    recipient: str | None = None,
    reason: UndeliveredReason | None = None,
    code: str = "",
    detail: str = "",
) -> NewReceipt:
    """Return a receipt; `at_s` is the provider's time after BEGAN_AT, None for none."""
    return NewReceipt(
        key=key or uuid4(),
        event=event,
        reference=reference,
        provider_at=None if at_s is None else BEGAN_AT + timedelta(seconds=at_s),
        recipient=recipient,
        reason=reason,
        code=code,
        detail=detail,
    )


class Receiving(NamedTuple):
    """A worker's store, a reader, and what receives and matches receipts."""

    store: PostgresStore
    reader: PostgresReader
    receipts: PostgresReceiptStore
    matching: PostgresReceiptMatching

    async def accept(self, reference: str, item: NewNotification | None = None) -> NotificationId:
        """Store a notification and record that the provider took it; return its id."""
        item = item or a_notification()
        await self.store.insert([item])
        await self.record(await claim_new(self.store, item), reference)
        return item.id

    async def record(self, claimed: Claimed, reference: str) -> None:
        """Record that the provider accepted a claimed row."""
        result, age_s = a_result(claimed)
        await self.store.record([(msgspec.structs.replace(result, reference=reference), age_s)])

    async def receive(self, *receipts: NewReceipt) -> Sequence[MatchedReceipt]:
        """Store receipts and match what is due; return what is done."""
        await self.receipts.add(PROVIDER, receipts)
        return await self.match()

    async def match(self, limit: int = 500) -> list[MatchedReceipt]:
        """Match what is due; return what is done."""
        ended: list[MatchedReceipt] = []
        while True:
            step = await self.matching.match(limit)
            ended += step.ended
            if step.found < limit:
                return ended

    async def status(self, id_: NotificationId) -> str:
        """Return the status of a notification."""
        view = await self.reader.get(id_)
        assert view is not None
        return view.status


@asynccontextmanager
async def receiving(
    url: str,
    *,
    keep_unmatched_s: float = WEEK_S,
    channels: Sequence[str] = ("email",),
) -> AsyncIterator[Receiving]:
    """Open all that receives receipts on a database."""
    settings = ConnectionSettings(url=url)
    rules = MatchingRules(keep_unmatched_s=keep_unmatched_s, channels={PROVIDER: channels})
    async with (
        open_store(settings, worker_id(), keeps_references=True) as store,
        open_reader(settings) as reader,
        open_receipts(settings, rules) as (receipts, matching),
    ):
        yield Receiving(store, reader, receipts, matching)


async def all_due(connection: Connection) -> None:
    """Let all receipts without a notification be due again."""
    await connection.execute("UPDATE receipts_unmatched SET next_at = now()")
