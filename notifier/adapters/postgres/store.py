"""What the core writes.

Each method is one statement or two, compare-and-set on (status, claim), so that everything may
be repeated.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from notifier.adapters.postgres.connection import (
    ConnectionSettings,
    PostgresConnection,
    open_connection,
)
from notifier.adapters.postgres.statements import statement
from notifier.domain.notification import Claimed, NotificationId, QueueKey, Status, WorkerId
from notifier.ports.broker import Pointer
from notifier.ports.store import ClaimRequest, GivenBack, NotClaimed, Orphan, Recorded, Waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
    from datetime import date
    from uuid import UUID

    from asyncpg import Connection, Record

    from notifier.domain.notification import NewNotification
    from notifier.ports.store import ClaimAnswer, OrphanDecision, Quota, Result

DUE_CEILING = 1000
MAX_SWEEP_ROWS = 5000
NOW = timedelta(0)
STATUSES = {status.value: status for status in Status}


IN_ORDER = {"enable_sort": "off", "enable_bitmapscan": "off"}
"""Take the first rows from the index, which has them in order. Statistics older than a surge say
that few wait: Postgres would read and sort all of them, each time."""
KEPT = {"plan_cache_mode": "force_generic_plan"}
"""Plan a statement once. Leaving out the other days while planning looks cheaper to Postgres, which
does not see that to plan over a month of days takes longer than the batch."""
PLANNERS = {"claim": KEPT, "record": KEPT, "relay": IN_ORDER | KEPT, "watch": IN_ORDER}


class StoreConnections(NamedTuple):
    """A connection per kind of batch."""

    accept: PostgresConnection
    claim: PostgresConnection
    record: PostgresConnection
    give_back: PostgresConnection
    relay: PostgresConnection
    watch: PostgresConnection


class PostgresStore:
    """The truth about every notification. Raises the errors of errors.py.

    `worker` is this run of this process: claims are in its name.
    """

    def __init__(self, worker: WorkerId, links: StoreConnections) -> None:
        self.worker = worker
        self._links = links

    async def insert(
        self, items: Sequence[NewNotification], *, taken: Collection[NotificationId] = ()
    ) -> Sequence[Pointer]:
        """Store all, due at once or at their time. Repeating it is harmless.

        Those of `taken` are stored as if a relay of this process had taken them: to be published
        are the pointers that come back.
        """
        ordered = sorted(items, key=lambda item: item.id)
        rows = await self._links.accept.fetch(
            statement("insert"),
            [item.id for item in ordered],
            [item.tenant for item in ordered],
            [str(item.queue) for item in ordered],
            [item.recipient for item in ordered],
            [item.content for item in ordered],
            [item.metadata for item in ordered],
            [item.max_tries for item in ordered],
            [item.delay or NOW for item in ordered],
            [item.ttl for item in ordered],
            [item.id in taken for item in ordered],
            self.worker,
        )
        now = rows[0]["now"]
        return [
            Pointer(queue=item.queue, id=item.id, claim=0, published_at=now)
            for item in ordered
            if item.id in taken
        ]

    async def claim(self, asks: Sequence[ClaimRequest]) -> Sequence[ClaimAnswer]:
        """Take for this worker what still stands at the claim asked for; one answer per ask.

        Of several asks for one id the first with the highest claim wins; the others get NotClaimed.
        """
        winner: dict[NotificationId, int] = {}
        for index, ask in enumerate(asks):
            best = winner.get(ask.id)
            if best is None or ask.claim > asks[best].claim:
                winner[ask.id] = index
        ids = sorted(winner)
        rows = await self._links.claim.fetch(
            statement("claim"),
            ids,
            [asks[winner[id_]].claim for id_ in ids],
            self.worker,
            ids[0],
            ids[-1],
        )
        answers: list[ClaimAnswer] = [NotClaimed()] * len(asks)
        for row in rows:
            answers[winner[row["id"]]] = _claim_answer(row)
        return answers

    async def record(self, results: Sequence[tuple[Result, float]]) -> Sequence[Recorded]:
        """Write what came of attempts, each with the seconds since it ended.

        A row that moved on meanwhile keeps its status, but for a late Accepted. Each result stands
        or falls alone, so what a lost answer left half done is completed by repeating all of it.
        """
        ids = [result.id for result, _ in results]
        async with self._links.record.use() as connection:
            rows = await connection.fetch(
                statement("record"), *_record_columns(results), self.worker, min(ids), max(ids)
            )
            moved = {(row["id"], row["claim"]): _recorded(row) for row in rows}
            answers = [moved.get((result.id, result.claim)) for result, _ in results]
            missing = [item for item, answer in zip(results, answers, strict=True) if not answer]
            late = await self._record_late(connection, missing) if missing else {}
        return [
            answer or late.get(result.id, Recorded(None, late=True, age_s=0.0))
            for (result, _), answer in zip(results, answers, strict=True)
        ]

    async def _record_late(
        self, connection: Connection[Record], results: Sequence[tuple[Result, float]]
    ) -> Mapping[UUID, Recorded]:
        rows = await connection.fetch(
            statement("record_late"), *_late_columns(results), self.worker
        )
        return {
            row["id"]: Recorded(
                Status(row["status"]) if row["status"] else None,
                late=row["late"],
                age_s=row["age_s"],
            )
            for row in rows
        }

    async def give_back(self, asks: Sequence[ClaimRequest]) -> Sequence[GivenBack]:
        """Make unspent pointers due again; the rows that moved.

        Of several copies of one pointer the one with the highest claim counts, and of these one
        that was asked for.
        """
        by_weight = sorted(asks, key=lambda ask: (ask.claim, not ask.is_buffered))
        highest = {ask.id: ask for ask in by_weight}
        ordered = sorted(highest.values(), key=lambda ask: ask.id)
        rows = await self._links.give_back.fetch(
            statement("give_back"),
            [ask.id for ask in ordered],
            [ask.claim for ask in ordered],
            self.worker,
            ordered[0].id,
            ordered[-1].id,
            [ask.is_buffered for ask in ordered],
        )
        return [
            GivenBack(QueueKey.parse(row["queue"]), Status(row["status"]), row["age_s"])
            for row in rows
        ]

    async def claimed_by_me(self) -> Sequence[ClaimRequest]:
        """What Postgres believes this worker sends, each at the claim before it: to give back."""
        rows = await self._links.give_back.fetch(statement("orphans"), self.worker)
        return [ClaimRequest(id=row["id"], claim=row["claim"] - 1) for row in rows]

    async def take_due(self, quotas: Sequence[Quota], most: int) -> Sequence[tuple[Pointer, bool]]:
        """Mark due rows as published, `most` in all, the first quotas first.

        Each comes with whether it is a retry, in the order of the quotas and then of waiting.
        """
        rows = await self._links.relay.fetch(
            statement("take_due"),
            [str(quota.queue) for quota in quotas],
            [quota.is_retry for quota in quotas],
            [quota.most for quota in quotas],
            most,
            self.worker,
        )
        place = {str(quota.queue): index for index, quota in enumerate(quotas)}
        rows.sort(key=lambda row: (place[row["queue"]], row["ready_at"]))
        return [(_pointer(row), row["is_retry"]) for row in rows]

    async def unpublish(self, pointers: Sequence[Pointer]) -> None:
        """Make due again what the broker did not confirm."""
        await self._links.relay.fetch(
            statement("unpublish"),
            [pointer.id for pointer in pointers],
            [pointer.claim for pointer in pointers],
            [pointer.published_at for pointer in pointers],
        )

    async def waiting(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Waiting]:
        """Due rows of each queue, counted to a ceiling of 1,000."""
        rows = await self._links.watch.fetch(
            statement("waiting"), [str(queue) for queue in queues], DUE_CEILING
        )
        return {
            QueueKey.parse(row["queue"]): Waiting(
                due=min(row["count"], DUE_CEILING),
                is_ceiling=row["count"] >= DUE_CEILING,
                oldest_wait=row["oldest"],
            )
            for row in rows
        }

    async def rescue(self, queue: QueueKey, published_before: float) -> int:
        """Make due again what was published before that instant and never arrived; at most 500."""
        async with self._links.watch.use() as connection:
            done = await connection.execute(statement("rescue"), str(queue), published_before)
        return int(done.rpartition(" ")[2])

    async def rescue_from(
        self, silent: Sequence[tuple[WorkerId, int]], queues: Sequence[QueueKey]
    ) -> Mapping[QueueKey, int]:
        """Make due again what dead processes took and may not have published; at most 500.

        Dead are those of `silent` (id, counter) whose counter has not moved since.
        """
        rows = await self._links.watch.fetch(
            statement("rescue_from"),
            [worker for worker, _ in silent],
            [beat for _, beat in silent],
            [str(queue) for queue in queues],
        )
        return Counter(QueueKey.parse(row["queue"]) for row in rows)

    async def claimed_by_dead(self, silent: Sequence[tuple[WorkerId, int]]) -> Sequence[Orphan]:
        """What dead processes were sending, at most 500.

        Dead are those without a heartbeat row, and those of `silent` (id, counter) whose counter
        has not moved since; never this one.
        """
        rows = await self._links.watch.fetch(
            statement("claimed_by_dead"),
            [worker for worker, _ in silent],
            [beat for _, beat in silent],
            self.worker,
        )
        return [_orphan(row) for row in rows]

    async def settle_orphans(
        self, deaths: Sequence[OrphanDecision], silent: Sequence[tuple[WorkerId, int]]
    ) -> Sequence[tuple[OrphanDecision, Status, float]]:
        """Write what follows for orphans whose process is dead still; the rows that moved.

        Each comes with its new status (expired if it would wait past its time) and its age.
        """
        by_id = {death.orphan.id: death for death in deaths}
        rows = await self._links.watch.fetch(
            statement("settle_orphans"),
            *_columns(_decision_row(death) for death in by_id.values()),
            self.worker,
            [worker for worker, _ in silent],
            [beat for _, beat in silent],
        )
        return [(by_id[row["id"]], Status(row["status"]), row["age_s"]) for row in rows]

    async def database_now(self) -> float:
        """Postgres's clock, in seconds since the epoch."""
        rows = await self._links.watch.fetch("SELECT extract(epoch FROM now())::float8 AS now")
        return float(rows[0]["now"])

    async def sweep(self) -> Sequence[tuple[QueueKey, float]]:
        """Expire waiting rows past their time: queue and age in seconds of each.

        At most 5,000 that are due, and as many that are published.
        """
        rows = await self._links.watch.fetch(statement("sweep"), MAX_SWEEP_ROWS)
        return [(QueueKey.parse(row["queue"]), row["age_s"]) for row in rows]

    async def ensure_days(self) -> int:
        """Make the partitions of the days to come; how many were made."""
        rows = await self._links.watch.fetch("SELECT ensure_days() AS made")
        return int(rows[0]["made"])

    async def days(self) -> Sequence[str]:
        """The days that have a partition, oldest first, as YYYYMMDD."""
        rows = await self._links.watch.fetch(statement("days"))
        return [row["day"] for row in rows]

    async def drop_day(self, day: date) -> str:
        """Drop a day all of whose rows are final: 'dropped', 'kept' or 'absent'."""
        rows = await self._links.watch.fetch("SELECT drop_day($1) AS what", day)
        return str(rows[0]["what"])

    async def forget_processes(self) -> None:
        """Remove the heartbeat rows of processes silent for two hours; a crash loop leaves many."""
        await self._links.watch.fetch(
            "DELETE FROM workers WHERE beat_at < now() - interval '2 hours'"
        )

    async def estimate_backlog(self) -> int:
        """Rows that wait for the relay, as the planner's statistics say: minutes old, no count."""
        rows = await self._links.watch.fetch(statement("backlog"))
        return int(rows[0]["waiting"])

    async def requeue_all(self) -> None:
        """For a broker that starts empty: make due again everything published and not claimed."""
        await self._links.watch.fetch(statement("requeue_all"))


