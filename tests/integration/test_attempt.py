"""One attempt, on a real Postgres: what is sent, recorded, acknowledged, and given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import NamedTuple

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from harness.tcp_proxy import TcpProxy, open_proxy_for
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import PostgresReader, open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.attempt import Attempts, RateLimiter
from notifier.delivery.delivery_rules import DeliveryRules, ProviderBinding
from notifier.domain.errors import StoreUnavailable
from notifier.domain.notification import Channel, NewNotification, Priority, QueueKey, Status
from notifier.domain.outcome import (
    Accepted,
    Ambiguous,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.domain.retry import OnAmbiguous, RetryPolicy
from notifier.ports.broker import Delivery, Pointer
from notifier.ports.provider import Envelope
from notifier.ports.queries import Filter
from notifier.ports.store import ClaimRequest, Recorded
from tests.builders import (
    EMAIL_HIGH,
    QUEUES,
    SMS_HIGH,
    a_notification,
    claim_request,
    quotas,
    worker_id,
)

QUICK = RetryPolicy(base=timedelta(milliseconds=1), factor=2, cap=timedelta(seconds=1), tries=3)


class Script:
    """A provider that answers what it is told, in order, and Accepted after that."""

    name = "script"

    def __init__(self, *answers: Outcome | BaseException | asyncio.Event) -> None:
        self.answers = list(answers)
        self.calls: list[Envelope] = []
        self.called = asyncio.Event()

    async def send(self, envelope: Envelope) -> Outcome:
        self.calls.append(envelope)
        self.called.set()
        answer = self.answers.pop(0) if self.answers else Accepted()
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return Accepted()
        return answer


class Beats:
    """A pulse that says what it is told, and True after that."""

    def __init__(self, *said: bool) -> None:
        self.said = list(said)

    def is_alive(self) -> bool:
        return self.said.pop(0) if self.said else True

    async def wait_until_alive(self) -> None:
        while not self.is_alive():
            await asyncio.sleep(0)


class Bench(NamedTuple):
    """A worker's attempts without lanes: pointers are handed in by the test."""

    store: PostgresStore
    reader: PostgresReader
    attempts: Attempts
    provider: Script
    acked: list[Delivery]
    outcomes: list[tuple[QueueKey, str, Outcome]]

    async def accept(self, item: NewNotification) -> None:
        await self.store.insert([item])

    async def due(self) -> list[Pointer]:
        return [pointer for pointer, _ in await self.store.take_due(quotas(), 500)]

    async def run(self, pointer: Pointer) -> Delivery:
        delivery = Delivery(pointer, redelivered=False, tag=None)
        await self.attempts.attempt(delivery, self.acked.append)
        return delivery

    async def run_until_final(self, item: NewNotification) -> Status:
        while True:
            for pointer in await self.due():
                await self.run(pointer)
            status = await self.status(item)
            if status not in {Status.QUEUED, Status.RETRYING}:
                return status

    async def status(self, item: NewNotification) -> Status:
        view = await self.reader.get(item.id)
        assert view is not None
        return view.status


class Outcomes(list[tuple[QueueKey, str, Outcome]]):
    """Records the outcome of each call; implements delivery.attempt.OutcomeListener."""

    def on_outcome(
        self, queue: QueueKey, provider: str, outcome: Outcome, started_at: float
    ) -> None:
        del started_at
        self.append((queue, provider, outcome))


class Unlimited:
    """A rate limiter that lets every call pass at once."""

    async def acquire(self, queue: QueueKey) -> None: ...


