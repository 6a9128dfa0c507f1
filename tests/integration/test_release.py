"""What a worker gives back unspent, on a real Postgres: what it may not send, and its orphans."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from harness.tcp_proxy import open_proxy_for
from notifier.domain.notification import QueueKey, Status
from notifier.ports.store import ClaimRequest
from tests.builders import a_notification, claim_request
from tests.one_worker import NIL, REJECTED, Held, open_worker, reject, when_it_fails

REJECT_RETURNS = f"NEW.claimed_by = '{NIL}' AND NEW.max_tries = {REJECTED}"


async def test_claimed_rows_and_unclaimed_pointers_are_due_again_and_then_settled(
    database_url: str,
) -> None:
    async with open_worker(database_url) as worker:
        items = [a_notification() for _ in range(4)]
        message = await worker.hold(*items)
        rows = await worker.claim(*message[:2])
        await worker.attempts.give_back(rows, message[2:])
        assert all(held.settled.is_set() for held in message)
        assert worker.attempts.in_flight == set()
        views = [await worker.view(item) for item in items]
        assert {(view.status, view.tries, view.attempts) for view in views} == {
            (Status.QUEUED, 0, ())
        }
        assert worker.counted("released") == 4
        again = {pointer.id: pointer.claim for pointer in await worker.due()}
        assert again == {item.id: 1 for item in items}


async def test_nothing_is_settled_before_postgres_has_confirmed_the_return(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed, returned = asyncio.Event(), asyncio.Event()
    async with open_worker(database_url) as worker:
        give_back = worker.store.give_back

        async def give_back_later(requests: Sequence[ClaimRequest]) -> Sequence[QueueKey]:
            rows = await give_back(requests)
            returned.set()
            await confirmed.wait()
            return rows

        monkeypatch.setattr(worker.store, "give_back", give_back_later)
        message = await worker.hold(a_notification(), a_notification())
        rows = await worker.claim(message[0])
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.attempts.give_back(rows, message[1:]))
            await returned.wait()
            assert not any(held.settled.is_set() for held in message)
            assert claim_request(message[0].pointer) in worker.attempts.in_flight
            confirmed.set()
        assert all(held.settled.is_set() for held in message)


async def test_a_row_whose_time_is_over_is_given_back_and_left_to_the_sweeper(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with open_worker(database_url) as worker:
        held, row = await worker.claim_one(item := a_notification())
        await connection.execute("UPDATE live SET expires_at = now() - interval '1 s'")
        await worker.attempts.give_back([row])
        assert held.settled.is_set()
        assert await worker.status(item) is Status.EXPIRED
        assert worker.counted("finished") == 0
        assert worker.counted("released") == 1


async def test_giving_back_a_buffered_copy_does_not_affect_the_attempt_in_flight(
    database_url: str,
) -> None:
    """RabbitMQ reconnected and delivered the message again; then the lane had to shrink."""
    response = asyncio.Event()
    async with open_worker(database_url, response) as worker:
        held, row = await worker.claim_one(item := a_notification())
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.attempts.attempt(row))
            await worker.provider.called.wait()
            copy = Held(held.pointer)
            await worker.attempts.give_back([], [copy])
            assert copy.settled.is_set()
            assert await worker.due() == []
            assert claim_request(held.pointer) in worker.attempts.in_flight
            response.set()
        await held.settled.wait()
        assert await worker.status(item) is Status.SENT
        assert len(worker.provider.calls) == 1


async def test_a_cancelled_give_back_leaves_its_rows_to_the_release_of_orphans(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), reader_url=database_url) as worker,
    ):
        message = await worker.hold(*(a_notification() for _ in range(3)))
        rows = await worker.claim(*message[:2])
        proxy.cut()
        failed = when_it_fails(worker, "give_back", monkeypatch)
        async with asyncio.TaskGroup() as group:
            giving_back = group.create_task(worker.attempts.give_back(rows, message[2:]))
            await failed.wait()
            giving_back.cancel()
        assert not any(held.settled.is_set() for held in message)
        assert worker.attempts.in_flight == {row.request for row in rows}
        proxy.heal()
        assert await worker.attempts.release_orphans() == 2
        assert worker.attempts.in_flight == set()
        assert {pointer.id for pointer in await worker.due()} == {
            row.held.pointer.id for row in rows
        }


async def test_a_cancelled_give_back_is_not_repeated(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), reader_url=database_url) as worker,
    ):
        message = await worker.hold(*(a_notification() for _ in range(3)))
        proxy.cut()
        failed = when_it_fails(worker, "give_back", monkeypatch)
        async with asyncio.TaskGroup() as group:
            giving_back = group.create_task(worker.attempts.give_back([], message))
            await failed.wait()
            giving_back.cancel()
    # The block has ended, so nothing is written any more.


async def test_abandoned_rows_are_unsettled_orphans(database_url: str) -> None:
    async with open_worker(database_url) as worker:
        held, row = await worker.claim_one(item := a_notification())
        assert await worker.attempts.release_orphans() == 0
        worker.attempts.abandon([row])
        assert await worker.attempts.release_orphans() == 1
        assert not held.settled.is_set()
        assert await worker.status(item) is Status.QUEUED


@pytest.mark.parametrize("sqlstate", ["21000", "22003", "23514"])
async def test_a_row_that_postgres_refuses_to_take_back_harms_no_other(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], sqlstate: str
) -> None:
    await connection.execute(reject(sqlstate, "UPDATE", "live", REJECT_RETURNS))
    items = [a_notification(max_tries=REJECTED if n == 5 else None) for n in range(16)]
    async with open_worker(database_url) as worker:
        message = await worker.hold(*items)
        rows = await worker.claim(*message[:12])
        await worker.attempts.give_back(rows, message[12:])
        assert all(held.settled.is_set() for held in message)
        assert await worker.status(items[5]) is Status.SENDING
        assert await worker.attempts.release_orphans() == 0  # it is tried again each time
        assert len(await worker.due()) == 15
        await connection.execute("DROP TRIGGER reject ON live")
        assert await worker.attempts.release_orphans() == 1
        assert await worker.run_until_final(items[5]) is Status.SENT


async def test_orphans_are_given_back_and_rows_in_flight_are_not(database_url: str) -> None:
    hold = asyncio.Event()
    async with open_worker(database_url, hold) as worker:
        held, orphan = await worker.hold(a_notification(), a_notification())
        row, abandoned = await worker.claim(held, orphan)
        worker.attempts.abandon([abandoned])
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.attempts.attempt(row))
            await worker.provider.called.wait()
            assert await worker.attempts.release_orphans() == 1
            assert await worker.attempts.release_orphans() == 0
            assert await worker.status(orphan.pointer) is Status.QUEUED
            assert worker.attempts.in_flight == {row.request}
            hold.set()
        await held.settled.wait()
        assert [pointer.id for pointer in await worker.due()] == [orphan.pointer.id]


async def test_orphans_stay_orphans_until_postgres_has_confirmed_their_return(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), reader_url=database_url) as worker,
    ):
        _, row = await worker.claim_one(item := a_notification())
        worker.attempts.abandon([row])
        proxy.cut()
        failed = when_it_fails(worker, "give_back", monkeypatch)
        async with asyncio.TaskGroup() as group:
            releasing = group.create_task(worker.attempts.release_orphans())
            await failed.wait()
            releasing.cancel()
        assert worker.attempts.in_flight == {row.request}
        proxy.heal()
        assert await worker.attempts.release_orphans() == 1
        assert await worker.status(item) is Status.QUEUED


async def test_a_worker_without_orphans_asks_postgres_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unexpected(requests: Sequence[ClaimRequest]) -> Sequence[QueueKey]:
        raise AssertionError(requests)

    async with open_worker(database_url) as worker:
        monkeypatch.setattr(worker.store, "give_back", unexpected)
        assert await worker.attempts.release_orphans() == 0


async def test_a_stopping_worker_without_postgres_leaves_its_orphans(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.app.draining.LAST_RELEASE_TIMEOUT_S", 0.2)
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), reader_url=database_url) as worker,
    ):
        _, row = await worker.claim_one(a_notification())
        worker.attempts.abandon([row])
        proxy.cut()
    # The block has ended, so nothing is written any more.
