"""Statistics on a real Postgres: what the roll-ups say is what the tables say."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from msgspec.structs import replace

from harness.client import until
from notifier.adapters.postgres import stats as stats_module
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.stats import PostgresStats, open_stats
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.domain.credentials import Mode
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Status
from notifier.domain.stats import MAX_TAGS, OTHER, Dimension, Step, quantile
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.queries import View
from notifier.ports.stats import StatsPage, StatsRow, StatsSelection
from tests.builders import EMAIL_HIGH, EMAIL_LOW, SMS_HIGH, a_notification, a_result, worker_id
from tests.live_rows import (
    cancel_by,
    claim_all,
    claimed,
    decision,
    due,
    retry_by,
    sweep,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from asyncpg import Connection as Session
    from asyncpg import Record

    from notifier.domain.notification import Claimed, NewNotification, WorkerId
    from notifier.domain.stats import Change
    from notifier.ports.store import AttemptResult
    from tests.live_rows import Connection

SHOP: Final = TenantId("shop")
KEPT: Final = {Step.MINUTE: 3, Step.HOUR: 62, Step.DAY: 1095}
ROUNDS: Final = 150
SAID: Final = """
    SELECT tenant, is_test, queue, tag, sum(accepted) AS accepted, sum(sent) AS sent,
           sum(failed) AS failed, sum(refused) AS refused, sum(expired) AS expired,
           sum(cancelled) AS cancelled, sum(suppressed) AS suppressed
    FROM stats WHERE step = $1 GROUP BY 1, 2, 3, 4
"""
TRUE: Final = """
    SELECT n.tenant, n.test_channel <> '' AS is_test, n.queue, coalesce(n.tag, '') AS tag,
           count(*) AS accepted,
           count(*) FILTER (
               WHERE e.id IS NULL AND l.id IS NULL
                 AND EXISTS (SELECT FROM attempts a WHERE a.id = n.id AND a.outcome = 'accepted')
           ) AS sent,
           count(*) FILTER (WHERE e.status = 'failed') AS failed,
           count(*) FILTER (WHERE e.status = 'failed' AND e.reason = 'refused') AS refused,
           count(*) FILTER (WHERE e.status = 'expired') AS expired,
           count(*) FILTER (WHERE e.status = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE e.status = 'suppressed') AS suppressed
    FROM notifications n LEFT JOIN ends e ON e.id = n.id LEFT JOIN live l ON l.id = n.id
    GROUP BY 1, 2, 3, 4