@asynccontextmanager
async def open_bench(
    url: str,
    *answers: Outcome | BaseException | asyncio.Event,
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND,
    alive: Sequence[bool] = (),
    send_timeout_s: float = 5.0,
    reader_url: str | None = None,
    rate_limiter: RateLimiter | None = None,
) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        link = ConnectionSettings(url=url, statement_timeout_s=0.5)
        store = await stack.enter_async_context(open_store(link, worker_id()))
        reader = await stack.enter_async_context(
            open_reader(ConnectionSettings(url=reader_url or url))
        )
        provider, outcomes = Script(*answers), Outcomes()
        attempts = Attempts(
            store=store,
            observer=Metrics(
                QUEUES, {Channel("email"): ["script"]}, version="0", registry=CollectorRegistry()
            ),
            rules=DeliveryRules(
                bindings={
                    Channel("email"): ProviderBinding(provider=provider, on_ambiguous=on_ambiguous)
                },
                policies=dict.fromkeys(Priority, QUICK),
            ),
            liveness=Beats(*alive),
            draw=lambda: 0.5,
            send_timeout_s=send_timeout_s,
            rate_limiter=rate_limiter or Unlimited(),
            outcome_listeners=[outcomes],
        )
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(attempts.run())
        yield Bench(store, reader, attempts, provider, [], outcomes)
        attempts.close()


Opening = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture
def bench(database_url: str) -> Opening:
    def opened(*answers: Outcome | BaseException | asyncio.Event, **options: object) -> object:
        return open_bench(database_url, *answers, **options)  # type: ignore[arg-type]

    return opened  # type: ignore[return-value]


async def test_an_accepted_message_is_recorded_then_acked(bench: Opening) -> None:
    async with bench(Accepted(code="250", reference="abc")) as on:
        item = a_notification()
        await on.accept(item)
        [pointer] = await on.due()
        delivery = await on.run(pointer)
        assert on.acked == [delivery]
        assert await on.status(item) is Status.SENT
        assert on.provider.calls[0].content == {"subject": "Hello", "body": "World"}
        assert item.id not in on.attempts.in_flight


async def test_a_refused_one_fails_after_one_call_and_is_in_the_log_of_failures(
    bench: Opening,
) -> None:
    async with bench(Refused(code="550", detail="no such user")) as on:
        item = a_notification()
        await on.accept(item)
        assert await on.run_until_final(item) is Status.FAILED
        [failure] = await on.reader.failures(Filter())
        assert (failure.reason, failure.code, failure.tries) == ("refused", "550", 1)
        assert len(on.provider.calls) == 1


async def test_what_stays_unavailable_uses_its_tries(bench: Opening) -> None:
    async with bench(*[Unavailable(code="503")] * 9) as on:
        item = a_notification()
        await on.accept(item)
        assert await on.run_until_final(item) is Status.FAILED
        assert [call.claim for call in on.provider.calls] == [1, 2, 3]


async def test_throttling_spends_no_try(bench: Opening) -> None:
    throttled = Throttled(code="429", after=timedelta(milliseconds=1))
    async with bench(*[throttled] * 5) as on:
        item = a_notification(max_tries=1)
        await on.accept(item)
        assert await on.run_until_final(item) is Status.SENT
        assert len(on.provider.calls) == 6


async def test_bad_credentials_spend_no_try_and_wait(bench: Opening) -> None:
    async with bench(Unavailable(code="535", spends=False)) as on:
        item = a_notification(max_tries=1)
        await on.accept(item)
        [pointer] = await on.due()
        await on.run(pointer)
        assert await on.status(item) is Status.RETRYING
        assert await on.due() == []


async def test_every_call_is_told_once_with_its_queue_provider_and_outcome(
    bench: Opening,
) -> None:
    down, sent = Unavailable(code="503"), Accepted(code="250")
    async with bench(down, sent) as on:
        item = a_notification()
        await on.accept(item)
        assert await on.run_until_final(item) is Status.SENT
        assert on.outcomes == [(EMAIL_HIGH, "script", down), (EMAIL_HIGH, "script", sent)]


async def test_a_call_cut_by_the_stop_is_told_too(bench: Opening) -> None:
    async with bench(asyncio.Event()) as on:
        await on.accept(a_notification())
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(on.run(pointer))
            await on.provider.called.wait()
            task.cancel()
        [(_, _, outcome)] = on.outcomes
        assert (outcome.name, outcome.code) == ("ambiguous", "stopped")


async def test_what_is_not_claimed_is_no_call(bench: Opening) -> None:
    async with bench() as on:
        await on.accept(a_notification())
        [pointer] = await on.due()
        await on.run(pointer)
        await on.run(pointer)
        assert len(on.outcomes) == 1


