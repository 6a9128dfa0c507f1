"""One attempt, on a real Postgres: what a worker sends, what it records and when it settles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import msgspec
import pytest

from notifier.domain.blobs import blob_id
from notifier.domain.liveness import STALE_AFTER_S
from notifier.domain.notification import Status
from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.domain.retry import OnAmbiguous
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.ports.store import AttemptResult, Recorded
from tests.builders import EMAIL_HIGH, SMS_HIGH, a_notification, claim_request
from tests.one_worker import open_worker


async def test_an_accepted_notification_is_recorded_and_then_settled(database_url: str) -> None:
    async with open_worker(database_url, Accepted(code="250", reference="abc")) as worker:
        item = a_notification()
        [held] = await worker.hold(item)
        await worker.run(held.pointer)
        assert await worker.status(item) is Status.SENT
        assert worker.provider.calls[0].content == {"subject": "Hello", "body": "World"}
        assert worker.attempts.in_flight == set()


async def test_an_attempt_ends_before_its_result_is_recorded_and_settled(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_record = asyncio.Event()
    async with open_worker(database_url) as worker:
        record = worker.store.record

        async def record_later(
            results: Sequence[tuple[AttemptResult, float]],
        ) -> Sequence[Recorded]:
            await may_record.wait()
            return await record(results)

        monkeypatch.setattr(worker.store, "record", record_later)
        held, row = await worker.claim_one(item := a_notification())
        timing = await worker.attempts.attempt(row)
        assert timing.answered
        assert not held.settled.is_set()
        assert claim_request(held.pointer) in worker.attempts.in_flight
        may_record.set()
        await held.settled.wait()
        assert await worker.status(item) is Status.SENT


async def test_a_refused_notification_fails_after_one_call_and_says_why(
    database_url: str,
) -> None:
    async with open_worker(database_url, Refused(code="550", detail="no such user")) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED
        view = await worker.view(item)
        assert view.result is not None
        assert (view.result.reason, view.result.code, view.tries) == ("refused", "550", 1)
        assert len(worker.provider.calls) == 1


async def test_copies_that_a_sent_mail_did_not_reach_are_counted(database_url: str) -> None:
    async with open_worker(database_url, Accepted(code="250", refused_copies=2)) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.SENT
        assert worker.counted("copies_refused") == 2


async def test_what_a_provider_knows_when_it_is_cancelled_is_recorded(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_called = asyncio.Event()

    async def send(_: object) -> Outcome:
        with suppress(asyncio.CancelledError):
            is_called.set()
            await asyncio.Event().wait()
        return Accepted(code="250")

    async with open_worker(database_url) as worker:
        monkeypatch.setattr(worker.provider, "send", send)
        item = a_notification()
        held, row = await worker.claim_one(item)
        async with asyncio.TaskGroup() as group:
            attempt = group.create_task(worker.attempts.attempt(row))
            await is_called.wait()
            attempt.cancel()
        assert attempt.cancelled()
        await held.settled.wait()
        assert (await worker.view(item)).status is Status.SENT


async def test_a_provider_that_stays_unavailable_uses_up_the_tries(database_url: str) -> None:
    async with open_worker(database_url, *[Unavailable(code="503")] * 9) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED
        assert [call.claim for call in worker.provider.calls] == [1, 2, 3]


async def test_throttling_spends_no_try(database_url: str) -> None:
    throttled = Throttled(code="429", after=timedelta(milliseconds=1))
    async with open_worker(database_url, *[throttled] * 5) as worker:
        item = a_notification(max_tries=1)
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.SENT
        assert len(worker.provider.calls) == 6


async def test_rejected_credentials_spend_no_try_and_delay_the_retry(database_url: str) -> None:
    async with open_worker(database_url, Misconfigured(code="535", is_credentials=True)) as worker:
        item = a_notification(max_tries=1)
        [held] = await worker.hold(item)
        await worker.run(held.pointer)
        assert await worker.status(item) is Status.RETRYING
        assert await worker.due() == []


async def test_listeners_get_each_call_once_with_its_queue_provider_and_outcome(
    database_url: str,
) -> None:
    down, sent = Unavailable(code="503"), Accepted(code="250")
    async with open_worker(database_url, down, sent) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.SENT
        assert worker.outcomes == [(EMAIL_HIGH, "script", down), (EMAIL_HIGH, "script", sent)]


async def test_an_attempt_without_a_provider_is_a_local_outcome_and_is_retried(
    database_url: str,
) -> None:
    async with open_worker(database_url) as worker:
        item = a_notification(SMS_HIGH, recipient="+15005550006")
        [held] = await worker.hold(item)
        await worker.run(held.pointer)
        [(_, name, outcome)] = worker.outcomes
        assert isinstance(outcome, Unavailable)
        assert (name, outcome.code, outcome.is_local) == ("none", "no_provider", True)
        assert await worker.status(item) is Status.RETRYING


async def test_a_content_of_a_later_version_waits_for_a_worker_of_that_version(
    database_url: str,
) -> None:
    async with open_worker(database_url) as worker:
        later = a_notification(content=b'{"subject":"s","body":"b","smell":"x"}', max_tries=1)
        known = a_notification(content=b'{"subject":"s","cc":["eve@example.com"]}')
        for held in await worker.hold(later, known):
            await worker.run(held.pointer)
        view = await worker.view(later)
        assert (view.status, view.tries) == (Status.RETRYING, 0)
        assert [attempt.code for attempt in view.attempts] == ["feature_unknown"]
        assert [call.id for call in worker.provider.calls] == [known.id]


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{", b'{"a":"\xff"}', b'{"a":' * 10_000 + b"1" + b"}" * 10_000],
    ids=["no object", "cut off", "no text", "nested too deeply"],
)
async def test_content_that_cannot_be_read_is_refused_without_a_call(
    database_url: str, content: bytes
) -> None:
    async with open_worker(database_url) as worker:
        item, other = a_notification(content=content), a_notification()
        await worker.accept(item, other)
        assert await worker.run_until_final(item) is Status.FAILED
        assert await worker.status(other) is Status.SENT
        assert [call.id for call in worker.provider.calls] == [other.id]
        result = (await worker.view(item)).result
        assert result is not None
        assert (result.reason, result.code) == ("refused", "content_unreadable")


@pytest.mark.parametrize(
    ("policy", "status", "calls"),
    [(OnAmbiguous.RESEND, Status.SENT, 2), (OnAmbiguous.HOLD, Status.FAILED, 1)],
)
async def test_an_ambiguous_send_follows_the_rule_of_its_channel(
    database_url: str, policy: OnAmbiguous, status: Status, calls: int
) -> None:
    async with open_worker(database_url, Ambiguous(code="cut"), on_ambiguous=policy) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is status
        assert len(worker.provider.calls) == calls


async def test_a_call_without_a_response_is_ambiguous_after_its_timeout(database_url: str) -> None:
    async with open_worker(
        database_url, asyncio.Event(), on_ambiguous=OnAmbiguous.HOLD, send_timeout_s=0.05
    ) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED
        [attempt] = (await worker.view(item)).attempts
        assert (attempt.outcome, attempt.code) == ("ambiguous", "timeout")


async def test_an_exception_of_a_provider_is_ambiguous_and_the_worker_goes_on(
    database_url: str,
) -> None:
    async with open_worker(
        database_url, RuntimeError("bug"), on_ambiguous=OnAmbiguous.HOLD
    ) as worker:
        item, other = a_notification(), a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED
        await worker.accept(other)
        assert await worker.run_until_final(other) is Status.SENT


async def test_a_cancellation_inside_the_provider_is_ambiguous(database_url: str) -> None:
    async with open_worker(
        database_url, asyncio.CancelledError(), on_ambiguous=OnAmbiguous.HOLD
    ) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED


async def test_a_cancelled_attempt_records_its_call_as_ambiguous(database_url: str) -> None:
    async with open_worker(database_url, asyncio.Event(), on_ambiguous=OnAmbiguous.HOLD) as worker:
        held, row = await worker.claim_one(item := a_notification())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.attempts.attempt(row))
            await worker.provider.called.wait()
            task.cancel()
        [(_, _, outcome)] = worker.outcomes
        assert (outcome.name, outcome.code) == ("ambiguous", "stopped")
        await held.settled.wait()
        view = await worker.view(item)
        assert (view.status, view.attempts[0].code) == (Status.FAILED, "stopped")


async def test_a_worker_that_others_may_take_for_dead_sends_nothing(database_url: str) -> None:
    async with open_worker(database_url, alive=[True, False]) as worker:
        item = a_notification()
        [held] = await worker.hold(item)
        await worker.run(held.pointer)
        assert worker.provider.calls == []
        assert await worker.status(item) is Status.QUEUED
        [again] = await worker.due()
        assert again.claim == 1


async def test_a_worker_waits_with_its_claims_until_it_is_alive(database_url: str) -> None:
    async with open_worker(database_url, alive=[False, False, True]) as worker:
        [held] = await worker.hold(a_notification())
        await worker.run(held.pointer)
        assert [call.claim for call in worker.provider.calls] == [1]


async def test_a_row_whose_claim_is_too_old_is_given_back_without_a_call(
    database_url: str,
) -> None:
    async with open_worker(database_url) as worker:
        held, row = await worker.claim_one(item := a_notification())
        old = msgspec.structs.replace(row, requested_at=row.requested_at - STALE_AFTER_S)
        timing = await worker.attempts.attempt(old)
        assert not timing.answered
        assert held.settled.is_set()
        assert worker.attempts.in_flight == set()
        assert (worker.provider.calls, worker.outcomes) == ([], [])
        view = await worker.view(item)
        assert (view.status, view.tries, view.attempts) == (Status.QUEUED, 0, ())


async def test_the_wait_of_a_row_lasts_until_its_call_and_not_until_its_claim(
    database_url: str,
) -> None:
    async with open_worker(database_url) as worker:
        held, row = await worker.claim_one(item := a_notification())
        await worker.attempts.attempt(
            msgspec.structs.replace(row, requested_at=row.requested_at - STALE_AFTER_S / 2)
        )
        await held.settled.wait()
        [attempt] = (await worker.view(item)).attempts
        assert attempt.queue_wait_s >= STALE_AFTER_S / 2


async def test_one_attempt_that_hangs_holds_up_no_other_of_its_claim(database_url: str) -> None:
    hang = asyncio.Event()
    async with open_worker(database_url, hang) as worker:
        slow, *others = await worker.hold(*(a_notification() for _ in range(8)))
        async with asyncio.TaskGroup() as group:
            for row in await worker.claim(slow, *others):
                group.create_task(worker.attempts.attempt(row))
            for held in others:
                await held.settled.wait()
            assert not slow.settled.is_set()
            assert worker.attempts.in_flight == {claim_request(slow.pointer)}
            hang.set()
        await slow.settled.wait()


PDF = bytes(range(256)) * 40


def with_file(data: bytes = PDF) -> bytes:
    file = {"filename": "a", "content_type": "a/b", "blob": blob_id(data)}
    return json.dumps({"subject": "s", "attachments": [file]}).encode()


async def test_a_notification_is_sent_with_its_files(database_url: str) -> None:
    async with open_worker(database_url) as worker:
        item = a_notification(content=with_file())
        await worker.blobs.put(DEFAULT_TENANT, blob_id(PDF), PDF, is_mail=False)
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.SENT
        assert worker.provider.calls[0].files == {blob_id(PDF): PDF}


@pytest.mark.parametrize(
    "content",
    [
        with_file(),
        b'{"mime": "sha256:0"}',
        b'{"attachments": [{"blob": "sha256:\\u0000"}]}',
    ],
)
async def test_a_notification_without_its_file_fails_and_others_do_not(
    database_url: str, content: bytes
) -> None:
    async with open_worker(database_url) as worker:
        item, other = a_notification(content=content), a_notification()
        await worker.accept(item, other)
        assert await worker.run_until_final(item) is Status.FAILED
        assert await worker.status(other) is Status.SENT
        result = (await worker.view(item)).result
        assert result is not None
        assert (result.reason, result.code) == ("refused", "blob_missing")
        assert [call.id for call in worker.provider.calls] == [other.id]


async def test_a_send_that_finds_no_room_for_its_files_is_retried_and_spends_no_try(
    database_url: str,
) -> None:
    hang = asyncio.Event()
    async with open_worker(database_url, hang, max_held_bytes=len(PDF)) as worker:
        other = PDF + b"x"
        for data in (PDF, other):
            await worker.blobs.put(DEFAULT_TENANT, blob_id(data), data, is_mail=False)
        first, second = (a_notification(content=with_file(data)) for data in (PDF, other))
        _, row = await worker.claim_one(first)
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.attempts.attempt(row))
            await worker.provider.called.wait()
            held, row = await worker.claim_one(second)
            young_s = 0.1
            requested_at = row.requested_at - STALE_AFTER_S + young_s
            await worker.attempts.attempt(msgspec.structs.replace(row, requested_at=requested_at))
            await held.settled.wait()
            hang.set()
        view = await worker.view(second)
        codes = [(attempt.code, view.tries) for attempt in view.attempts]
        assert (view.status, codes) in [
            (Status.RETRYING, [("no_memory", 0)]),
            (Status.QUEUED, []),  # the claim was too old by then
        ]


async def test_a_stop_while_files_are_loaded_gives_the_row_back(database_url: str) -> None:
    async with open_worker(database_url) as worker:
        await worker.blobs.put(DEFAULT_TENANT, blob_id(PDF), PDF, is_mail=False)
        held, row = await worker.claim_one(item := a_notification(content=with_file()))
        task = asyncio.get_running_loop().create_task(worker.attempts.attempt(row))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await worker.attempts.release_orphans() == 1
        view = await worker.view(item)
        assert (view.status, view.tries, view.attempts) == (Status.QUEUED, 0, ())
        assert not held.settled.is_set()
        assert worker.provider.calls == []
