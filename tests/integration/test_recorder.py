"""The record of results, on a real Postgres: each result once, whatever the others do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from harness.tcp_proxy import open_proxy_for
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import WAITING, Status
from notifier.domain.outcome import Accepted, Outcome, Refused, Throttled, Unavailable
from notifier.domain.retry import OnAmbiguous
from notifier.ports.store import AttemptResult, Recorded
from tests.builders import a_notification, claim_request
from tests.one_worker import REJECTED, Worker, open_worker, reject, when_it_fails

Results = Sequence[tuple[AttemptResult, float]]

NOW = 0.0
"""A deadline that is over: only RECORD_TIMEOUT_S is left."""
REJECT_RECORDS = f"OLD.max_tries = {REJECTED}"
OUTCOMES: list[Outcome] = [Accepted(), Refused(code="550"), Unavailable(code="503")]


def count_records(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every record adds how many results it carries."""
    record, sizes = worker.store.record, list[int]()

    async def counted(results: Results) -> Sequence[Recorded]:
        sizes.append(len(results))
        return await record(results)

    monkeypatch.setattr(worker.store, "record", counted)
    return sizes


async def test_results_that_are_there_together_are_recorded_in_one_batch(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_worker(database_url, *OUTCOMES * 10) as worker:
        sizes = count_records(worker, monkeypatch)
        message = await worker.hold(*(a_notification() for _ in range(30)))
        for row in await worker.claim(*message):
            await worker.attempts.attempt(row)
        for held in message:
            await held.settled.wait()
        assert sizes == [30]
        statuses = [await worker.status(held.pointer) for held in message]
        assert statuses[0::3] == [Status.SENT] * 10
        assert statuses[1::3] == [Status.FAILED] * 10
        assert WAITING.issuperset(statuses[2::3])
        assert worker.counted("finished", status="sent") == 10
        assert worker.counted("failures", reason="refused") == 10
        assert worker.counted("retries") == 10
        assert worker.attempts.in_flight == set()


async def test_a_throttled_attempt_is_counted_as_retried_and_not_as_finished(
    database_url: str,
) -> None:
    async with open_worker(database_url, Throttled(code="429")) as worker:
        [held] = await worker.hold(a_notification())
        await worker.run(held.pointer)
        assert worker.counted("retries") == 1
        assert worker.counted("finished") == 0


@pytest.mark.parametrize("status", sorted(WAITING))
async def test_a_result_whose_row_waits_is_counted_as_retried_and_not_as_finished(
    database_url: str, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    async def record(results: Results) -> Sequence[Recorded]:
        return [Recorded(status, late=False, age_s=0.0) for _ in results]

    async with open_worker(database_url, Throttled(code="429")) as worker:
        monkeypatch.setattr(worker.store, "record", record)
        [held] = await worker.hold(a_notification())
        await worker.run(held.pointer)
        assert worker.counted("retries") == 1
        assert worker.counted("finished") == 0


async def test_a_record_whose_reply_is_lost_is_repeated_and_nothing_is_sent_twice(
    database_url: str,
) -> None:
    hold = asyncio.Event()
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), Accepted(), hold, reader_url=database_url) as worker,
    ):
        first = a_notification()
        await worker.accept(first)
        await worker.run_until_final(first)
        held, row = await worker.claim_one(item := a_notification())
        async with asyncio.TaskGroup() as group:
            worker.provider.called.clear()
            group.create_task(worker.attempts.attempt(row))
            await worker.provider.called.wait()
            proxy.swallow_replies()
            hold.set()
            while await worker.status(item) is not Status.SENT:
                await asyncio.sleep(0.01)
            assert not held.settled.is_set()
            proxy.heal()
        await held.settled.wait()
        assert [attempt.outcome for attempt in (await worker.view(item)).attempts] == ["accepted"]
        assert worker.counted("finished", status="sent") == 2
        assert len(worker.provider.calls) == 2


async def test_results_wait_while_postgres_is_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), *OUTCOMES, reader_url=database_url) as worker,
    ):
        message = await worker.hold(*(a_notification() for _ in OUTCOMES))
        rows = await worker.claim(*message)
        proxy.cut()
        failed = when_it_fails(worker, "record", monkeypatch)
        for row in rows:
            await worker.attempts.attempt(row)
        await failed.wait()
        assert not any(held.settled.is_set() for held in message)
        proxy.heal()
        for held in message:
            await held.settled.wait()
        views = [await worker.view(held.pointer) for held in message]
        assert [[attempt.outcome for attempt in view.attempts] for view in views] == [
            [outcome.name] for outcome in OUTCOMES
        ]
        assert len(worker.provider.calls) == len(OUTCOMES)