"""


@dataclass
class World:
    """Two workers, two processes that count, and whoever reads."""

    connection: Connection
    url: str
    stores: Sequence[PostgresStore]
    workers: Sequence[WorkerId]
    stats: Sequence[PostgresStats]

    async def count(self, stats: PostgresStats | None = None, most: int = 100) -> int:
        """Count everything; returns the number of changes."""
        total = 0
        while True:
            # None: Postgres has not noticed yet that a process died which was counting.
            step = await until(
                lambda: (stats or self.stats[0]).step(most), lambda step: step.changes is not None
            )
            if not step.changes:
                return total
            total += step.changes

    async def said(self, step: Step = Step.DAY) -> set[tuple[object, ...]]:
        return {tuple(row) for row in await self.connection.fetch(SAID, step)}

    async def true(self) -> set[tuple[object, ...]]:
        return {tuple(row) for row in await self.connection.fetch(TRUE)}

    async def read(
        self, *by: Dimension, step: Step = Step.HOUR, view: View | None = None
    ) -> Sequence[StatsRow]:
        return (await self.page(*by, step=step, view=view)).rows

    async def page(
        self,
        *by: Dimension,
        step: Step = Step.HOUR,
        view: View | None = None,
        begin: datetime | None = None,
    ) -> StatsPage:
        now = datetime.now(UTC)
        return await self.stats[0].stats(
            StatsSelection(
                step=step,
                begin=begin or now - timedelta(days=2),
                end=now + timedelta(minutes=1),
                by=frozenset(by),
                view=view or View(DEFAULT_TENANT),
            )
        )

    async def refuse(self, *items: NewNotification) -> None:
        """Accept notifications and have them refused."""
        store = self.stores[0]
        rows = await claimed(store, *items)
        assert len(rows) == len(items)
        await store.record([refused(row) for row in rows])

    async def send(self, *items: NewNotification) -> None:
        """Accept notifications and send them."""
        await self.stores[0].record(
            [a_result(row) for row in await claimed(self.stores[0], *items)]
        )


def refused(row: Claimed) -> tuple[AttemptResult, float]:
    return a_result(row, Status.FAILED, outcome="refused", reason="refused", code="550")


@pytest.fixture
async def world(database_url: str, connection: Connection) -> AsyncIterator[World]:
    settings = ConnectionSettings(url=database_url)
    workers = [worker_id(), worker_id()]
    async with AsyncExitStack() as stack:
        yield World(
            connection=connection,
            url=database_url,
            stores=[await stack.enter_async_context(open_store(settings, w)) for w in workers],
            workers=workers,
            stats=[
                (await stack.enter_async_context(open_stats(settings, KEPT)))[0] for _ in range(2)
            ],
        )


class Story:
    """Accepts, sends, fails, retries, cancels and loses notifications at random."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._held: list[tuple[int, Claimed]] = []
        self._dead: list[tuple[int, Claimed]] = []

    async def run(self) -> None:
        for _ in range(ROUNDS):
            name = self._random.choice(
                ("accept", "claim", "record", "record", "cancel", "retry", "expire", "die", "late")
            )
            await getattr(self, f"_{name}")()

    async def _accept(self) -> None:
        reasons = (None, None, None, "manual")
        items = [
            replace(
                a_notification(
                    self._random.choice((EMAIL_HIGH, EMAIL_LOW, SMS_HIGH)),
                    tenant=self._random.choice((DEFAULT_TENANT, SHOP)),
                    tag=self._random.choice((None, "spring", "login")),
                    test_channel=self._random.choice(("", "", "email")),
                    ttl=self._random.choice((timedelta(hours=1), timedelta(milliseconds=1))),
                ),
                suppressed=self._random.choice(reasons),
            )
            for _ in range(self._random.randint(1, 8))
        ]
        await self._world.stores[0].insert(items)

    async def _claim(self) -> None:
        worker = self._random.randrange(2)
        pointers = await due(self._world.stores[worker])
        chosen = [each for each in pointers if self._random.random() < 0.7]
        self._held += [(worker, row) for row in await claim_all(self._world.stores[worker], chosen)]

    async def _record(self) -> None:
        self._random.shuffle(self._held)
        for worker, row in (self._held.pop() for _ in range(min(4, len(self._held)))):
            result = self._random.choice(
                (
                    a_result(row),
                    refused(row),
                    a_result(
                        row, Status.RETRYING, outcome="unavailable", code="451", after=timedelta(0)
                    ),
                )
            )
            await self._world.stores[worker].record([result])
            if self._random.random() < 0.3:
                await self._world.stores[worker].record([result])

    async def _cancel(self) -> None:
        ids = [row["id"] for row in await self._world.connection.fetch("SELECT id FROM live")]
        if ids:
            await cancel_by(self._world.connection, *self._random.sample(ids, min(2, len(ids))))

    async def _retry(self) -> None:
        ids = [row["id"] for row in await self._world.connection.fetch("SELECT id FROM ends")]
        if ids:
            await retry_by(self._world.connection, *self._random.sample(ids, min(3, len(ids))))

    async def _expire(self) -> None:
        await sweep(self._world.stores[0])

    async def _die(self) -> None:
        """A worker looks dead to the other one, and its results come late."""
        if not self._held:
            return
        worker, row = self._held.pop()
        status, reason = self._random.choice(
            ((Status.QUEUED, ""), (Status.FAILED, "ambiguous"), (Status.FAILED, "poison"))
        )
        orphan = decision(row, self._world.workers[worker], status, reason)
        await self._world.stores[1 - worker].settle_orphans([orphan], [])
        self._dead.append((worker, row))

    async def _late(self) -> None:
        if not self._dead:
            return
        worker, row = self._dead.pop(self._random.randrange(len(self._dead)))
        result = self._random.choice((a_result(row), refused(row)))
        await self._world.stores[worker].record([result])


