"""Claims of whole messages, on a real Postgres: which rows are sent here, which are settled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest
from structlog.testing import capture_logs

from harness.tcp_proxy import open_proxy_for
from notifier.domain.errors import StoreConflict, StoreRejected, StoreUnavailable
from notifier.domain.notification import QueueKey, Status
from notifier.ports.store import ClaimReply, ClaimRequest, NotClaimed
from tests.builders import EMAIL_LOW, a_notification, claim_request
from tests.one_worker import NIL, REJECTED, Held, Worker, open_worker, reject

REJECT_CLAIMS = f"NEW.claimed_by <> '{NIL}' AND NEW.max_tries = {REJECTED}"


def lose_replies(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, *, claimed: Held, unclaimed: Held | None = None
) -> None:
    """Lose the reply of each claim that contains `claimed`; `unclaimed` stays queued in it."""
    claim = worker.store.claim

    async def lossy(requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
        skipped = unclaimed and claim_request(unclaimed.pointer)
        replies = await claim([request for request in requests if request != skipped])
        if claim_request(claimed.pointer) in requests:
            raise StoreUnavailable("reply lost")
        return replies

    monkeypatch.setattr(worker.store, "claim", lossy)


async def test_the_rows_of_a_message_are_claimed_in_one_statement(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        claim, sizes = worker.store.claim, list[int]()

        async def counted(requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
            sizes.append(len(requests))
            return await claim(requests)

        monkeypatch.setattr(worker.store, "claim", counted)
        message = await worker.hold(*(a_notification() for _ in range(64)))
        rows = await worker.claim(*message)
        assert sizes == [64]
        assert [row.held for row in rows] == message
        assert {row.claimed.claim for row in rows} == {1}
        assert all(claim_request(held.pointer) in worker.attempts.in_flight for held in message)
        assert not any(held.settled.is_set() for held in message)
        await worker.attempts.give_back(rows)


async def test_a_row_that_has_moved_on_is_settled_and_not_sent(database_url: str) -> None:
    async with open_worker(database_url) as worker:
        [held] = await worker.hold(a_notification())
        await worker.run(held.pointer)
        again = await worker.run(held.pointer)
        assert again.settled.is_set()
        assert len(worker.outcomes) == 1


async def test_an_expired_row_is_settled_and_left_to_the_sweeper(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with open_worker(database_url) as worker:
        items = [a_notification(), a_notification()]
        held, other = await worker.hold(*items)
        await connection.execute(
            "UPDATE live SET expires_at = now() - interval '1 s' WHERE id = $1",
            items[0].id,
        )
        [row] = await worker.claim(held, other)
        assert row.held is other
        assert held.settled.is_set()
        assert await worker.status(items[0]) is Status.EXPIRED
        assert worker.counted("finished") == 0
        await worker.attempts.attempt(row)


async def test_a_copy_of_a_row_in_flight_is_settled_without_a_claim(database_url: str) -> None:
    response = asyncio.Event()
    async with open_worker(database_url, response) as worker:
        held, row = await worker.claim_one(a_notification())
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.attempts.attempt(row))
            await worker.provider.called.wait()
            copy = Held(held.pointer)
            assert await worker.claim(copy) == []
            assert copy.settled.is_set()
            assert not held.settled.is_set()
            assert claim_request(held.pointer) in worker.attempts.in_flight
            response.set()
        await held.settled.wait()
        assert len(worker.provider.calls) == 1


async def test_of_two_copies_in_one_claim_one_is_sent(database_url: str) -> None:
    async with open_worker(database_url) as worker:
        [held] = await worker.hold(a_notification())
        copy = Held(held.pointer)
        [row] = await worker.claim(held, copy)
        assert row.held is held
        assert copy.settled.is_set()
        assert not held.settled.is_set()
        await worker.attempts.attempt(row)
        await held.settled.wait()
        assert len(worker.provider.calls) == 1


async def test_two_copies_claimed_at_once_are_sent_once(database_url: str) -> None:
    async with open_worker(database_url) as worker:
        [held] = await worker.hold(a_notification())
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(held.pointer))
            group.create_task(worker.run(held.pointer))
        assert len(worker.provider.calls) == 1


async def test_an_urgent_claim_does_not_wait_for_the_connection_of_the_others(
    database_url: str,
) -> None:
    async with open_worker(database_url) as worker:
        urgent, low = await worker.hold(a_notification(), a_notification(EMAIL_LOW))
        async with asyncio.TaskGroup() as group, worker.store._connections.claim.acquire():
            blocked = group.create_task(worker.claim(low))
            async with asyncio.timeout(30):
                rows = await worker.claim(urgent, is_urgent=True)
            assert not blocked.done()
        await worker.attempts.give_back([*rows, *blocked.result()])


async def test_a_claim_that_postgres_undid_is_repeated(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        claim, undone = worker.store.claim, [StoreConflict("deadlock"), StoreConflict("deadlock")]

        async def conflict_first(requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
            if undone:
                raise undone.pop()
            return await claim(requests)

        monkeypatch.setattr(worker.store, "claim", conflict_first)
        message = await worker.hold(a_notification(), a_notification())
        rows = await worker.claim(*message)
        assert [row.held for row in rows] == message
        await worker.attempts.give_back(rows)


async def test_a_claim_whose_reply_is_lost_is_given_back_and_sent_once(database_url: str) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), reader_url=database_url) as worker,
    ):
        first, item = a_notification(), a_notification()
        await worker.accept(first)
        assert await worker.run_until_final(first) is Status.SENT
        [held] = await worker.hold(item)
        proxy.swallow_replies()
        async with asyncio.TaskGroup() as group:
            claiming = group.create_task(worker.claim(held))
            while await worker.status(item) is not Status.SENDING:
                await asyncio.sleep(0.01)
            assert not held.settled.is_set()
            proxy.heal()
        assert claiming.result() == []
        assert held.settled.is_set()
        assert worker.attempts.in_flight == set()
        assert len(worker.provider.calls) == 1  # that of the first notification
        assert await worker.run_until_final(item) is Status.SENT
        assert [call.claim for call in worker.provider.calls] == [1, 2]


async def test_a_lost_reply_gives_back_the_rows_that_were_claimed_and_those_that_were_not(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed = asyncio.Event()
    async with open_worker(database_url) as worker:
        give_back = worker.store.give_back

        async def give_back_later(requests: Sequence[ClaimRequest]) -> Sequence[QueueKey]:
            returned = await give_back(requests)
            await confirmed.wait()
            return returned

        monkeypatch.setattr(worker.store, "give_back", give_back_later)
        claimed, unclaimed = await worker.hold(a_notification(), a_notification())
        lose_replies(worker, monkeypatch, claimed=claimed, unclaimed=unclaimed)
        async with asyncio.TaskGroup() as group:
            claiming = group.create_task(worker.claim(claimed, unclaimed))
            due = list[tuple[object, int]]()
            while len(due) < 2:
                due += [(pointer.id, pointer.claim) for pointer in await worker.due()]
            assert dict(due) == {claimed.pointer.id: 1, unclaimed.pointer.id: 1}
            assert not any(held.settled.is_set() for held in (claimed, unclaimed))
            assert not claiming.done()
            confirmed.set()
        assert claiming.result() == []
        assert claimed.settled.is_set()
        assert unclaimed.settled.is_set()
        assert worker.attempts.in_flight == set()


async def test_a_claim_that_is_cancelled_while_it_gives_back_settles_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that the claim did get are left to the release of orphans, too."""
    async with open_worker(database_url) as worker:
        give_back = worker.store.give_back
        giving_back = asyncio.Event()

        async def hang(requests: Sequence[ClaimRequest]) -> Sequence[QueueKey]:
            del requests
            giving_back.set()
            raise StoreUnavailable("away")

        message = await worker.hold(a_notification(), a_notification())
        lose_replies(worker, monkeypatch, claimed=message[1])
        claim = worker.store.claim

        async def claim_in_halves(requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
            if len(requests) > 1:
                raise StoreRejected("one of the rows")
            return await claim(requests)

        monkeypatch.setattr(worker.store, "claim", claim_in_halves)
        monkeypatch.setattr(worker.store, "give_back", hang)
        async with asyncio.TaskGroup() as group:
            claiming = group.create_task(worker.claim(*message))
            await giving_back.wait()
            claiming.cancel()
        assert not any(held.settled.is_set() for held in message)
        monkeypatch.setattr(worker.store, "give_back", give_back)
        assert await worker.attempts.release_orphans() == 2
        assert worker.attempts.in_flight == set()
        assert {pointer.claim for pointer in await worker.due()} == {1}


async def test_a_claim_that_raises_leaves_its_rows_to_the_release_of_orphans(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        claim = worker.store.claim

        async def fail_after(requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
            await claim(requests)
            raise KeyError("bug")

        [held] = await worker.hold(a_notification())
        monkeypatch.setattr(worker.store, "claim", fail_after)
        with pytest.raises(KeyError):
            await worker.claim(held)
        assert not held.settled.is_set()
        assert await worker.attempts.release_orphans() == 1


async def test_a_copy_of_a_cancelled_claim_is_settled_until_that_is_given_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the return would free the row while the copy of its pointer is being sent."""
    async with open_worker(database_url) as worker:
        claim, claiming = worker.store.claim, asyncio.Event()

        async def hang(requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
            replies = await claim(requests)
            claiming.set()
            await asyncio.Event().wait()
            return replies

        monkeypatch.setattr(worker.store, "claim", hang)
        [held] = await worker.hold(a_notification())
        async with asyncio.TaskGroup() as group:
            cancelled = group.create_task(worker.claim(held))
            await claiming.wait()
            cancelled.cancel()
        monkeypatch.setattr(worker.store, "claim", claim)
        copy = Held(held.pointer)
        assert await worker.claim(copy) == []
        assert copy.settled.is_set()
        assert await worker.attempts.release_orphans() == 1
        [again] = await worker.due()
        assert again.claim == held.pointer.claim + 1
        await worker.run(again)
        assert [call.claim for call in worker.provider.calls] == [2]


async def test_a_claim_that_reaches_postgres_after_its_return_claims_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url) as worker:
        claim, claiming = worker.store.claim, asyncio.Event()

        async def hang(requests: Sequence[ClaimRequest]) -> Sequence[ClaimReply]:
            del requests
            claiming.set()
            await asyncio.Event().wait()
            return []

        monkeypatch.setattr(worker.store, "claim", hang)
        [held] = await worker.hold(item := a_notification())
        async with asyncio.TaskGroup() as group:
            cancelled = group.create_task(worker.claim(held))
            await claiming.wait()
            cancelled.cancel()
        assert await worker.attempts.release_orphans() == 1
        assert await claim([claim_request(held.pointer)]) == [NotClaimed()]
        assert await worker.status(item) is Status.QUEUED


@pytest.mark.parametrize("is_urgent", [False, True])
@pytest.mark.parametrize("sqlstate", ["21000", "22003", "23514"])
async def test_a_row_that_postgres_refuses_to_claim_fails_as_poison_and_harms_no_other(
    database_url: str,
    connection: asyncpg.Connection[asyncpg.Record],
    sqlstate: str,
    *,
    is_urgent: bool,
) -> None:
    await connection.execute(reject(sqlstate, "UPDATE", "live", REJECT_CLAIMS))
    items = [a_notification(max_tries=REJECTED if n == 5 else None) for n in range(16)]
    async with open_worker(database_url) as worker:
        message = await worker.hold(*items)
        rows = await worker.claim(*message, is_urgent=is_urgent)
        assert [row.held for row in rows] == message[:5] + message[6:]
        assert message[5].settled.is_set()
        assert claim_request(message[5].pointer) not in worker.attempts.in_flight
        view = await worker.view(items[5])
        assert (view.status, view.tries, view.attempts) == (Status.FAILED, 0, ())
        assert (view.provider, view.last_error) == ("script", "claim_rejected")
        assert view.result is not None
        assert (view.result.reason, view.result.code) == ("poison", "claim_rejected")
        assert worker.counted("finished", status="failed") == 1
        assert worker.counted("failures", reason="poison") == 1
        for row in rows:
            await worker.attempts.attempt(row)
        for held in message:
            await held.settled.wait()
        assert {await worker.status(row.held.pointer) for row in rows} == {Status.SENT}


async def test_a_refused_row_that_cannot_be_failed_now_is_left_to_the_rescuer(
    database_url: str,
    connection: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await connection.execute(reject("22003", "UPDATE", "live", REJECT_CLAIMS))
    async with open_worker(database_url) as worker:

        async def away(request: ClaimRequest, *, provider: str) -> NotClaimed:
            raise StoreUnavailable(f"{request.id}, {provider}")

        monkeypatch.setattr(worker.store, "fail_unclaimable", away)
        item = a_notification(max_tries=REJECTED)
        [held] = await worker.hold(item)
        assert await worker.claim(held) == []
        assert held.settled.is_set()
        assert await worker.status(item) is Status.QUEUED


@pytest.mark.parametrize("sqlstate", ["21000", "22003", "23514"])
async def test_a_row_that_postgres_refuses_to_claim_and_to_fail_stays_and_harms_no_other(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], sqlstate: str
) -> None:
    refused = f"OLD.max_tries = {REJECTED}"
    await connection.execute(reject(sqlstate, "UPDATE OR DELETE", "live", refused))
    items = [a_notification(max_tries=REJECTED if n == 5 else None) for n in range(16)]
    async with open_worker(database_url) as worker:
        message = await worker.hold(*items)
        with capture_logs() as logs:
            rows = await worker.claim(*message)
        assert [row.held for row in rows] == message[:5] + message[6:]
        kept = [log["id"] for log in logs if log["event"] == "unclaimable_row_kept"]
        assert kept == [str(items[5].id)]
        for row in rows:
            await worker.attempts.attempt(row)
        for held in message:
            await held.settled.wait()
        statuses = [await worker.status(item) for item in items]
        assert statuses.pop(5) is Status.QUEUED
        assert set(statuses) == {Status.SENT}
        assert worker.attempts.in_flight == set()
        await connection.execute("DROP TRIGGER reject ON live")
        await worker.run(message[5].pointer)
        assert await worker.status(items[5]) is Status.SENT


async def test_each_row_of_a_claim_gets_what_its_own_reply_says(
    database_url: str,
    connection: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One half is rejected by Postgres, the reply of another is lost."""
    await connection.execute(reject("22003", "UPDATE", "live", REJECT_CLAIMS))
    async with open_worker(database_url) as worker:
        moved, fine, lost, refused = await worker.hold(
            a_notification(),
            a_notification(),
            a_notification(),
            a_notification(max_tries=REJECTED),
        )
        await worker.run(moved.pointer)
        lose_replies(worker, monkeypatch, claimed=lost)
        rows = await worker.claim(moved, fine, lost, refused)
        assert [row.held for row in rows] == [fine]
        assert moved.settled.is_set()
        assert lost.settled.is_set()
        assert refused.settled.is_set()
        assert not fine.settled.is_set()
        assert worker.attempts.in_flight == {claim_request(fine.pointer)}
        assert [await worker.status(held.pointer) for held in (moved, fine, lost, refused)] == [
            Status.SENT,
            Status.SENDING,
            Status.QUEUED,
            Status.FAILED,
        ]
        assert [pointer.id for pointer in await worker.due()] == [lost.pointer.id]
        await worker.attempts.give_back(rows)
