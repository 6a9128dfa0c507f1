"""Rows that may not be sent now are parked, on a real Postgres: by a pause or by quiet hours."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
from msgspec.structs import replace

from notifier.adapters.postgres.connection import ConnectionSettings, PostgresConnection
from notifier.adapters.postgres.controls import open_controls
from notifier.adapters.postgres.statements import statement
from notifier.delivery import claims
from notifier.domain.controls import Controls, Pause, Scope, ScopeKind
from notifier.domain.errors import StoreUnavailable
from notifier.domain.holds import MIN_PARKED_S, Holds, PauseParking
from notifier.domain.notification import Claimed, NewNotification, Status
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.ports.store import ClaimRequest, NotClaimed, Parked, ParkRequest
from notifier.recovery.waker import Waker
from tests.builders import EMAIL_HIGH, EMAIL_LOW, a_notification, claim_request, worker_id
from tests.live_rows import live_row
from tests.one_worker import NIL, REJECTED, open_worker, reject

if TYPE_CHECKING:
    from tests.live_rows import Connection

SHOP = Scope(ScopeKind.TENANT, "shop")
DEFAULT = Scope(ScopeKind.TENANT, "default")
SALE = Scope(ScopeKind.TAG, "sale")
OTHER = Scope(ScopeKind.TAG, "shop")


def paused(scope: Scope = SHOP, *, since_s: float = 0.0) -> Holds:
    pause = Pause(
        scope=scope,
        note="",
        age_s=since_s,
        paused_at=datetime.now(UTC) - timedelta(seconds=since_s),
        expires_at=None,
        expires_in_s=None,
    )
    return Holds.of(Controls(pauses=(pause,)))


def quiet_until(end: datetime) -> Holds:
    """Quiet hours that hold now and end at this minute."""
    until = end.astimezone(UTC).time().replace(second=0, microsecond=0)
    start = (end - timedelta(hours=23)).astimezone(UTC).time().replace(second=0, microsecond=0)
    return Holds(quiet_hours={DEFAULT_TENANT: QuietHours(start=start, end=until, time_zone="UTC")})


def quiet_for_hours() -> Holds:
    return quiet_until(datetime.now(UTC) + timedelta(hours=3))


async def of_tenant(connection: Connection, tenant: str, *items: NewNotification) -> None:
    await connection.execute(
        "UPDATE notifications SET tenant = $1 WHERE id = ANY ($2)",
        tenant,
        [item.id for item in items],
    )


async def due_in_s(connection: Connection, item: NewNotification) -> float:
    value = await connection.fetchval(
        "SELECT extract(epoch FROM due_at - now())::float8 FROM live WHERE id = $1", item.id
    )
    return float(value)


async def test_a_row_of_a_paused_tenant_is_parked_and_the_others_are_sent(
    database_url: str, connection: Connection
) -> None:
    async with open_worker(database_url) as worker:
        held, other = a_notification(max_tries=1), a_notification()
        pointers = await worker.hold(held, other)
        await of_tenant(connection, "shop", held)
        worker.holds.present = paused()
        for pointer in pointers:
            await worker.run(pointer.pointer)
        assert [call.id for call in worker.provider.calls] == [other.id]
        assert await worker.status(other) is Status.SENT
        view = await worker.view(held)
        assert (view.status, view.tries, view.attempts) == (Status.SCHEDULED, 0, ())
        assert MIN_PARKED_S - 5 < await due_in_s(connection, held) < 1.2 * MIN_PARKED_S
        assert worker.counted("parked") == 1
        assert worker.attempts.in_flight == set()


async def test_a_parked_row_is_sent_when_the_pause_has_ended(
    database_url: str, connection: Connection
) -> None:
    async with open_worker(database_url) as worker:
        [held] = await worker.hold(item := a_notification())
        worker.holds.present = paused(DEFAULT)
        await worker.run(held.pointer)
        assert await worker.due() == []
        await connection.execute("UPDATE live SET due_at = now() - interval '1 s'")
        worker.holds.present = Holds()
        assert await worker.run_until_final(item) is Status.SENT
        assert len(worker.provider.calls) == 1


async def test_quiet_hours_put_off_what_is_not_urgent_until_they_end(
    database_url: str, connection: Connection
) -> None:
    end = datetime.now(UTC) + timedelta(hours=3)
    async with open_worker(database_url) as worker:
        code, news = a_notification(EMAIL_HIGH), a_notification(EMAIL_LOW)
        worker.holds.present = quiet_until(end)
        for held in await worker.hold(code, news):
            await worker.run(held.pointer)
        assert await worker.status(code) is Status.SENT
        assert await worker.status(news) is Status.SCHEDULED
        expected_s = (end.replace(second=0, microsecond=0) - datetime.now(UTC)).total_seconds()
        assert expected_s - 5 < await due_in_s(connection, news) < expected_s + 65


async def test_the_time_zone_of_a_notification_decides(
    database_url: str, connection: Connection
) -> None:
    # Of two zones that are 12 hours apart one is always in the night.
    content = b'{"subject":"s","body":"b","time_zone":"%s"}'
    east = a_notification(EMAIL_LOW, content=content % b"Etc/GMT-6")
    west = a_notification(EMAIL_LOW, content=content % b"Etc/GMT+6")
    now_in_the_east = (datetime.now(UTC) + timedelta(hours=6)).time()
    is_day_in_the_east = time(6) <= now_in_the_east < time(18)
    by_day, by_night = (east, west) if is_day_in_the_east else (west, east)
    async with open_worker(database_url) as worker:
        worker.holds.present = Holds(
            quiet_hours={DEFAULT_TENANT: QuietHours(start=time(18), end=time(6), time_zone="UTC")}
        )
        for held in await worker.hold(east, west):
            await worker.run(held.pointer)
        assert await worker.status(by_day) is Status.SENT
        assert await worker.status(by_night) is Status.SCHEDULED


async def test_a_parked_row_whose_time_is_over_expires(
    database_url: str, connection: Connection
) -> None:
    async with open_worker(database_url) as worker:
        [held] = await worker.hold(item := a_notification(ttl=timedelta(minutes=1)))
        worker.holds.present = paused(DEFAULT, since_s=1000)
        await worker.run(held.pointer)
        await connection.execute("UPDATE live SET expires_at = now() - interval '1 s'")
        assert await worker.status(item) is Status.EXPIRED
        expired = await worker.store.sweep(await worker.store.find_expired())
        assert [row.id for row in expired] == [item.id]


class NotedStatements:
    """The texts of the statements of all connections, and their counts by their first words."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts = list[str]()
        self.counts = Counter[str]()
        fetch = PostgresConnection.fetch

        async def noted(
            connection: PostgresConnection, sql: str, *args: object
        ) -> list[asyncpg.Record]:
            self.texts.append(sql)
            comment = sql.split("\n", 1)[0].removeprefix("-- ")
            self.counts[" ".join(comment.split()[:2])] += 1
            return await fetch(connection, sql, *args)

        monkeypatch.setattr(PostgresConnection, "fetch", noted)