@pytest.mark.parametrize("seed", range(4))
async def test_the_totals_of_a_day_are_what_the_tables_say_though_two_count_and_are_killed(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills, dice, add = 0, random.Random(seed), stats_module._add

    async def killed_sometimes(connection: Session[Record], changes: Sequence[Change]) -> None:
        nonlocal kills
        fate = dice.random()
        if fate < 0.2:
            kills += 1
            connection.terminate()
        await add(connection, changes)
        if fate > 0.8:
            kills += 1
            connection.terminate()

    async def count_again_and_again(stats: PostgresStats, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await stats.step(dice.randint(1, 5))
            except StoreUnavailable:
                continue
            await asyncio.sleep(0)

    monkeypatch.setattr(stats_module, "_add", killed_sometimes)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for stats in world.stats:
            group.create_task(count_again_and_again(stats, stop), name="count")
        await Story(world, seed).run()
        stop.set()
    monkeypatch.undo()
    await world.count()
    true = await world.true()
    assert await world.said() == true
    assert await world.said(Step.HOUR) == true
    assert await world.said(Step.MINUTE) == true
    totals = [sum(column) for column in zip(*(row[4:] for row in true), strict=True)]
    assert min(totals) > 0, "the story has something of everything"
    assert kills > 3


async def test_while_a_process_counts_no_other_one_does(world: World) -> None:
    await world.send(a_notification())
    async with world.connection.transaction():
        [lock] = await world.connection.fetch(statement("stats_lock"))
        assert lock["is_held"]
        step = await world.stats[0].step(100)
        assert step.changes is None
        assert step.behind_s > 0
    assert await world.count() == 2


async def test_a_change_whose_statement_commits_after_later_ones_is_counted(
    world: World, connection: Connection
) -> None:
    slow, fast = a_notification(), a_notification()
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO notifications (id, created_at, expires_at, queue, recipient, content,"
            " metadata) SELECT $1, now(), now() + interval '1 h', 'email.high', '', '', ''",
            slow.id,
        )
        await connection.execute(
            "INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, queue)"
            " SELECT $1, now(), now(), now(), now() + interval '1 h', 0, 1, 'email.high'",
            slow.id,
        )
        await world.stores[0].insert([fast])
        assert await world.count() == 1
    assert await world.count() == 1
    [row] = await world.read()
    assert row.accepted == 2


async def test_rows_are_told_apart_by_what_is_asked_for(world: World) -> None:
    await world.send(a_notification(tag="a"), a_notification(tag="b"), a_notification(SMS_HIGH))
    await world.refuse(a_notification(tag="a"))
    await world.count()
    [row] = await world.read()
    assert (row.queue, row.tag, row.provider) == (None, None, None)
    assert (row.accepted, row.sent, row.failed) == (4, 3, 1)
    by_queue = {row.queue: row.accepted for row in await world.read(Dimension.QUEUE)}
    assert by_queue == {"email.high": 3, "sms.high": 1}
    by_tag = {row.tag: (row.sent, row.failed) for row in await world.read(Dimension.TAG)}
    assert by_tag == {None: (1, 0), "a": (1, 1), "b": (1, 0)}
    by_provider = {
        row.provider: (row.accepted, row.sent) for row in await world.read(Dimension.PROVIDER)
    }
    assert by_provider == {None: (4, 0), "smtp": (0, 3)}
    every = await world.read(*Dimension)
    assert ("sms.high", None, "smtp", 1) in [
        (row.queue, row.tag, row.provider, row.sent) for row in every
    ]


async def test_a_tenant_sees_its_own_and_a_test_key_those_of_tests(world: World) -> None:
    await world.send(a_notification(tenant=SHOP), a_notification(test_channel="email"))
    await world.count()
    seen: Mapping[View, int] = {
        view: sum(row.accepted for row in await world.read(view=view))
        for view in (
            View(),
            View(SHOP),
            View(DEFAULT_TENANT),
            View(DEFAULT_TENANT, Mode.TEST),
            View(SHOP, Mode.TEST),
        )
    }
    assert list(seen.values()) == [1, 1, 0, 1, 0]


async def test_of_an_hour_two_hundred_tags_are_counted_by_themselves(world: World) -> None:
    tags = [f"t{number}" for number in range(MAX_TAGS + 5)]
    await world.stores[0].insert([a_notification(tag=tag) for tag in tags[:MAX_TAGS]])
    await world.count()
    await world.stores[0].insert([a_notification(tag=tag) for tag in tags])
    await world.stores[0].insert([a_notification(tag=tags[0], tenant=SHOP)])
    await world.count()
    counted: dict[str | None, int] = {}
    for row in await world.read(Dimension.TAG):  # an hour may have begun in between
        counted[row.tag] = counted.get(row.tag, 0) + row.accepted
    assert len(counted) == MAX_TAGS + 1
    assert (counted[tags[0]], counted[OTHER]) == (2, 5)
    assert [row.tag for row in await world.read(Dimension.TAG, view=View(SHOP))] == [tags[0]]


async def test_waits_and_calls_are_those_of_calls_that_were_made(world: World) -> None:
    store = world.stores[0]
    dead, *rows = await claimed(store, *(a_notification() for _ in range(11)))
    await store.record([a_result(row) for row in rows])
    orphan = decision(dead, world.workers[0], Status.FAILED, "ambiguous")
    assert await world.stores[1].settle_orphans([orphan], [])
    await world.count()
    [row] = await world.read()
    assert (sum(row.waits), sum(row.calls), row.sent, row.failed) == (10, 10, 10, 1)
    call_s = quantile(row.calls, 0.5)
    assert call_s is not None
    assert 0.008 < call_s < 0.012
    by_provider = await world.read(Dimension.PROVIDER, step=Step.DAY)
    assert [(row.provider, sum(row.calls)) for row in by_provider] == [(None, 0), ("smtp", 10)]


async def test_a_page_ends_between_steps_and_the_next_one_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Step.MINUTE.begin(datetime.now(UTC))
    for minute, count in enumerate((3, 1, 1, 5, 1)):
        for number in range(count):
            await world.connection.execute(
                "INSERT INTO stats SELECT 'minute', $1, '', false, 'email.high', $2, '',"
                " 1, 0, 0, 0, 0, 0, 0, 0, 0, '{1,2}', '{}'",
                now - timedelta(minutes=10 - minute),
                f"t{number}",
            )
    monkeypatch.setattr(stats_module, "MAX_ROWS", 3)
    begin: datetime | None = None
    pages: list[list[tuple[datetime, int, Sequence[int]]]] = []
    while True:
        page = await world.page(step=Step.MINUTE, begin=begin, view=View())
        pages.append([(row.at, row.accepted, row.waits) for row in page.rows])
        begin = page.next_begin
        if begin is None:
            break
    assert [[accepted for _, accepted, _ in page] for page in pages] == [[3], [1, 1], [5], [1]]
    assert pages[0] == [(now - timedelta(minutes=10), 3, [3, 6])]
    assert pages == [
        [(row.at, row.accepted, row.waits) for row in page.rows]
        for page in [await world.page(step=Step.MINUTE, begin=page[0][0]) for page in pages]
    ]


async def test_each_step_is_kept_for_its_time(world: World) -> None:
    await world.send(a_notification())
    await world.count()
    assert await world.stats[0].prune() == 0
    await world.connection.execute("UPDATE stats SET at = at - interval '4 days'")
    removed = await world.stats[0].prune()
    assert removed > 0
    steps = {row["step"] for row in await world.connection.fetch("SELECT step FROM stats")}
    assert steps == {"hour", "day"}
    await world.connection.execute("UPDATE stats SET at = at - interval '100 days'")
    await world.stats[0].prune()
    steps = {row["step"] for row in await world.connection.fetch("SELECT step FROM stats")}
    assert steps == {"day"}


async def test_changes_of_dropped_days_and_of_infinite_times_are_left_out(world: World) -> None:
    await world.connection.execute(
        "INSERT INTO stats_changes (minute, what, ids) VALUES ('-infinity', 'failed', $1),"
        " (now(), 'failed', $2), (now(), 'a later status', $2)",
        [a_notification().id],
        [a_notification().id],
    )
    assert await world.count() == 3
    assert await world.said() == set()


async def test_no_value_of_a_row_fails_the_statement_that_writes_it(world: World) -> None:
    for at in ("infinity", "-infinity", "4713-01-01 BC", "294276-12-31"):
        item, instant = a_notification(), f"'{at}'::timestamptz"
        await world.stores[0].insert([item])
        await world.connection.execute(
            "INSERT INTO live (id, created_at, due_at, ready_at, expires_at, size, class, queue)"
            f" VALUES ($1, {instant}, now(), now(), now(), 0, 1, '')",
            a_notification().id,
        )
        await world.connection.execute(
            "INSERT INTO attempts (id, claim, recorded_by, started_at, finished_at, queue_wait_s,"
            " provider, outcome, code, detail, reference)"
            f" SELECT $1, claim, $1, started_at, {instant}, 'NaN', '', '', '', '', ''"
            f" FROM unnest(ARRAY[now(), '-infinity', {instant}])"
            " WITH ORDINALITY AS t (started_at, claim)",
            item.id,
        )
        await world.connection.execute(
            "INSERT INTO ends (id, claim, status, queue, tries, first_at, at)"
            f" VALUES ($1, 0, 'expired', '', 0, {instant}, {instant})",
            item.id,
        )
        await world.connection.execute("UPDATE ends SET at = now() WHERE id = $1", item.id)
        await world.connection.execute("DELETE FROM ends WHERE id = $1", item.id)
    assert await world.count() > 0