async def test_a_channel_without_a_provider_says_nothing_of_anyones_health(
    bench: Opening,
) -> None:
    async with bench() as on:
        item = a_notification(SMS_HIGH, recipient="+15005550006")
        await on.accept(item)
        [pointer] = await on.due()
        await on.run(pointer)
        [(_, name, outcome)] = on.outcomes
        assert isinstance(outcome, Unavailable)
        assert (name, outcome.code, outcome.is_local) == ("none", "no_provider", True)
        assert await on.status(item) is Status.RETRYING


@pytest.mark.parametrize(
    ("policy", "status", "calls"),
    [(OnAmbiguous.RESEND, Status.SENT, 2), (OnAmbiguous.HOLD, Status.FAILED, 1)],
)
async def test_an_ambiguous_send_follows_the_channels_policy(
    bench: Opening, policy: OnAmbiguous, status: Status, calls: int
) -> None:
    async with bench(Ambiguous(code="cut"), on_ambiguous=policy) as on:
        item = a_notification()
        await on.accept(item)
        assert await on.run_until_final(item) is status
        assert len(on.provider.calls) == calls


async def test_a_send_without_an_answer_is_ambiguous_after_its_timeout(bench: Opening) -> None:
    async with bench(asyncio.Event(), on_ambiguous=OnAmbiguous.HOLD, send_timeout_s=0.05) as on:
        item = a_notification()
        await on.accept(item)
        assert await on.run_until_final(item) is Status.FAILED
        view = await on.reader.get(item.id)
        assert view is not None
        assert (view.attempts[0].outcome, view.attempts[0].code) == ("ambiguous", "timeout")


async def test_a_crashing_sender_is_ambiguous_and_stops_nobody(bench: Opening) -> None:
    async with bench(RuntimeError("bug"), on_ambiguous=OnAmbiguous.HOLD) as on:
        item, other = a_notification(), a_notification()
        await on.accept(item)
        assert await on.run_until_final(item) is Status.FAILED
        await on.accept(other)
        assert await on.run_until_final(other) is Status.SENT


async def test_the_second_copy_of_a_pointer_is_acked_and_not_sent(bench: Opening) -> None:
    async with bench() as on:
        await on.accept(a_notification())
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group:
            group.create_task(on.run(pointer))
            group.create_task(on.run(pointer))
        assert len(on.provider.calls) == 1
        assert len(on.acked) == 2


async def test_a_buffered_copy_of_what_is_being_sent_goes_back_without_it(bench: Opening) -> None:
    """RabbitMQ came back and delivered the message again; then the lane had to shrink."""
    answered = asyncio.Event()
    async with bench(answered) as on:
        item = a_notification()
        await on.accept(item)
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group:
            group.create_task(on.run(pointer))
            await on.provider.called.wait()
            await on.attempts.give_back_pointers([pointer])
            assert await on.due() == []
            answered.set()
        assert await on.status(item) is Status.SENT
        assert len(on.provider.calls) == 1


async def test_a_copy_of_what_is_in_hand_is_acked_without_being_asked_for(bench: Opening) -> None:
    answered = asyncio.Event()
    async with bench(answered) as on:
        await on.accept(a_notification())
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group:
            group.create_task(on.run(pointer))
            await on.provider.called.wait()
            copy = await on.run(pointer)
            assert on.acked == [copy]
            assert on.attempts.in_flight.has(claim_request(pointer))
            answered.set()
        assert len(on.provider.calls) == 1


async def test_a_worker_that_others_may_think_dead_sends_nothing(bench: Opening) -> None:
    async with bench(alive=[True, False]) as on:
        item = a_notification()
        await on.accept(item)
        [pointer] = await on.due()
        await on.run(pointer)
        assert on.provider.calls == []
        assert await on.status(item) is Status.QUEUED
        [again] = await on.due()
        assert again.claim == 1


