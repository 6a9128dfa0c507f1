"""Receipts in Postgres: stored as they come, then given to their notifications."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

from uuid_utils.compat import uuid7

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connections,
)
from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.finding import SEARCH_SETTINGS
from notifier.adapters.postgres.lookups import LookupKey, recipient_lookup, reference_lookup
from notifier.adapters.postgres.queue_names import channel_of, mode_of
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.suppressions import announce_suppressions
from notifier.delivery.fallback_runner import HOLD_S
from notifier.domain.credentials import Mode
from notifier.domain.erasure import ERASED_TEXT, erased_recipient
from notifier.domain.lookups import ANY_SCOPE, LookupScope
from notifier.domain.receipts import (
    ReceiptEvent,
    ReceiptResult,
    Standing,
    UndeliveredReason,
    standing_of,
    suppression_reason,
)
from notifier.domain.recipients import recipient_identity
from notifier.domain.suppressions import SuppressionReason
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.receipts import MatchedReceipt, MatchingRules, ReceiptPass

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from asyncpg import Connection, Record

    from notifier.domain.lookups import LookupHasher
    from notifier.domain.receipts import NewReceipt

CONNECTIONS: Final = 2
"""How many connections `open_receipts` opens."""
RETRY_S: Final = 10.0
"""A receipt may come before the record of its own send: it is tried again so often."""
RETRY_SHARE: Final = 1 / 360
"""Of its age: a receipt that has waited for over an hour is tried again after this time."""
ORPHAN_AFTER_S: Final = 3600.0
"""A recipient is suppressed without the notification, if that is not found within this time."""


_WISHES: Final = frozenset({ReceiptEvent.COMPLAINED, ReceiptEvent.UNSUBSCRIBED})
"""Who wants no more on one channel gets no fallback on another."""
_KNOWN: Final = (list(ReceiptEvent), ["", *UndeliveredReason])
"""Events and reasons. Those of a later version are left to its processes."""


class PostgresReceiptStore:
    """Implements ports.receipts.ReceiptStore on a connection of its own.

    So a flood of receipts delays nothing else.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self._key = LookupKey()

    async def add(self, provider: str, receipts: Sequence[NewReceipt]) -> int:
        unique = list({each.key: each for each in reversed(receipts)}.values())
        if not unique:
            return 0
        async with self._connection.acquire() as connection:
            hasher = await self._key.hasher(connection)
            rows = await connection.fetch(
                statement("receipts_add"),
                provider,
                [each.key for each in unique],
                [hasher.digest(ANY_SCOPE, reference_lookup(each.reference)) for each in unique],
                [each.reference for each in unique],
                [each.event for each in unique],
                [each.undelivered_reason or "" for each in unique],
                [each.code for each in unique],
                [each.detail for each in unique],
                [each.recipient for each in unique],
                [each.provider_at for each in unique],
            )
        return len(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """A receipt that is due, with its notification if that is known."""

    row: Record
    event: ReceiptEvent
    reason: UndeliveredReason | None
    recipient: str | None
    """As the provider wrote it, None if it did not; "" if it was erased and is another one."""
    is_erased: bool = False
    """Whether the notification was erased meanwhile."""

    @classmethod
    def of(cls, row: Record, hasher: LookupHasher) -> _Due:
        reason, named, own = row["reason"], row["recipient"], row["own_recipient"]
        if named is not None and named.startswith(f"{ERASED_TEXT}:"):
            named = own if own and erased_recipient(hasher, own) == named else ""
        return cls(
            row=row,
            event=ReceiptEvent(row["event"]),
            reason=UndeliveredReason(reason) if reason else None,
            recipient=named,
        )

    @property
    def key(self) -> tuple[str, UUID]:
        """What no other receipt has."""
        return self.row["provider"], self.row["key"]

    @property
    def is_ready(self) -> bool:
        """Whether it can be kept: its notification is known.

        While that waits or is being sent it is not known what its status will be.
        """
        is_open = bool(self.row["is_live"]) and not self.is_late
        return self.row["id"] is not None and (not is_open or self.is_too_old)

    @property
    def is_too_old(self) -> bool:
        """Whether it has waited for as long as receipts are kept for."""
        return bool(self.row["is_given_up"])

    @property
    def is_late(self) -> bool:
        """Whether its notification was sent again since."""
        return bool(self.row["is_late"])

    @property
    def suppression(self) -> SuppressionReason | None:
        return None if self.recipient == "" else suppression_reason(self.event, self.reason)

    @property
    def standing(self) -> Standing | None:
        """What it says about the delivery to the notification's own recipient."""
        named = self.recipient
        if named == "":
            return None
        if named is not None and "@" in named:
            own = recipient_identity(self.row["own_recipient"])
            if recipient_identity(named) != own:  # of a copy of the mail
                return None
        return standing_of(self.event, self.row["provider_at"], self.reason, self.row["code"])

    @property
    def result(self) -> ReceiptResult:
        if self.row["id"] is None:
            return ReceiptResult.UNMATCHED
        return ReceiptResult.LATE if self.is_late else ReceiptResult.MATCHED

    @property
    def wait_s(self) -> float | None:
        """After how many seconds it is due again, None if it is done."""
        if self.is_ready or self.is_too_old:
            return None
        age_s: float = self.row["age_s"]
        return max(RETRY_S, RETRY_SHARE * age_s)


class PostgresReceiptMatching:
    """Implements ports.receipts.ReceiptMatching on a connection of its own."""

    def __init__(
        self, connection: PostgresConnection, rules: MatchingRules, events: EventWriting
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._events = events
        self._key = LookupKey()

    async def match(self, limit: int) -> ReceiptPass:
        async with self._connection.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                statement("receipts_take"),
                limit,
                self._rules.keep_unmatched_s,
                *_KNOWN,
            )
            if not rows:
                return ReceiptPass(0, (), ())
            hasher = await self._key.hasher(connection)
            due = [_Due.of(row, hasher) for row in rows]
            kept = await _keep(connection, [each for each in due if each.is_ready])
            changed = await _end(connection, kept, self._events)
            await _tell_fallbacks(connection, kept, changed)
            await _announce_complaints(connection, kept, self._events)
            suppressions = await self._suppress(connection, kept)
            orphans = [each for each in due if _is_orphan(each)]
            suppressions += await self._suppress_orphans(connection, orphans)
            await connection.fetch(
                statement("receipts_leave"),
                [each.row["provider"] for each in due],
                [each.row["key"] for each in due],
                [each.wait_s for each in due],
                [_is_orphan(each) for each in due],
            )
        return ReceiptPass(
            found=len(due),
            ended=[
                MatchedReceipt(each.row["provider"], each.event, each.result)
                for each in due
                if each.wait_s is None
            ],
            suppressions=suppressions,
        )

    async def put_off(self) -> None:
        await self._connection.fetch(statement("receipts_put_off"), RETRY_S, *_KNOWN)

    async def _suppress(self, connection: Connection[Record], kept: Sequence[_Due]) -> list[UUID]:
        """Suppress the recipients of whom receipts that were not kept before tell."""
        by_scope: defaultdict[LookupScope, list[_Due]] = defaultdict(list)
        for each in kept:
            if each.suppression is not None:
                by_scope[LookupScope(each.row["tenant"], mode_of(each.row))].append(each)
        added: list[UUID] = []
        for scope, found in sorted(by_scope.items()):
            entries = {
                (
                    recipient_identity(each.recipient or each.row["own_recipient"]),
                    channel_of(each.row),
                    _topic_of(each),
                ): each
                for each in reversed(found)
            }
            added += await self._add(connection, scope, entries)
        return added

    async def _suppress_orphans(
        self, connection: Connection[Record], orphans: Sequence[_Due]
    ) -> list[UUID]:
        """Suppress recipients whose notification is gone: it is unknown whose that was.

        So it is done for every tenant. With several tenants only the hash is stored, so that none
        of them learns of the recipients of others.
        """
        if not orphans:
            return []
        rows = await connection.fetch(statement("tenants_read"))
        tenants = sorted({DEFAULT_TENANT, *(row["name"] for row in rows)})
        entries = {
            (recipient_identity(each.row["recipient"]), channel, ""): each
            for each in orphans
            for channel in self._rules.channels.get(each.row["provider"], ())
        }
        added: list[UUID] = []
        for tenant in tenants:
            scope = LookupScope(tenant, Mode.LIVE)
            added += await self._add(connection, scope, entries, hides=len(tenants) > 1)
        return added

    async def _add(
        self,
        connection: Connection[Record],
        scope: LookupScope,
        entries: Mapping[tuple[str, str, str], _Due],
        *,
        hides: bool = False,
    ) -> list[UUID]:
        """Store suppressions. Their keys are recipient, channel and topic."""
        if not entries:
            return []
        hasher = await self._key.hasher(connection)
        rows = await connection.fetch(
            statement("suppressions_add"),
            scope.tenant,
            scope.mode,
            [uuid7() for _ in entries],
            [hasher.digest(scope, recipient_lookup(recipient)) for recipient, _, _ in entries],
            [channel for _, channel, _ in entries],
            [topic for _, _, topic in entries],
            [
                None if hides or each.is_erased else recipient
                for (recipient, _, _), each in entries.items()
            ],
            [each.suppression for each in entries.values()],
            ["" for _ in entries],
            [None for _ in entries],
            [None if each.is_erased else each.row["id"] for each in entries.values()],
        )
        await announce_suppressions(
            self._events, connection, TenantId(scope.tenant), Mode(scope.mode), rows
        )
        return [row["id"] for row in rows]


async def _keep(connection: Connection[Record], ready: Sequence[_Due]) -> Sequence[_Due]:
    """Keep receipts with their notifications; return those that were not kept before."""
    if not ready:
        return []
    ids = [each.row["id"] for each in ready]
    rows = await connection.fetch(
        statement("receipts_keep"),
        ids,
        *(
            [each.row[name] for each in ready]
            for name in (
                "claim",
                "provider",
                "key",
                "event",
                "reason",
                "code",
                "detail",
                "provider_at",
                "received_at",
            )
        ),
        min(ids),
        max(ids),
    )
    new = {(row["provider"], row["key"]): row["is_erased"] for row in rows}
    return [replace(each, is_erased=new[each.key]) for each in ready if each.key in new]


async def _end(
    connection: Connection[Record], kept: Sequence[_Due], events: EventWriting
) -> Sequence[UUID]:
    """Let the greatest receipt of each notification settle its status.

    A status that has changed is an event. Returns the notifications whose status has.
    """
    best: dict[UUID, tuple[Standing, _Due]] = {}
    for each in kept:
        standing, id_ = each.standing, each.row["id"]
        if standing is None or each.is_late:
            continue
        if id_ not in best or standing > best[id_][0]:
            best[id_] = standing, each
    if not best:
        return []
    least, greatest = min(best), max(best)
    before = await connection.fetch(statement("receipts_before"), list(best), least, greatest)
    statuses = {row["id"]: row["status"] for row in before}
    rows = await connection.fetch(
        statement("receipts_end"),
        list(best),
        [each.row["claim"] for _, each in best.values()],
        [standing.status for standing, _ in best.values()],
        [standing.reason for standing, _ in best.values()],
        [each.row["provider"] for _, each in best.values()],
        [standing.code for standing, _ in best.values()],
        ["" if each.is_erased else each.row["detail"] for _, each in best.values()],
        [standing.at for standing, _ in best.values()],
        least,
        greatest,
    )
    if not rows:
        return []
    ended = [row["id"] for row in rows]
    await connection.fetch(statement("receipts_end_undo"), ended, least, greatest)
    changed = [id_ for id_ in ended if best[id_][0].status != statuses.get(id_)]
    if changed:
        await connection.fetch(events.statement("receipts_ended", 3), changed, least, greatest)
    return changed


async def _tell_fallbacks(
    connection: Connection[Record], kept: Sequence[_Due], changed: Sequence[UUID]
) -> None:
    """Let fallbacks that wait for a receipt be looked at, and drop those that nobody wants."""
    unwanted = [each.row["id"] for each in kept if each.event in _WISHES and not each.is_late]
    if unwanted:
        await connection.execute(statement("fallbacks_drop"), unwanted)
    if changed:
        await connection.execute(statement("fallbacks_wake"), changed, HOLD_S)


async def _announce_complaints(
    connection: Connection[Record], kept: Sequence[_Due], events: EventWriting
) -> None:
    """Write an event for each notification whose first complaint this is."""
    new = Counter(
        (each.row["id"], each.row["claim"])
        for each in kept
        if each.event is ReceiptEvent.COMPLAINED and not each.is_late
    )
    if new:
        await connection.execute(statement("receipts_complained_lock"))
        ids, claims = zip(*new, strict=True)
        await connection.fetch(
            events.statement("receipts_complained", 5),
            ids,
            claims,
            list(new.values()),
            min(ids),
            max(ids),
        )


def _is_orphan(due: _Due) -> bool:
    """Whether a recipient must be suppressed although the notification is not known."""
    return (
        due.row["id"] is None
        and due.row["recipient"] is not None
        and not due.row["is_suppressed"]
        and due.suppression is not None
        and (due.row["age_s"] >= ORPHAN_AFTER_S or due.is_too_old)
    )


def _topic_of(due: _Due) -> str:
    """Return what is suppressed: "" for all topics."""
    return (due.row["topic"] or "") if due.event is ReceiptEvent.UNSUBSCRIBED else ""


@asynccontextmanager
async def open_receipts(
    settings: ConnectionSettings, rules: MatchingRules, *, events: EventWriting = WRITE_EVENTS
) -> AsyncIterator[tuple[PostgresReceiptStore, PostgresReceiptMatching]]:
    """Yield the store of receipts and their matching, on a connection each."""
    async with open_connections(settings, [{}, SEARCH_SETTINGS]) as (adding, matching):
        yield PostgresReceiptStore(adding), PostgresReceiptMatching(matching, rules, events)