def _claim_answer(row: Record) -> ClaimAnswer:
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
    )


def _orphan(row: Record) -> Orphan:
    return Orphan(
        id=row["id"],
        claim=row["claim"],
        worker=WorkerId(row["claimed_by"]),
        queue=QueueKey.parse(row["queue"]),
        tries=row["tries"],
        max_tries=row["max_tries"],
        deaths=row["deaths"],
    )


def _decision_row(death: OrphanDecision) -> tuple[object, ...]:
    orphan = death.orphan
    return orphan.id, orphan.claim, orphan.worker, death.provider, death.status, death.reason


def _recorded(row: Record) -> Recorded:
    return Recorded(STATUSES[row["status"]], late=False, age_s=row["age_s"])


def _record_columns(results: Sequence[tuple[Result, float]]) -> Sequence[Sequence[object]]:
    """The arrays of record.sql, $1 to $14."""
    return _columns(
        [
            (
                r.id,
                r.claim,
                r.status,
                int(r.spends),
                r.after.total_seconds() if r.after else 0.0,
                r.reason,
                r.outcome,
                r.provider,
                r.code,
                r.detail,
                r.reference,
                r.waited_s,
                r.finished_at_monotonic - r.started_at_monotonic,
                ago,
            )
            for r, ago in results
        ]
    )


def _late_columns(results: Sequence[tuple[Result, float]]) -> Sequence[Sequence[object]]:
    """The arrays of record_late.sql, $1 to $10."""
    columns = _record_columns(results)
    return [columns[index] for index in (0, 1, 6, 7, 8, 9, 10, 11, 12, 13)]


def _columns(rows: Iterable[tuple[object, ...]]) -> Sequence[Sequence[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


@asynccontextmanager
async def open_store(
    settings: ConnectionSettings, worker: WorkerId
) -> AsyncIterator[PostgresStore]:
    """The store, connecting when first used; closed at the end."""
    async with AsyncExitStack() as stack:
        links = {
            name: await stack.enter_async_context(open_connection(settings, PLANNERS.get(name, {})))
            for name in StoreConnections._fields
        }
        yield PostgresStore(worker, StoreConnections(**links))