async def test_a_worker_that_is_not_alive_claims_nothing_until_it_is(bench: Opening) -> None:
    async with bench(alive=[False, False, True, True]) as on:
        item = a_notification()
        await on.accept(item)
        [pointer] = await on.due()
        await on.run(pointer)
        assert [call.claim for call in on.provider.calls] == [1]


async def test_a_cancel_that_is_not_ours_is_a_senders_fault(bench: Opening) -> None:
    async with bench(asyncio.CancelledError(), on_ambiguous=OnAmbiguous.HOLD) as on:
        item = a_notification()
        await on.accept(item)
        assert await on.run_until_final(item) is Status.FAILED
        assert len(on.acked) == 1


async def test_a_stopping_worker_without_postgres_gives_up_in_bounded_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.attempt.RECORD_TIMEOUT_S", 0.2)
    async with (
        open_proxy_for(database_url) as proxy,
        open_bench(proxy.url(database_url), asyncio.Event(), reader_url=database_url) as on,
    ):
        item = a_notification()
        await on.accept(item)
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(on.run(pointer))
            await on.provider.called.wait()
            proxy.cut()
            task.cancel()
        assert on.acked == []
    # Leaving the block ended the batches, too.


async def test_a_cancelled_give_back_leaves_nothing_to_repeat(database_url: str) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_bench(proxy.url(database_url), reader_url=database_url) as on,
    ):
        for _ in range(3):
            await on.accept(a_notification())
        pointers = await on.due()
        proxy.cut()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await on.attempts.give_back_pointers(pointers)


async def test_a_cancelled_send_is_recorded_as_ambiguous_by_us(bench: Opening) -> None:
    async with bench(asyncio.Event(), on_ambiguous=OnAmbiguous.HOLD) as on:
        item = a_notification()
        await on.accept(item)
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(on.run(pointer))
            await on.provider.called.wait()
            task.cancel()
        assert await on.status(item) is Status.FAILED
        view = await on.reader.get(item.id)
        assert view is not None
        assert view.attempts[0].code == "stopped"