async def test_what_a_pause_holds_causes_one_statement_and_then_none(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        message = await worker.hold(*[a_notification() for _ in range(50)])
        worker.holds.present = paused(DEFAULT)
        statements = NotedStatements(monkeypatch)
        assert await worker.claim(*message) == []
        assert all(held.settled.is_set() for held in message)
        assert statements.counts == {"Claims rows": 1}
        assert worker.counted("parked") == 50
        for _ in range(20):  # what the relay of two seconds reads
            assert await worker.due() == []
        assert statements.counts == {"Claims rows": 1, "Reads rows": 20}


async def test_what_quiet_hours_put_off_causes_one_claim_and_one_write(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        message = await worker.hold(*[a_notification(EMAIL_LOW) for _ in range(50)])
        worker.holds.present = quiet_for_hours()
        statements = NotedStatements(monkeypatch)
        assert await worker.claim(*message) == []
        assert all(held.settled.is_set() for held in message)
        assert statements.counts == {"Claims rows": 1, "Parks rows": 1}


async def test_without_holds_the_claim_is_the_plain_statement(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        message = await worker.hold(a_notification())
        statements = NotedStatements(monkeypatch)
        [row] = await worker.claim(*message)
        assert statements.texts == [statement("claim")]
        await worker.attempts.attempt(row)


async def test_a_late_accepted_settles_a_parked_row(
    database_url: str, connection: Connection
) -> None:
    answered = asyncio.Event()
    async with open_worker(database_url, answered) as frozen, open_worker(database_url) as other:
        held, row = await frozen.claim_one(item := a_notification())
        async with asyncio.TaskGroup() as group:
            attempt = group.create_task(frozen.attempts.attempt(row))
            await frozen.provider.called.wait()
            # The others take it for dead and recover its row.
            await connection.execute(
                f"UPDATE live SET claimed_by = '{NIL}', class = 0, due_at = clock_timestamp()"
            )
            other.holds.present = paused(DEFAULT)
            for pointer in await other.due():
                await other.run(pointer)
            assert await other.status(item) is Status.SCHEDULED
            answered.set()
            await attempt
        await held.settled.wait()
        view = await other.view(item)
        assert view.status is Status.SENT
        assert [attempt.late for attempt in view.attempts] == [True]
        assert await live_row(connection, item.id) is None
        assert other.provider.calls == []


async def test_a_park_whose_answer_is_lost_is_written_once(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        [held] = await worker.hold(item := a_notification(EMAIL_LOW))
        worker.holds.present = quiet_for_hours()
        park, calls = worker.store.park, list[int]()

        async def park_and_lose_the_answer(requests: Sequence[ParkRequest]) -> object:
            rows = await park(requests)
            calls.append(len(rows))
            if len(calls) == 1:
                raise StoreUnavailable("the answer is lost")
            return rows

        monkeypatch.setattr(worker.store, "park", park_and_lose_the_answer)
        await worker.run(held.pointer)
        assert calls == [1, 0]
        assert await worker.status(item) is Status.SCHEDULED
        assert worker.attempts.in_flight == set()


async def test_a_worker_that_ends_while_it_parks_loses_no_row(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        message = await worker.hold(*(items := [a_notification(EMAIL_LOW) for _ in range(3)]))
        worker.holds.present = quiet_for_hours()
        began, may_end, park = asyncio.Event(), asyncio.Event(), worker.store.park

        async def park_later(requests: Sequence[ParkRequest]) -> object:
            began.set()
            await may_end.wait()
            return await park(requests)

        monkeypatch.setattr(worker.store, "park", park_later)
        async with asyncio.TaskGroup() as group:
            claiming = group.create_task(worker.claim(*message))
            await began.wait()
            claiming.cancel()
        assert not any(held.settled.is_set() for held in message)
        assert await worker.attempts.release_orphans() == 3
        may_end.set()  # the write that was under way finds nothing left to park
        assert {await worker.status(item) for item in items} == {Status.QUEUED}
        assert worker.attempts.in_flight == set()


async def test_rows_that_a_killed_worker_was_parking_are_recovered_as_orphans(
    database_url: str, connection: Connection
) -> None:
    """In quiet hours a row is claimed before it is parked: see "When a worker dies"."""
    async with open_worker(database_url) as dead, open_worker(database_url) as other:
        [held] = await dead.hold(item := a_notification())
        [row] = await dead.claim(held)  # and then it is killed
        await connection.execute(
            f"UPDATE live SET claimed_by = '{NIL}', class = 0, due_at = clock_timestamp(),"
            " deaths = deaths + 1"
        )
        other.holds.present = paused(DEFAULT)
        [pointer] = await other.due()
        await other.run(pointer)
        assert await other.status(item) is Status.SCHEDULED
        request = ParkRequest(id=row.claimed.id, claim=row.claimed.claim, after_s=9.0)
        assert await dead.store.park([request]) == []
        assert await due_in_s(connection, item) > MIN_PARKED_S - 5
        await dead.attempts.give_back([row])
        await connection.execute("UPDATE live SET due_at = now() - interval '1 s'")
        other.holds.present = Holds()
        assert await other.run_until_final(item) is Status.SENT


async def test_a_row_that_postgres_refuses_to_park_holds_up_no_other(
    database_url: str, connection: Connection
) -> None:
    async with open_worker(database_url) as worker:
        good, bad = a_notification(EMAIL_LOW), a_notification(EMAIL_LOW, max_tries=REJECTED)
        message = await worker.hold(good, bad)
        worker.holds.present = quiet_for_hours()
        await connection.execute(
            reject(
                "22003", "UPDATE", "live", f"NEW.class = 1 AND NEW.max_tries = {REJECTED}"
                f" AND NEW.claimed_by = '{NIL}'",
            )
        )  # fmt: skip
        assert await worker.claim(*message) == []
        assert all(held.settled.is_set() for held in message)
        assert await worker.status(good) is Status.SCHEDULED
        assert await worker.status(bad) is Status.SENDING
        assert await worker.attempts.release_orphans() == 1
        assert await worker.status(bad) is Status.QUEUED


async def test_a_row_that_postgres_refuses_to_claim_beside_a_pause_fails_alone(
    database_url: str, connection: Connection
) -> None:
    async with open_worker(database_url) as worker:
        good, bad = a_notification(), a_notification(max_tries=REJECTED)
        message = await worker.hold(good, bad)
        worker.holds.present = paused(DEFAULT)
        await connection.execute(
            reject("22003", "UPDATE", "live", f"NEW.max_tries = {REJECTED}")
        )  # fmt: skip
        assert await worker.claim(*message) == []
        assert all(held.settled.is_set() for held in message)
        assert await worker.status(good) is Status.SCHEDULED
        assert await worker.status(bad) is Status.FAILED
        assert worker.attempts.in_flight == set()


async def test_a_claim_that_parks_and_whose_answer_is_lost_has_parked_and_claims_nothing(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        held, free = a_notification(tag="sale"), a_notification()
        message = await worker.hold(held, free)
        worker.holds.present = paused(SALE)
        claim = worker.store.claim

        async def claim_and_lose_the_answer(
            requests: Sequence[ClaimRequest], *, pauses: Sequence[PauseParking] | None = None
        ) -> object:
            await claim(requests, pauses=pauses)
            raise StoreUnavailable("the answer is lost")

        with monkeypatch.context() as patched:
            patched.setattr(worker.store, "claim", claim_and_lose_the_answer)
            assert await worker.claim(*message) == []
        assert all(each.settled.is_set() for each in message)
        assert worker.attempts.in_flight == set()
        assert await worker.status(held) is Status.SCHEDULED
        assert await worker.status(free) is Status.QUEUED
        assert await connection.fetchval("SELECT array_agg(id) FROM parked") == [held.id]
        assert await worker.run_until_final(free) is Status.SENT
        worker.holds.present = Holds()
        assert await worker.store.wake() == (1, 1)
        assert await worker.run_until_final(held) is Status.SENT
        assert [call.id for call in worker.provider.calls] == [free.id, held.id]


async def test_a_copy_of_the_pointer_of_a_parked_row_claims_nothing(
    database_url: str, connection: Connection
) -> None:
    async with open_worker(database_url) as worker:
        [held] = await worker.hold(item := a_notification())
        worker.holds.present = paused(DEFAULT)
        await worker.run(held.pointer)
        row = await live_row(connection, item.id)
        for present in (paused(DEFAULT), Holds()):
            worker.holds.present = present
            await worker.run(held.pointer)
            assert await live_row(connection, item.id) == row
        assert worker.counted("parked") == 1
        assert worker.provider.calls == []


async def test_of_two_pauses_that_hold_a_row_the_longer_span_counts(
    database_url: str, connection: Connection
) -> None:
    async with open_worker(database_url) as worker:
        by_tag, by_tenant, expired = (a_notification(tag="sale") for _ in range(3))
        by_default, other, tagged = (a_notification(tag=tag) for tag in (None, None, "sale "))
        message = await worker.hold(by_tag, by_tenant, by_default, expired, other, tagged)
        requests = [claim_request(held.pointer) for held in message]
        await of_tenant(connection, "shop", by_tenant)
        await of_tenant(connection, "free", other, tagged)
        await connection.execute(
            "UPDATE live SET expires_at = now() - interval '1 s' WHERE id = $1", expired.id
        )
        spans = {SHOP: 900.0, DEFAULT: 120.0, SALE: 300.0, OTHER: 9.0}
        pauses = [PauseParking(scope, after_s) for scope, after_s in spans.items()]
        replies = await worker.store.claim(requests, pauses=pauses)
        assert replies[:4] == [Parked(), Parked(), Parked(), NotClaimed()]
        assert [reply.id for reply in replies if isinstance(reply, Claimed)] == [
            other.id,
            tagged.id,
        ]
        noted = await connection.fetch("SELECT id, kind, name FROM parked")
        assert {(row["id"], row["kind"], row["name"]) for row in noted} == {
            (by_tag.id, "tag", "sale"),
            (by_tenant.id, "tenant", "shop"),
            (by_default.id, "tenant", "default"),
        }
        for item, scope in ((by_tag, SALE), (by_tenant, SHOP), (by_default, DEFAULT)):
            assert spans[scope] - 60 < await due_in_s(connection, item) <= spans[scope]
        again = await worker.store.claim(requests, pauses=pauses)
        assert again == [NotClaimed()] * len(requests)


async def test_a_claim_beside_holds_returns_what_the_plain_claim_returns(
    database_url: str, connection: Connection
) -> None:
    async with open_worker(database_url) as worker:
        [held] = await worker.hold(item := a_notification(tag="sale", max_tries=5))
        await of_tenant(connection, "shop", item)
        await connection.execute(
            "UPDATE live SET tries = 1, deferrals = 2, unspent = 3, ambiguous = 4"
        )
        request = claim_request(held.pointer)
        [plain] = await worker.store.claim([request])
        await worker.store.give_back([request])
        later = replace(request, claim=request.claim + 1)
        for claim in (worker.store.claim, worker.store.claim_urgent):
            [beside] = await claim([later], pauses=[PauseParking(OTHER, 60.0)])
            assert isinstance(plain, Claimed)
            assert isinstance(beside, Claimed)
            assert beside.tenant == "shop"
            assert beside == replace(
                plain, claim=later.claim + 1, waited_s=beside.waited_s, tenant=beside.tenant
            )
            await worker.store.give_back([later])
            later = replace(later, claim=later.claim + 1)


async def test_claims_that_only_park_rest_and_others_do_not(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "REST", 1e9)
    monkeypatch.setattr(claims, "MAX_REST_S", 3600.0)
    async with open_worker(database_url) as worker:
        message = await worker.hold(*[a_notification(tag="sale") for _ in range(4)])
        [free] = await worker.hold(a_notification())
        worker.holds.present = paused(SALE)
        async with asyncio.timeout(30):
            assert await worker.claim(message[0], is_urgent=True) == []
            [row] = await worker.claim(message[1], free)
        async with asyncio.TaskGroup() as group:
            resting = group.create_task(worker.claim(*message[2:]))
            for held in message:
                await held.settled.wait()
            assert not resting.done()
            resting.cancel()
        assert {request.id for request in worker.attempts.in_flight} == {row.claimed.id}
        assert worker.counted("parked") == 4
        await worker.attempts.give_back([row])


async def test_what_a_pause_parked_is_due_when_it_ends_and_nothing_else_is(
    database_url: str, connection: Connection
) -> None:
    async with (
        open_worker(database_url) as worker,
        open_controls(ConnectionSettings(url=database_url), worker_id()) as controls,
    ):
        await controls.pause(SHOP, note="", for_s=None)
        await controls.pause(DEFAULT, note="", for_s=None)
        of_shop, of_default, by_night = (a_notification(EMAIL_LOW) for _ in range(3))
        later = a_notification(EMAIL_LOW, delay=timedelta(hours=1))
        await worker.accept(later)
        message = await worker.hold(of_shop, of_default)
        await of_tenant(connection, "shop", of_shop)
        for scope, held in zip((SHOP, DEFAULT), message, strict=True):
            worker.holds.present = paused(scope, since_s=10_000)
            await worker.run(held.pointer)
        [held] = await worker.hold(by_night)
        worker.holds.present = quiet_until(datetime.now(UTC) + timedelta(hours=2))
        await worker.run(held.pointer)
        worker.holds.present = Holds()

        assert await worker.store.wake() == (0, 0)
        assert await controls.resume(SHOP)
        assert await worker.store.wake() == (1, 1)
        assert [pointer.id for pointer in await worker.due()] == [of_shop.id]
        assert await worker.store.wake() == (0, 0)
        await connection.execute("UPDATE holds SET until = now() - interval '1 s'")
        assert await worker.store.wake() == (1, 1)
        assert [pointer.id for pointer in await worker.due()] == [of_default.id]


async def test_a_row_that_waits_for_a_retry_is_not_woken(
    database_url: str, connection: Connection
) -> None:
    async with open_worker(database_url) as worker:
        [held] = await worker.hold(item := a_notification())
        worker.holds.present = paused()
        await of_tenant(connection, "shop", item)
        await worker.run(held.pointer)
        await connection.execute("UPDATE live SET class = 2")
        assert await worker.store.wake() == (1, 0)
        assert await worker.due() == []
        assert await connection.fetchval("SELECT count(*) FROM parked") == 0


class EndedHold:
    has_ended_hold = False


async def test_the_waker_runs_when_a_pause_has_ended_and_once_a_minute(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, holds = [0.0], EndedHold()
    async with open_worker(database_url) as worker:
        statements = NotedStatements(monkeypatch)
        waker = Waker(store=worker.store, holds=holds, clock=lambda: now[0])
        await waker.run_once()
        for _ in range(59):
            now[0] += 1
            await waker.run_once()
        assert statements.counts.total() == 1
        holds.has_ended_hold = True
        await waker.run_once()
        assert statements.counts.total() == 2
        now[0] += 61
        await waker.run_once()
        assert statements.counts.total() == 3


async def test_a_pass_that_fails_is_repeated(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = EndedHold()
    async with open_worker(database_url) as worker:
        waker = Waker(store=worker.store, holds=holds, clock=lambda: 0.0)

        async def fail() -> object:
            raise StoreUnavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(worker.store, "wake", fail)
            await waker.run_once()
        assert holds.has_ended_hold
        await waker.run_once()
        assert not holds.has_ended_hold


async def test_pauses_of_tenants_and_quiet_hours_are_read_with_the_controls(
    database_url: str, connection: Connection
) -> None:
    async with open_controls(ConnectionSettings(url=database_url), worker_id()) as controls:
        stored = await controls.pause(SHOP, note="wrong price", for_s=600)
        assert (stored.scope, stored.note) == (SHOP, "wrong price")
        await connection.execute(
            "INSERT INTO quiet_hours VALUES ('shop', '21:00', '08:00', 'Europe/Berlin'),"
            " ('', '25:00', 'x', 'Europe/Berlin')"
        )
        read = await controls.read()
        assert [pause.scope for pause in read.pauses] == [SHOP]
        assert read.quiet_hours == {
            "shop": QuietHours(start=time(21), end=time(8), time_zone="Europe/Berlin")
        }
        again = await controls.pause(SHOP, note="still", for_s=None)
        assert (again.paused_at, again.expires_at) == (stored.paused_at, None)
        assert await controls.resume(SHOP)
        assert not await controls.resume(SHOP)
        await controls.pause(SHOP, note="", for_s=0.001)
        await connection.execute("SELECT pg_sleep(0.01)")
        assert not await controls.resume(SHOP)
        assert (await controls.read()).pauses == ()


async def test_what_has_a_paused_tag_is_parked_and_due_when_the_pause_ends(
    database_url: str,
) -> None:
    sale = Scope(ScopeKind.TAG, "sale/2026")
    async with (
        open_worker(database_url) as worker,
        open_controls(ConnectionSettings(url=database_url), worker_id()) as controls,
    ):
        tagged, plain = a_notification(tag="sale/2026"), a_notification(tag="sale")
        await controls.pause(sale, note="wrong price", for_s=None)
        worker.holds.present = Holds.of(await controls.read())
        for held in await worker.hold(tagged, plain):
            await worker.run(held.pointer)
        assert await worker.status(tagged) is Status.SCHEDULED
        assert await worker.status(plain) is Status.SENT
        assert await controls.resume(sale)
        worker.holds.present = Holds.of(await controls.read())
        assert await worker.store.wake() == (1, 1)
        assert await worker.run_until_final(tagged) is Status.SENT
