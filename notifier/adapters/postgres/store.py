"""What the core writes to Postgres about notifications.

A notification has a row in `live` while it waits or is being sent; that is the row meant here.
Every statement is compare-and-set on its claim and claimer, so every call may be repeated.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from msgspec.structs import replace

from notifier.adapters.postgres.connection import (
    NO_SESSION_SETTINGS,
    ConnectionSettings,
    PostgresConnection,
    open_connections,
)
from notifier.adapters.postgres.event_writing import WRITE_EVENTS, EventWriting
from notifier.adapters.postgres.inserting import (
    NotedTurns,
    Places,
    insert,
    insert_keyed,
    key_owner,
)
from notifier.adapters.postgres.lookups import (
    LookupKey,
    count_hash,
    reference_parts,
    store_late_references,
)
from notifier.adapters.postgres.queue_names import known_queue
from notifier.adapters.postgres.statements import statement, statement_with
from notifier.adapters.postgres.suppression_passes import PostgresSuppressionPasses
from notifier.adapters.postgres.suppressions import hashes_of, read_suppressed
from notifier.domain.controls import ScopeKind
from notifier.domain.due import Position
from notifier.domain.errors import StoreConflict, StoreRefused, StoreRejected
from notifier.domain.notification import Claimed, NotificationId, QueueKey, Status, WorkerId
from notifier.domain.tenants import TenantId, tenant_id
from notifier.ports.store import (
    NO_TURNS,
    ClaimRequest,
    DueQueues,
    DueRead,
    ExpiredRow,
    LiveRow,
    LostFound,
    NotClaimed,
    Parked,
    Recorded,
    SettledOrphan,
    UnconfiguredQueue,
    Waiting,
    Woken,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from datetime import date

    from asyncpg import Connection, Record

    from notifier.domain.holds import PauseParking
    from notifier.domain.notification import NewNotification
    from notifier.domain.recipient_caps import CappedRecipient
    from notifier.domain.suppressions import SuppressedOn
    from notifier.ports.broker import Pointer
    from notifier.ports.heartbeat import DeadProcess
    from notifier.ports.store import (
        AttemptResult,
        ClaimReply,
        DueRange,
        KeyedInsert,
        KeyOwner,
        OrphanDecision,
        ParkRequest,
        QueueTurn,
    )
    from notifier.ports.suppressions import Recipient

    TimedResults = Sequence[tuple[AttemptResult, float]]
    """Results, each with the seconds since its call ended."""

MAX_COUNTED_DUE: Final = 1000
MAX_SHOWN_DUE: Final = 10_000
"""How many rows of a class are counted for people: a few milliseconds."""
ROUNDING_S: Final = 1e-5
"""More than a number of seconds since the epoch is rounded by."""
MAX_SWEEP_ROWS: Final = 5000
MAX_PRUNED_ENTRIES: Final = 5000
MAX_WOKEN: Final = 1000
MAX_RETURNED_TURNS: Final = 5000
MAX_PRUNED_BLOBS: Final = 500
MAX_PRUNED_BYTES: Final = 64 * 1024 * 1024
MAX_COLLAPSED: Final = 1000
EXPIRED_KEY_DAYS: Final = 30
"""For how long people see which keys have expired."""
MAX_PRUNED_OF_TENANTS: Final = 10_000
MAX_PRUNED_KEYS: Final = 100_000
MAX_PRUNED_OPERATIONS: Final = 100_000
MAX_LOSS_CHECKED: Final = 10_000
MAX_LATE_WRITES: Final = 3
"""How often a late result is written while other processes change the row that it settles."""
_AS_NUMBER: Final = attrgetter("int")
"""Orders ids as UUID does, without a Python call per comparison."""
UNCLAIMED: Final = UUID(int=0)
"""`claimed_by` of a row that waits."""
STATUS_BY_NAME: Final[Mapping[str, Status]] = {status.value: status for status in Status}

# Read rows in the order of the index. Statistics from before a surge claim that few rows wait:
# Postgres would then read and sort all due rows for each batch.
_INDEX_ORDER: Final = {"enable_sort": "off", "enable_bitmapscan": "off"}
# Plan each statement once. A plan for given values skips the partitions of other days, which looks
# cheaper to Postgres; but planning over a month of partitions takes longer than the batch.
_PLAN_ONCE: Final = {"plan_cache_mode": "force_generic_plan"}
# Find the rows of a batch through the primary key, in the order of the ids: every statement then
# locks its rows in one order. Without statistics Postgres takes an array for a few elements and
# would compare each row with each of them.
_BY_KEY: Final = {
    "enable_bitmapscan": "off",
    "enable_nestloop": "off",
    "enable_mergejoin": "off",
}
_PLANNER_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "accept": _BY_KEY | _PLAN_ONCE,
        "claim": _BY_KEY | _PLAN_ONCE,
        "claim_urgent": _BY_KEY | _PLAN_ONCE,
        "record": _BY_KEY | _PLAN_ONCE,
        "give_back": _BY_KEY | _PLAN_ONCE,
        "relay": _INDEX_ORDER | _PLAN_ONCE,
        "look": _INDEX_ORDER | _PLAN_ONCE,
        "maintenance": _INDEX_ORDER,
    }
)


class StoreConnections(NamedTuple):
    """One connection for each kind of batch."""

    accept: PostgresConnection
    claim: PostgresConnection
    claim_urgent: PostgresConnection
    record: PostgresConnection
    give_back: PostgresConnection
    relay: PostgresConnection
    look: PostgresConnection
    maintenance: PostgresConnection


CONNECTIONS: Final = len(StoreConnections._fields)
"""How many connections `open_store` opens at most."""


class PostgresStore:
    """Implements all Protocols of ports.store, which hold the contracts.

    Of ports.suppressions it implements SuppressionReader and RecipientHashes. `worker` is the id of
    this process's run: it claims in this name. `keeps_references`: the provider's ids of messages
    get lookups.
    """

    def __init__(
        self,
        worker: WorkerId,
        connections: StoreConnections,
        *,
        keeps_references: bool = False,
        events: EventWriting = WRITE_EVENTS,
    ) -> None:
        self.worker = worker
        self._connections = connections
        self._keeps_references = keeps_references
        self._events = events
        self._lookup_key = LookupKey()
        self._noted_turns = NotedTurns()
        self.suppression_passes = PostgresSuppressionPasses(
            connections.maintenance, self._lookup_key, events
        )
        """Finds and ends what waits for suppressed recipients."""

    async def insert(
        self,
        items: Sequence[NewNotification],
        *,
        direct: Collection[NotificationId] = (),
        turns: Mapping[NotificationId, int] = NO_TURNS,
    ) -> Sequence[Pointer]:
        async with self._connections.accept.acquire() as connection:
            await self._noted_turns.note(connection, items, turns)
            places = Places(direct, turns)
            return await insert(connection, items, places, self._lookup_key, self._events)

    async def insert_keyed(
        self,
        items: Sequence[NewNotification],
        *,
        direct: Collection[NotificationId] = (),
        turns: Mapping[NotificationId, int] = NO_TURNS,
    ) -> KeyedInsert:
        async with self._connections.accept.acquire() as connection:
            await self._noted_turns.note(connection, items, turns)
            places = Places(direct, turns)
            return await insert_keyed(connection, items, places, self._lookup_key, self._events)

    async def has_suppressions(self) -> bool:
        # On a slow link it would be late behind maintenance: then every batch asks.
        rows = await self._connections.look.fetch(
            "SELECT EXISTS (SELECT FROM suppressions) AS has_any"
        )
        return bool(rows[0]["has_any"])

    async def suppressed(
        self, recipients: Collection[Recipient]
    ) -> Mapping[Recipient, Sequence[SuppressedOn]]:
        async with self._connections.accept.acquire() as connection:
            return await read_suppressed(connection, self._lookup_key, recipients)

    async def recipient_hashes(self, recipients: Collection[Recipient]) -> Mapping[Recipient, UUID]:
        async with self._connections.accept.acquire() as connection:
            hasher = await self._lookup_key.hasher(connection)
        return hashes_of(hasher, recipients)

    async def key_owner(self, digest: UUID) -> KeyOwner | None:
        async with self._connections.maintenance.acquire() as connection:
            return await key_owner(connection, digest)

    async def claim(
        self, requests: Sequence[ClaimRequest], *, pauses: Sequence[PauseParking] | None = None
    ) -> Sequence[ClaimReply]:
        return await self._claim(self._connections.claim, requests, pauses)

    async def claim_urgent(
        self, requests: Sequence[ClaimRequest], *, pauses: Sequence[PauseParking] | None = None
    ) -> Sequence[ClaimReply]:
        return await self._claim(self._connections.claim_urgent, requests, pauses)

    async def _claim(
        self,
        connection: PostgresConnection,
        requests: Sequence[ClaimRequest],
        pauses: Sequence[PauseParking] | None,
    ) -> Sequence[ClaimReply]:
        by_claim = sorted(enumerate(requests), key=lambda item: item[1].claim)
        winners = {request.id: index for index, request in by_claim}
        ids = list(winners)
        rows = await connection.fetch(
            statement("claim" if pauses is None else "claim_held"),
            ids,
            [requests[index].claim for index in winners.values()],
            self.worker,
            min(ids, key=_AS_NUMBER),
            max(ids, key=_AS_NUMBER),
            *(() if pauses is None else _pause_arrays(pauses)),
        )
        replies: list[ClaimReply] = [NotClaimed()] * len(requests)
        for row in rows:
            index = winners[row["id"]]
            if pauses is not None and row["is_parked"]:
                replies[index] = Parked()
            elif not row["content"]:
                replies[index] = await self._end_without_content(connection, row)
            else:
                replies[index] = _claimed(row) if pauses is None else _claimed_of(row)
        return replies

    async def _end_without_content(
        self, connection: PostgresConnection, claimed: Record
    ) -> NotClaimed:
        """End a claimed row without content: somebody has dropped its partition, or wiped it."""
        try:
            return await self._fail_as_poison(
                connection, claimed["id"], claimed["claim"], provider="", claimed_by=self.worker
            )
        except (StoreConflict, StoreRejected):
            # Raised, it would let the caller repeat the claim of rows that are claimed already.
            # There is nothing to send of this one: it may stay claimed.
            return NotClaimed()

    async def record(self, results: Sequence[tuple[AttemptResult, float]]) -> Sequence[Recorded]:
        sent, others = _split(results)
        async with self._connections.record.acquire() as connection:
            rows: list[Record] = []
            if sent:
                rows += await self._record_sent(connection, sent)
            if others:
                ids = [result.id for result, _ in others]
                values = (*_record_arrays(others), self.worker, min(ids), max(ids))
                rows += await connection.fetch(
                    self._events.statement("record", len(values)), *values
                )
            moved = {(row["id"], row["claim"]): _recorded(row) for row in rows}
            replies = [moved.get((result.id, result.claim)) for result, _ in results]
            missing = [item for item, reply in zip(results, replies, strict=True) if not reply]
            late = await self._record_late(connection, missing) if missing else {}
        return [
            reply or late.get(result.id, Recorded(None, late=True, age_s=0.0))
            for (result, _), reply in zip(results, replies, strict=True)
        ]

    async def _record_sent(
        self, connection: Connection[Record], sent: TimedResults
    ) -> Sequence[Record]:
        values = (*_sent_arrays(sent), self.worker)
        parts = self._events.parts("record_sent")
        if self._keeps_references:
            results = [result for result, _ in sent]
            parts = [*await reference_parts(connection, self._lookup_key, results), *parts]
        added = [value for part in parts for value in part.values]
        return await connection.fetch(
            statement_with("record_sent", len(values), parts), *values, *added
        )

    async def _record_late(
        self, connection: Connection[Record], results: Sequence[tuple[AttemptResult, float]]
    ) -> Mapping[UUID, Recorded]:
        # Two results of one attempt in a statement would be written to one row: SQLSTATE 21000.
        unsettled = {(result.id, result.claim): (result, ago) for result, ago in results}
        replies: dict[UUID, Recorded] = {}
        if self._keeps_references:
            await store_late_references(
                connection, self._lookup_key, [result for result, _ in results]
            )
        for _ in range(MAX_LATE_WRITES):
            values = (*_late_arrays(list(unsettled.values())), self.worker)
            rows = await connection.fetch(
                self._events.statement("record_late", len(values)), *values
            )
            replies |= {row["id"]: _recorded_late(row, replies.get(row["id"])) for row in rows}
            unsettled = {
                (row["id"], row["claim"]): unsettled[row["id"], row["claim"]]
                for row in rows
                if row["is_unsettled"]
            }
            if not unsettled:
                break
        return replies

    async def give_back(self, requests: Sequence[ClaimRequest]) -> Sequence[QueueKey]:
        by_weight = sorted(requests, key=lambda request: (request.claim, not request.is_buffered))
        highest = {request.id: request for request in by_weight}
        ordered = sorted(highest.values(), key=lambda request: request.id)
        rows = await self._connections.give_back.fetch(
            statement("give_back"),
            [request.id for request in ordered],
            [request.claim for request in ordered],
            self.worker,
            [request.is_buffered for request in ordered],
        )
        return [QueueKey.parse(row["queue"]) for row in rows]

    async def park(self, requests: Sequence[ParkRequest]) -> Sequence[QueueKey]:
        ordered = sorted(requests, key=lambda request: request.id)
        rows = await self._connections.give_back.fetch(
            statement("park"),
            [request.id for request in ordered],
            [request.claim for request in ordered],
            self.worker,
            [request.after_s for request in ordered],
        )
        return [QueueKey.parse(row["queue"]) for row in rows]

    async def wake(self) -> Woken:
        (row,) = await self._connections.maintenance.fetch(statement("wake"), MAX_WOKEN)
        return Woken(**row)

    async def fail_unclaimable(self, request: ClaimRequest, *, provider: str) -> NotClaimed:
        return await self._fail_as_poison(
            self._connections.claim,
            request.id,
            request.claim,
            provider=provider,
            claimed_by=UNCLAIMED,
        )

    async def _fail_as_poison(
        self,
        connection: PostgresConnection,
        id_: UUID,
        claim: int,
        *,
        provider: str,
        claimed_by: UUID,
    ) -> NotClaimed:
        rows = await connection.fetch(
            self._events.statement("fail_unclaimable", 4), id_, claim, provider, claimed_by
        )
        return NotClaimed(Status.FAILED, rows[0]["age_s"]) if rows else NotClaimed()

    async def read_due(self, ranges: Sequence[DueRange]) -> DueRead:
        return await self._read(self._connections.relay, ranges)

    async def find_due(self, floor_times: Mapping[QueueTurn, Sequence[float]]) -> DueQueues:
        by_class = zip(*floor_times.values(), strict=True)
        rows = await self._connections.relay.fetch(
            statement("find_due"),
            [str(queue) for queue, _ in floor_times],
            *([at - ROUNDING_S for at in times] for times in by_class),
            [turn for _, turn in floor_times],
        )
        queues = {QueueKey.parse(row["queue"]) for row in rows if row["queue"] is not None}
        return DueQueues(queues, datetime.fromtimestamp(rows[0]["now"], UTC))

    async def look(self, ranges: Sequence[DueRange]) -> DueRead:
        return await self._read(self._connections.look, ranges)

    async def _read(self, connection: PostgresConnection, ranges: Sequence[DueRange]) -> DueRead:
        rows = await connection.fetch(
            statement("read_due"),
            [str(range_.queue) for range_ in ranges],
            [range_.due_class for range_ in ranges],
            [range_.after.due_at for range_ in ranges],
            [range_.after.id for range_ in ranges],
            [range_.limit for range_ in ranges],
            [range_.until for range_ in ranges],
            [range_.due_for_s for range_ in ranges],
            [range_.turn for range_ in ranges],
        )
        now, oldest_running, next_transaction = rows[0][:3]
        return DueRead(
            rows=[] if rows[0]["range"] is None else [_live_row(row, ranges) for row in rows],
            now=datetime.fromtimestamp(now, UTC),
            oldest_running=oldest_running,
            next_transaction=next_transaction,
        )

    async def return_turns(self) -> Mapping[str, int]:
        rows = await self._connections.maintenance.fetch(
            statement("turns_return"), MAX_RETURNED_TURNS
        )
        return {row["queue"]: row["moved"] for row in rows}

    async def waiting(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        rows = await self._connections.maintenance.fetch(
            statement("waiting"), [str(queue) for queue in queues], MAX_COUNTED_DUE
        )
        return {
            QueueKey.parse(row["queue"]): Waiting(
                due=min(row["count"], MAX_COUNTED_DUE),
                is_ceiling=row["count"] >= MAX_COUNTED_DUE,
                oldest_wait=row["oldest"],
            )
            for row in rows
        }

    async def count_waiting(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        rows = await self._connections.maintenance.fetch(
            statement("count_waiting"), [str(queue) for queue in queues], MAX_SHOWN_DUE
        )
        return {
            QueueKey.parse(row["queue"]): Waiting(
                due=row["count"], is_ceiling=not row["is_exact"], oldest_wait=row["oldest"]
            )
            for row in rows
        }

    async def unconfigured(self, queues: Sequence[QueueKey]) -> Sequence[UnconfiguredQueue]:
        rows = await self._connections.maintenance.fetch(
            statement("unconfigured"), [str(queue) for queue in queues], MAX_COUNTED_DUE
        )
        return [UnconfiguredQueue(**row) for row in rows]

    async def deployment_id(self) -> str:
        try:
            (row,) = await self._connections.maintenance.fetch(statement("deployment"))
        except StoreRefused:  # not every role may read the cluster's identifier
            return ""
        return deployment_id(row["system_identifier"], row["database"])

    async def settle_orphans(
        self, decisions: Sequence[OrphanDecision], dead: Sequence[DeadProcess]
    ) -> Sequence[SettledOrphan]:
        by_id = {decision.orphan.id: decision for decision in decisions}
        values = (
            *_decision_arrays(list(by_id.values())),
            self.worker,
            [process.id for process in dead],
            [process.beat for process in dead],
        )
        rows = await self._connections.maintenance.fetch(
            self._events.statement("settle_orphans", len(values)), *values
        )
        return [
            SettledOrphan(by_id[row["id"]], Status(row["status"]), row["age_s"]) for row in rows
        ]

    async def database_now(self) -> float:
        rows = await self._connections.maintenance.fetch(
            "SELECT extract(epoch FROM now())::float8 AS now"
        )
        return float(rows[0]["now"])

    async def find_expired(self) -> Sequence[NotificationId]:
        rows = await self._connections.maintenance.fetch(statement("find_expired"), MAX_SWEEP_ROWS)
        return [row["id"] for row in rows]

    async def sweep(self, ids: Sequence[NotificationId]) -> Sequence[ExpiredRow]:
        rows = await self._connections.maintenance.fetch(self._events.statement("sweep", 1), ids)
        return [ExpiredRow(row["id"], known_queue(row["queue"]), row["age_s"]) for row in rows]

    async def find_lost(self) -> LostFound:
        (row,) = await self._connections.maintenance.fetch(statement("find_lost"), MAX_LOSS_CHECKED)
        return LostFound(**row)

    async def ensure_days(self) -> int:
        rows = await self._connections.maintenance.fetch("SELECT ensure_days() AS created")
        return int(rows[0]["created"])

    async def days(self) -> Sequence[str]:
        rows = await self._connections.maintenance.fetch(statement("partition_days"))
        return [row["day"] for row in rows]

    async def drop_day(self, day: date) -> str:
        rows = await self._connections.maintenance.fetch("SELECT drop_day($1) AS outcome", day)
        return str(rows[0]["outcome"])

    async def prune_blobs(self, oldest: date) -> int:
        rows = await self._connections.maintenance.fetch(
            statement("blobs_prune"), oldest, MAX_PRUNED_BLOBS, MAX_PRUNED_BYTES
        )
        return len(rows)

    async def drop_keys(self, keep_days: int) -> int:
        rows = await self._connections.maintenance.fetch("SELECT drop_keys($1) AS days", keep_days)
        return int(rows[0]["days"])

    async def note_lost(self, dead: Sequence[DeadProcess]) -> Sequence[WorkerId]:
        rows = await self._connections.maintenance.fetch(
            statement("workers_lost"),
            [process.id for process in dead],
            [process.beat for process in dead],
        )
        return [row["id"] for row in rows]

    async def drop_events(self, keep_days: int) -> int:
        rows = await self._connections.maintenance.fetch(
            "SELECT drop_events($1) AS days", keep_days
        )
        return int(rows[0]["days"])

    async def prune_inbox(self) -> int:
        rows = await self._connections.maintenance.fetch(
            statement("inbox_prune"), MAX_PRUNED_ENTRIES
        )
        return len(rows)

    async def prune_keys(self) -> None:
        await self._connections.maintenance.fetch(statement("keys_prune"), EXPIRED_KEY_DAYS)

    async def prune_tenants(self, oldest: date) -> None:
        await self._connections.maintenance.fetch(
            statement("tenants_prune"), oldest, MAX_PRUNED_OF_TENANTS
        )

    async def prune_operations(self, oldest: date) -> None:
        await self._connections.maintenance.fetch(
            statement("operations_prune"), oldest, MAX_PRUNED_OPERATIONS
        )

    async def forget_processes(self) -> None:
        await self._connections.maintenance.fetch(
            "DELETE FROM workers WHERE beat_at < now() - interval '2 hours'"
        )

    async def prune_audit(self, retention: timedelta) -> None:
        await self._connections.maintenance.fetch(
            statement("audit_prune"), retention.days, MAX_PRUNED_ENTRIES
        )

    async def collapse(
        self, newer: Collection[NotificationId] | None = None
    ) -> Sequence[ExpiredRow]:
        connection = self._connections.maintenance if newer is None else self._connections.accept
        ids = None if newer is None else list(newer)
        rows = await connection.fetch(self._events.statement("collapse", 2), ids, MAX_COLLAPSED)
        return [ExpiredRow(row["id"], known_queue(row["queue"]), row["age_s"]) for row in rows]

    async def recipient_counts(
        self, recipients: Collection[CappedRecipient]
    ) -> Mapping[CappedRecipient, int]:
        async with self._connections.accept.acquire() as connection:
            hasher = await self._lookup_key.hasher(connection)
            by_hash = {count_hash(hasher, each): each for each in recipients}
            rows = await connection.fetch(statement("recipient_counts"), list(by_hash))
        return {by_hash[row["hash"]]: row["count"] for row in rows}

    async def prune_recipient_counts(self) -> None:
        await self._connections.maintenance.fetch(
            statement("prune_recipient_counts"), MAX_PRUNED_KEYS
        )

    async def prune_collapse_keys(self, retention: timedelta) -> None:
        await self._connections.maintenance.fetch(
            statement("prune_collapse_keys"), retention.days, MAX_PRUNED_KEYS
        )

    async def prune_fallbacks(self, retention: timedelta) -> None:
        await self._connections.maintenance.fetch(
            statement("fallbacks_prune"), retention.days, MAX_PRUNED_KEYS
        )

    async def prune_suppressions(self, retention: timedelta) -> None:
        await self._connections.maintenance.fetch(
            statement("prune_suppressions"), retention.days, MAX_PRUNED_KEYS
        )

    async def estimate_backlog(self) -> int:
        rows = await self._connections.maintenance.fetch(statement("estimate_backlog"))
        return int(rows[0]["waiting"])


def deployment_id(system_identifier: int, database: int) -> str:
    """Return the id of the deployment that uses a database of a Postgres cluster."""
    return sha256(f"{system_identifier}/{database}".encode()).hexdigest()[:16]


def _claimed(row: Record) -> Claimed:
    return Claimed(
        id=row["id"],
        claim=row["claim"],
        queue=QueueKey.parse(row["queue"]),
        recipient=row["recipient"],
        content=row["content"],
        tries=row["tries"],
        deferrals=row["deferrals"],
        unspent=row["unspent"],
        ambiguous=row["ambiguous"],
        max_tries=row["max_tries"] or None,
        waited_s=row["waited_s"],
    )


def _claimed_of(row: Record) -> Claimed:
    return replace(_claimed(row), tenant=TenantId(row["tenant"]))


def _pause_arrays(pauses: Sequence[PauseParking]) -> Sequence[Sequence[object]]:
    """Return the arrays $6 to $10 of claim_held.sql."""
    tenants = [pause for pause in pauses if pause.scope.kind is ScopeKind.TENANT]
    tags = [pause for pause in pauses if pause.scope.kind is ScopeKind.TAG]
    return [
        [tenant_id(pause.scope.name) for pause in tenants],
        [pause.scope.name for pause in tenants],
        [pause.after_s for pause in tenants],
        [pause.scope.name for pause in tags],
        [pause.after_s for pause in tags],
    ]


def _live_row(row: Record, ranges: Sequence[DueRange]) -> LiveRow:
    _, _, _, number, id_, due_at, claim, claimed_by, is_expired, size, deaths = row
    queue, due_class, _, _, _, _, turn = ranges[number - 1]
    position = Position(due_at, id_)
    return LiveRow(queue, due_class, position, claim, claimed_by, is_expired, size, deaths, turn)


def _split(results: TimedResults) -> tuple[TimedResults, TimedResults]:
    """Return the results of accepted attempts, and the others."""
    status = Status.SENT  # read once: on Python 3.11 that is as slow as a call
    sent = [item for item in results if item[0].status is status]
    if len(sent) == len(results):
        return sent, []
    return sent, [item for item in results if item[0].status is not status]


def _recorded(row: Record) -> Recorded:
    return Recorded(STATUS_BY_NAME[row["status"]], late=False, age_s=row["age_s"])


def _recorded_late(row: Record, before: Recorded | None) -> Recorded:
    """What a late result did; `before` is what an earlier write of it did."""
    return Recorded(
        Status(row["status"]) if row["status"] else None,
        late=row["late"] or (before is not None and before.late),
        age_s=row["age_s"],
    )


def _sent_arrays(timed_results: TimedResults) -> Sequence[Sequence[object]]:
    """Return the arrays $1 to $10 of record_sent.sql, in its order."""
    provider, *answer, waited_s, took_s, ended_ago_s = _call_arrays(timed_results)
    # An accepted call seldom has all of these, and the driver needs long for each element.
    return (
        [result.id for result, _ in timed_results],
        [result.claim for result, _ in timed_results],
        provider,
        *(values if any(values) else [] for values in answer),
        waited_s,
        took_s,
        ended_ago_s,
    )


def _record_arrays(timed_results: TimedResults) -> Sequence[Sequence[object]]:
    """Return the arrays $1 to $15 of record.sql, in its order."""
    results = [result for result, _ in timed_results]
    return (
        [result.id for result in results],
        [result.claim for result in results],
        [result.status for result in results],
        [int(result.spends) for result in results],
        [result.after.total_seconds() if result.after else 0.0 for result in results],
        [result.reason for result in results],
        [result.outcome for result in results],
        *_call_arrays(timed_results),
    )


def _late_arrays(timed_results: TimedResults) -> Sequence[Sequence[object]]:
    """Return the arrays $1 to $11 of record_late.sql, in its order."""
    return (
        [result.id for result, _ in timed_results],
        [result.claim for result, _ in timed_results],
        [result.outcome for result, _ in timed_results],
        *_call_arrays(timed_results),
    )


def _call_arrays(timed_results: TimedResults) -> Sequence[Sequence[object]]:
    """Return the last eight arrays of the three statements that record: what a call resulted in."""
    results = [result for result, _ in timed_results]
    return (
        [result.provider for result in results],
        [result.code for result in results],
        [result.detail for result in results],
        [result.reference for result in results],
        [result.http_status for result in results],
        [result.waited_s for result in results],
        [result.finished_at_monotonic - result.started_at_monotonic for result in results],
        [ended_ago_s for _, ended_ago_s in timed_results],
    )


def _decision_arrays(decisions: Sequence[OrphanDecision]) -> Sequence[Sequence[object]]:
    """Return the arrays $1 to $6 of settle_orphans.sql, in its order."""
    return (
        [decision.orphan.id for decision in decisions],
        [decision.orphan.claim for decision in decisions],
        [decision.orphan.worker for decision in decisions],
        [decision.provider for decision in decisions],
        [decision.status for decision in decisions],
        [decision.reason for decision in decisions],
    )


@asynccontextmanager
async def open_store_connections(
    settings: ConnectionSettings,
) -> AsyncIterator[StoreConnections]:
    """The connections of a store, each with its planner settings; closed at the end."""
    planned = [
        _PLANNER_SETTINGS.get(name, NO_SESSION_SETTINGS) for name in StoreConnections._fields
    ]
    async with open_connections(settings, planned) as connections:
        yield StoreConnections(*connections)


@asynccontextmanager
async def open_store(
    settings: ConnectionSettings,
    worker: WorkerId,
    *,
    keeps_references: bool = False,
    events: EventWriting = WRITE_EVENTS,
) -> AsyncIterator[PostgresStore]:
    """A store whose connections connect at first use; closed at the end."""
    async with open_store_connections(settings) as connections:
        yield PostgresStore(worker, connections, keeps_references=keeps_references, events=events)