@pytest.mark.parametrize("when", ["in the call", "in the record"])
async def test_what_was_sent_and_could_not_be_recorded_is_not_given_back_as_unsent(
    when: str, bench: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.attempt.RECORD_TIMEOUT_S", 0.2)
    recording = asyncio.Event()

    async def refuse(_: object) -> Sequence[Recorded]:
        recording.set()
        raise StoreUnavailable("away")

    async with bench(asyncio.Event() if when == "in the call" else Accepted()) as on:
        monkeypatch.setattr(on.store, "record", refuse)
        item = a_notification()
        await on.accept(item)
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(on.run(pointer))
            await (on.provider.called if when == "in the call" else recording).wait()
            task.cancel()
        await on.attempts.release_the_last()
        assert await on.status(item) is Status.SENDING


async def test_orphans_are_given_back_and_what_is_in_flight_is_not(bench: Opening) -> None:
    hold = asyncio.Event()
    async with bench(hold) as on:
        await on.accept(a_notification())
        [busy] = await on.due()
        orphan = a_notification()
        await on.accept(orphan)
        [lost] = await on.due()
        await on.store.claim([claim_request(lost)])
        async with asyncio.TaskGroup() as group:
            group.create_task(on.run(busy))
            await on.provider.called.wait()
            assert await on.attempts.release_orphans() == 1
            assert await on.status(orphan) is Status.QUEUED
            hold.set()
        assert [pointer.id for pointer in await on.due()] == [lost.id]


async def test_what_is_recorded_while_the_orphans_are_read_is_none(
    bench: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = asyncio.Event()
    async with bench(hold) as on:
        await on.accept(a_notification())
        [busy] = await on.due()
        read = on.store.claimed_by_me

        async def read_slowly() -> Sequence[ClaimRequest]:
            rows = await read()
            hold.set()
            await running
            return rows

        monkeypatch.setattr(on.store, "claimed_by_me", read_slowly)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(on.run(busy))
            await on.provider.called.wait()
            assert await on.attempts.release_orphans() == 0


async def _lose_the_answer(on: Bench, proxy: TcpProxy, pointer: Pointer) -> None:
    """Run an attempt whose claim is done by Postgres, but nobody hears of it."""
    proxy.swallow_replies()
    async with asyncio.TaskGroup() as group:
        group.create_task(on.run(pointer))
        while not await _is_sending(on, pointer):
            await asyncio.sleep(0.01)
        proxy.heal()


async def _is_sending(on: Bench, pointer: Pointer) -> bool:
    view = await on.reader.get(pointer.id)
    return view is not None and view.status is Status.SENDING


async def test_a_claim_whose_answer_is_lost_is_given_back_and_sent_once(
    database_url: str,
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_bench(proxy.url(database_url), reader_url=database_url) as on,
    ):
        warm, item = a_notification(), a_notification()
        await on.accept(warm)
        assert await on.run_until_final(warm) is Status.SENT
        await on.accept(item)
        [pointer] = await on.due()
        await _lose_the_answer(on, proxy, pointer)
        assert len(on.provider.calls) == 1  # the warm one only
        assert len(on.acked) == 2
        assert await on.run_until_final(item) is Status.SENT
        assert len(on.provider.calls) == 2


async def test_a_record_whose_answer_is_lost_is_repeated_and_nothing_sent_twice(
    database_url: str,
) -> None:
    hold = asyncio.Event()
    async with (
        open_proxy_for(database_url) as proxy,
        open_bench(proxy.url(database_url), Accepted(), hold, reader_url=database_url) as on,
    ):
        warm, item = a_notification(), a_notification()
        await on.accept(warm)
        await on.run_until_final(warm)
        await on.accept(item)
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group:
            on.provider.called.clear()
            group.create_task(on.run(pointer))
            await on.provider.called.wait()
            proxy.swallow_replies()
            hold.set()
            while await on.status(item) is not Status.SENT:
                await asyncio.sleep(0.01)
            proxy.heal()
        assert len(on.acked) == 2
        view = await on.reader.get(item.id)
        assert view is not None
        assert [attempt.outcome for attempt in view.attempts] == ["accepted"]
        assert len(on.provider.calls) == 2


class Turns:
    """Counts who asks for another turn, and gives it when the test says so."""

    def __init__(self) -> None:
        self.asked: list[QueueKey] = []
        self.given = asyncio.Event()

    async def acquire(self, queue: QueueKey) -> None:
        self.asked.append(queue)
        await self.given.wait()


@asynccontextmanager
async def rows_locked(url: str, span_s: float) -> AsyncIterator[asyncio.Task[None]]:
    """No row can be claimed or given back until the span is over."""

    async def hold() -> None:
        await asyncio.sleep(span_s)
        await lock.rollback()

    connection = await asyncpg.connect(url)
    lock = connection.transaction()
    await lock.start()
    await connection.execute("LOCK TABLE notifications IN EXCLUSIVE MODE")
    async with asyncio.TaskGroup() as group:
        yield group.create_task(hold())
    await connection.close()


async def test_a_claim_that_took_long_needs_another_turn_before_its_call(
    bench: Opening, database_url: str
) -> None:
    turns = Turns()
    async with bench(Accepted(), rate_limiter=turns) as on:
        item = a_notification()
        await on.accept(item)
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group:
            async with rows_locked(database_url, 0.3):
                running = group.create_task(on.run(pointer))
            while not turns.asked:
                await asyncio.sleep(0.01)
            assert turns.asked == [item.queue]
            assert not on.provider.calls
            turns.given.set()
            await running
        assert await on.status(item) is Status.SENT


async def test_a_turn_that_does_not_come_in_time_gives_the_row_back_unspent(
    bench: Opening, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.attempt.STALE_AFTER_S", 0.45)
    turns = Turns()
    async with bench(Accepted(), rate_limiter=turns) as on:
        item = a_notification()
        await on.accept(item)
        [pointer] = await on.due()
        async with asyncio.TaskGroup() as group, rows_locked(database_url, 0.3):
            group.create_task(on.run(pointer))
        view = await on.reader.get(item.id)
        assert view is not None
        assert (view.status, view.tries) == (Status.QUEUED, 0)
        assert not on.provider.calls