@pytest.mark.parametrize("sqlstate", ["21000", "22003", "23514"])
async def test_a_result_that_can_never_be_recorded_stays_claimed_and_harms_no_other(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], sqlstate: str
) -> None:
    await connection.execute(reject(sqlstate, "DELETE", "live", REJECT_RECORDS))
    items = [a_notification(max_tries=REJECTED if n == 5 else None) for n in range(16)]
    async with open_worker(database_url) as worker:
        message = await worker.hold(*items)
        for row in await worker.claim(*message):
            await worker.attempts.attempt(row)
        for held in message:
            await held.settled.wait()
        statuses = [await worker.status(item) for item in items]
        assert statuses.pop(5) is Status.SENDING
        assert set(statuses) == {Status.SENT}
        assert claim_request(message[5].pointer) in worker.attempts.in_flight
        assert await worker.attempts.release_orphans() == 0
        assert len(worker.provider.calls) == 16
        other = a_notification()
        await worker.accept(other)
        assert await worker.run_until_final(other) is Status.SENT


@pytest.mark.parametrize("sqlstate", ["21000", "22021", "23514"])
async def test_a_result_whose_texts_are_rejected_is_recorded_without_them(
    database_url: str, connection: asyncpg.Connection[asyncpg.Record], sqlstate: str
) -> None:
    await connection.execute(reject(sqlstate, "INSERT", "attempts", "NEW.detail = 'unstorable'"))
    bad, good = Refused(code="550", detail="unstorable"), Refused(code="550", detail="no such user")
    outcomes: list[Outcome] = [good, good, bad, good]
    async with open_worker(database_url, *outcomes) as worker:
        message = await worker.hold(*(a_notification() for _ in outcomes))
        for row in await worker.claim(*message):
            await worker.attempts.attempt(row)
        for held in message:
            await held.settled.wait()
        attempts = [(await worker.view(held.pointer)).attempts[0] for held in message]
        assert {attempt.outcome for attempt in attempts} == {"refused"}
        assert [(attempt.code, attempt.detail) for attempt in attempts] == [
            ("550", "no such user"),
            ("550", "no such user"),
            ("", ""),
            ("550", "no such user"),
        ]
        assert worker.attempts.in_flight == set()


async def test_a_stopping_worker_without_postgres_ends_in_bounded_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.attempt.RECORD_TIMEOUT_S", 0.2)
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), asyncio.Event(), reader_url=database_url) as worker,
    ):
        held, row = await worker.claim_one(a_notification())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.attempts.attempt(row))
            await worker.provider.called.wait()
            proxy.cut()
            task.cancel()
        await worker.attempts.finish_recording(NOW)
        assert not held.settled.is_set()
        assert claim_request(held.pointer) in worker.attempts.in_flight
    # The block has ended, so the recorder has ended too.


@pytest.mark.parametrize("when", ["in the call", "in the record"])
async def test_a_sent_notification_that_could_not_be_recorded_is_not_given_back(
    when: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.attempt.RECORD_TIMEOUT_S", 0.2)
    recording = asyncio.Event()

    async def refuse(_: Results) -> Sequence[Recorded]:
        recording.set()
        raise StoreUnavailable("away")

    first = asyncio.Event() if when == "in the call" else Accepted()
    async with open_worker(database_url, first) as worker:
        monkeypatch.setattr(worker.store, "record", refuse)
        _, row = await worker.claim_one(item := a_notification())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.attempts.attempt(row))
            await (worker.provider.called if when == "in the call" else recording).wait()
            task.cancel()
        await worker.attempts.finish_recording(NOW)
        assert await worker.attempts.release_orphans() == 0
        assert await worker.status(item) is Status.SENDING


async def test_the_last_results_are_recorded_before_the_worker_ends(database_url: str) -> None:
    async with open_worker(database_url, on_ambiguous=OnAmbiguous.HOLD) as worker:
        message = await worker.hold(*(a_notification() for _ in range(20)))
        for row in await worker.claim(*message):
            await worker.attempts.attempt(row)
        await worker.attempts.finish_recording(NOW)
        assert all(held.settled.is_set() for held in message)
        assert {await worker.status(held.pointer) for held in message} == {Status.SENT}


async def test_results_are_recorded_and_rows_given_back_when_the_consumers_fail(
    database_url: str,
) -> None:
    items = [a_notification() for _ in range(10)]

    async def fail() -> None:
        async with open_worker(database_url) as worker:
            rows = await worker.claim(*await worker.hold(*items))
            for row in rows[:5]:
                await worker.attempts.attempt(row)
            worker.attempts.abandon(rows[5:])
            raise KeyError("bug")

    with pytest.raises(ExceptionGroup):
        await fail()
    async with open_worker(database_url) as other:
        statuses = [await other.status(item) for item in items]
        assert statuses == [Status.SENT] * 5 + [Status.QUEUED] * 5
