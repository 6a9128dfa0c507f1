"""What the core writes to Postgres about notifications.

Each method runs one statement to three. Every statement is compare-and-set on a row's status and
claim, so every call may be repeated.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from notifier.adapters.postgres.connection import (
    NO_PLANNER_SETTINGS,
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.domain.liveness import UNPUBLISHED_AFTER_BEAT_S, UNPUBLISHED_BEFORE_BEAT_S
from notifier.domain.notification import Claimed, NotificationId, QueueKey, Status, WorkerId
from notifier.ports.broker import Pointer
from notifier.ports.store import (
    ClaimRequest,
    DuePointer,
    ExpiredRow,
    GivenBack,
    NotClaimed,
    Orphan,
    Recorded,
    SettledOrphan,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from datetime import date
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.domain.notification import NewNotification
    from notifier.ports.heartbeat import DeadProcess
    from notifier.ports.store import AttemptResult, ClaimReply, OrphanDecision, Quota

    TimedResults = Sequence[tuple[AttemptResult, float]]
    """Results, each with the seconds since its call ended."""

MAX_COUNTED_DUE: Final = 1000
MAX_SWEEP_ROWS: Final = 5000
MAX_RECOVERED_ROWS: Final = 500
"""The LIMIT in rescue.sql, rescue_from.sql and claimed_by_dead.sql. It is a literal there: with a
parameter Postgres would plan for a tenth of the rows. A unit test compares them."""
NO_DELAY: Final = timedelta(0)
STATUS_BY_NAME: Final[Mapping[str, Status]] = {status.value: status for status in Status}

# Read rows in the order of the index. Statistics from before a surge claim that few rows wait:
# Postgres would then read and sort all due rows for each batch.
_INDEX_ORDER: Final = {"enable_sort": "off", "enable_bitmapscan": "off"}
# Plan each statement once. A plan for given values skips the partitions of other days, which looks
# cheaper to Postgres; but planning over a month of partitions takes longer than the batch.
_PLAN_ONCE: Final = {"plan_cache_mode": "force_generic_plan"}
_PLANNER_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "claim": _PLAN_ONCE,
        "claim_urgent": _PLAN_ONCE,
        "record": _PLAN_ONCE,
        "relay": _INDEX_ORDER | _PLAN_ONCE,
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
    maintenance: PostgresConnection


CONNECTIONS: Final = len(StoreConnections._fields)
"""How many connections `open_store` opens at most."""


class PostgresStore:
    """Implements all Protocols of ports.store, which hold the contracts.

    `worker` is the id of this process's run: it claims in this name.
    """

    def __init__(self, worker: WorkerId, connections: StoreConnections) -> None:
        self.worker = worker
        self._connections = connections

    async def insert(
        self, items: Sequence[NewNotification], *, published: Collection[NotificationId] = ()
    ) -> Sequence[Pointer]:
        ordered = sorted(items, key=lambda item: item.id)
        rows = await self._connections.accept.fetch(
            statement("insert"),
            [item.id for item in ordered],
            [str(item.queue) for item in ordered],
            [item.recipient for item in ordered],
            [item.content for item in ordered],
            [item.metadata for item in ordered],
            [item.max_tries for item in ordered],
            [item.delay or NO_DELAY for item in ordered],
            [item.ttl for item in ordered],
            [item.id in published for item in ordered],
            self.worker,
        )
        now = rows[0]["now"]
        return [
            Pointer(queue=item.queue, id=item.id, claim=0, published_at=now, size=len(item.content))
            for item in ordered
            if item.id in published
        ]

    async def claim(self, requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
        return await self._claim(self._connections.claim, requests)

    async def claim_urgent(self, requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
        return await self._claim(self._connections.claim_urgent, requests)

    async def _claim(
        self, connection: PostgresConnection, requests: Sequence[ClaimRequest]
    ) -> Sequence[ClaimReply]:
        winners: dict[NotificationId, int] = {}
        for index, request in enumerate(requests):
            winner = winners.get(request.id)
            if winner is None or request.claim > requests[winner].claim:
                winners[request.id] = index
        ids = sorted(winners)
        rows = await connection.fetch(
            statement("claim"),
            ids,
            [requests[winners[id_]].claim for id_ in ids],
            self.worker,
            ids[0],
            ids[-1],
        )
        replies: list[ClaimReply] = [NotClaimed()] * len(requests)
        for row in rows:
            replies[winners[row["id"]]] = _claim_reply(row)
        return replies

    async def record(self, results: Sequence[tuple[AttemptResult, float]]) -> Sequence[Recorded]:
        sent = [item for item in results if item[0].status is Status.SENT]
        others = [item for item in results if item[0].status is not Status.SENT]
        async with self._connections.record.acquire() as connection:
            rows: list[Record] = []
            if sent:
                ids = [result.id for result, _ in sent]
                rows += await connection.fetch(
                    statement("record_sent"), *_sent_arrays(sent), self.worker, min(ids), max(ids)
                )
            if others:
                ids = [result.id for result, _ in others]
                rows += await connection.fetch(
                    statement("record"), *_record_arrays(others), self.worker, min(ids), max(ids)
                )
            moved = {(row["id"], row["claim"]): _recorded(row) for row in rows}
            replies = [moved.get((result.id, result.claim)) for result, _ in results]
            missing = [item for item, reply in zip(results, replies, strict=True) if not reply]
            late = await self._record_late(connection, missing) if missing else {}
        return [
            reply or late.get(result.id, Recorded(None, late=True, age_s=0.0))
            for (result, _), reply in zip(results, replies, strict=True)
        ]

    async def _record_late(
        self, connection: Connection[Record], results: Sequence[tuple[AttemptResult, float]]
    ) -> Mapping[UUID, Recorded]:
        # Two results of one attempt in a statement would be written to one row: SQLSTATE 21000.
        distinct = {(result.id, result.claim): (result, ago) for result, ago in results}
        rows = await connection.fetch(
            statement("record_late"), *_late_arrays(list(distinct.values())), self.worker
        )
        return {
            row["id"]: Recorded(
                Status(row["status"]) if row["status"] else None,
                late=row["late"],
                age_s=row["age_s"],
            )
            for row in rows
        }

    async def give_back(self, requests: Sequence[ClaimRequest]) -> Sequence[GivenBack]:
        by_weight = sorted(requests, key=lambda request: (request.claim, not request.is_buffered))
        highest = {request.id: request for request in by_weight}
        ordered = sorted(highest.values(), key=lambda request: request.id)
        rows = await self._connections.give_back.fetch(
            statement("give_back"),
            [request.id for request in ordered],
            [request.claim for request in ordered],
            self.worker,
            ordered[0].id,
            ordered[-1].id,
            [request.is_buffered for request in ordered],
        )
        return [
            GivenBack(QueueKey.parse(row["queue"]), Status(row["status"]), row["age_s"])
            for row in rows
        ]

    async def fail_unclaimable(self, request: ClaimRequest, *, provider: str) -> NotClaimed:
        rows = await self._connections.claim.fetch(
            statement("fail_unclaimable"), request.id, request.claim, provider
        )
        return NotClaimed(Status.FAILED, rows[0]["age_s"]) if rows else NotClaimed()

    async def claimed_by_me(self) -> Sequence[ClaimRequest]:
        rows = await self._connections.give_back.fetch(statement("claimed_by_me"), self.worker)
        return [ClaimRequest(id=row["id"], claim=row["claim"] - 1) for row in rows]

    async def take_due(self, quotas: Sequence[Quota], limit: int) -> Sequence[DuePointer]:
        rows = await self._connections.relay.fetch(
            statement("take_due"),
            [str(quota.queue) for quota in quotas],
            [quota.is_retry for quota in quotas],
            [quota.limit for quota in quotas],
            limit,
            self.worker,
        )
        rank = {str(quota.queue): index for index, quota in enumerate(quotas)}
        rows.sort(key=lambda row: (rank[row["queue"]], row["ready_at"]))
        return [DuePointer(_pointer(row), row["is_retry"]) for row in rows]

    async def unpublish(self, pointers: Sequence[Pointer]) -> None:
        await self._connections.relay.fetch(
            statement("unpublish"),
            [pointer.id for pointer in pointers],
            [pointer.claim for pointer in pointers],
            [pointer.published_at for pointer in pointers],
        )

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

    async def rescue(self, queue: QueueKey, published_before: float) -> int:
        async with self._connections.maintenance.acquire() as connection:
            tag = await connection.execute(statement("rescue"), str(queue), published_before)
        return int(tag.rpartition(" ")[2])  # the command tag is "UPDATE <count>"

    async def rescue_from(
        self, dead: Sequence[DeadProcess], queues: Sequence[QueueKey]
    ) -> Mapping[QueueKey, int]:
        rows = await self._connections.maintenance.fetch(
            statement("rescue_from"),
            [process.id for process in dead],
            [process.beat for process in dead],
            [str(queue) for queue in queues],
            UNPUBLISHED_BEFORE_BEAT_S,
            UNPUBLISHED_AFTER_BEAT_S,
        )
        return Counter(QueueKey.parse(row["queue"]) for row in rows)

    async def claimed_by_dead(self, dead: Sequence[DeadProcess]) -> Sequence[Orphan]:
        rows = await self._connections.maintenance.fetch(
            statement("claimed_by_dead"),
            [process.id for process in dead],
            [process.beat for process in dead],
            self.worker,
        )
        return [_orphan(row) for row in rows]

    async def settle_orphans(
        self, decisions: Sequence[OrphanDecision], dead: Sequence[DeadProcess]
    ) -> Sequence[SettledOrphan]:
        by_id = {decision.orphan.id: decision for decision in decisions}
        rows = await self._connections.maintenance.fetch(
            statement("settle_orphans"),
            *_decision_arrays(list(by_id.values())),
            self.worker,
            [process.id for process in dead],
            [process.beat for process in dead],
        )
        return [
            SettledOrphan(by_id[row["id"]], Status(row["status"]), row["age_s"]) for row in rows
        ]

    async def database_now(self) -> float:
        rows = await self._connections.maintenance.fetch(
            "SELECT extract(epoch FROM now())::float8 AS now"
        )
        return float(rows[0]["now"])

    async def sweep(self) -> Sequence[ExpiredRow]:
        rows = await self._connections.maintenance.fetch(statement("sweep"), MAX_SWEEP_ROWS)
        return [ExpiredRow(QueueKey.parse(row["queue"]), row["age_s"]) for row in rows]

    async def ensure_days(self) -> int:
        rows = await self._connections.maintenance.fetch("SELECT ensure_days() AS created")
        return int(rows[0]["created"])

    async def days(self) -> Sequence[str]:
        rows = await self._connections.maintenance.fetch(statement("partition_days"))
        return [row["day"] for row in rows]

    async def drop_day(self, day: date) -> str:
        rows = await self._connections.maintenance.fetch("SELECT drop_day($1) AS outcome", day)
        return str(rows[0]["outcome"])

    async def forget_processes(self) -> None:
        await self._connections.maintenance.fetch(
            "DELETE FROM workers WHERE beat_at < now() - interval '2 hours'"
        )

    async def estimate_backlog(self) -> int:
        rows = await self._connections.maintenance.fetch(statement("estimate_backlog"))
        return int(rows[0]["waiting"])

    async def requeue_all(self) -> None:
        """Make due again every row that is published and not claimed: the broker starts empty."""
        await self._connections.maintenance.fetch(statement("requeue_all"))


def _claim_reply(row: Record) -> ClaimReply:
    if row["status"] != Status.SENDING:
        return NotClaimed(Status(row["status"]), row["age_s"])
    return Claimed(
        id=row["id"],
        claim=row["claim"],
        queue=QueueKey.parse(row["queue"]),
        recipient=row["recipient"],
        content=row["content"],
        tries=row["tries"],
        max_tries=row["max_tries"],
        waited_s=row["waited_s"],
    )


def _pointer(row: Record) -> Pointer:
    return Pointer(
        queue=QueueKey.parse(row["queue"]),
        id=row["id"],
        claim=row["claim"],
        published_at=row["published_at"],
        size=row["size"],
        deaths=row["deaths"],
    )


def _orphan(row: Record) -> Orphan:
    return Orphan(
        id=row["id"],
        claim=row["claim"],
        worker=WorkerId(row["claimed_by"]),
        queue=QueueKey.parse(row["queue"]),
        deaths=row["deaths"],
    )


def _recorded(row: Record) -> Recorded:
    return Recorded(STATUS_BY_NAME[row["status"]], late=False, age_s=row["age_s"])


def _sent_arrays(timed_results: TimedResults) -> Sequence[Sequence[object]]:
    """Return the arrays $1 to $9 of record_sent.sql, in its order."""
    return (
        [result.id for result, _ in timed_results],
        [result.claim for result, _ in timed_results],
        *_call_arrays(timed_results),
    )


def _record_arrays(timed_results: TimedResults) -> Sequence[Sequence[object]]:
    """Return the arrays $1 to $14 of record.sql, in its order."""
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
    """Return the arrays $1 to $10 of record_late.sql, in its order."""
    return (
        [result.id for result, _ in timed_results],
        [result.claim for result, _ in timed_results],
        [result.outcome for result, _ in timed_results],
        *_call_arrays(timed_results),
    )


def _call_arrays(timed_results: TimedResults) -> Sequence[Sequence[object]]:
    """Return the last seven arrays of the three statements that record: what a call resulted in."""
    results = [result for result, _ in timed_results]
    return (
        [result.provider for result in results],
        [result.code for result in results],
        [result.detail for result in results],
        [result.reference for result in results],
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
    async with AsyncExitStack() as stack:
        connections = {
            name: await stack.enter_async_context(
                open_connection(settings, _PLANNER_SETTINGS.get(name, NO_PLANNER_SETTINGS))
            )
            for name in StoreConnections._fields
        }
        yield StoreConnections(**connections)


@asynccontextmanager
async def open_store(
    settings: ConnectionSettings, worker: WorkerId
) -> AsyncIterator[PostgresStore]:
    """A store whose connections connect at first use; closed at the end."""
    async with open_store_connections(settings) as connections:
        yield PostgresStore(worker, connections)
