"""One attempt, on a real Postgres: it is sent, recorded and acknowledged, or given back."""

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
from notifier.domain.notification import (
    WAITING,
    Channel,
    NewNotification,
    Priority,
    QueueKey,
    Status,
)
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

Response = Outcome | BaseException | asyncio.Event

QUICK = RetryPolicy(base=timedelta(milliseconds=1), factor=2, cap=timedelta(seconds=1), tries=3)


class ScriptedProvider:
    """A provider that returns or raises `responses` in order, and Accepted after them.

    Where a response is an event, the call waits for it and then returns Accepted.
    """

    name = "script"

    def __init__(self, *responses: Response) -> None:
        self.responses = list(responses)
        self.calls: list[Envelope] = []
        self.called = asyncio.Event()

    async def send(self, envelope: Envelope) -> Outcome:
        self.calls.append(envelope)
        self.called.set()
        response = self.responses.pop(0) if self.responses else Accepted()
        if isinstance(response, BaseException):
            raise response
        if isinstance(response, asyncio.Event):
            await response.wait()
            return Accepted()
        return response


class ScriptedLiveness:
    """Is alive as `states` say, in order, and always after them."""

    def __init__(self, *states: bool) -> None:
        self.states = list(states)

    def is_alive(self) -> bool:
        return self.states.pop(0) if self.states else True

    async def wait_until_alive(self) -> None:
        while not self.is_alive():
            await asyncio.sleep(0)


class Worker(NamedTuple):
    """The attempts of one worker; the test delivers the pointers."""

    store: PostgresStore
    reader: PostgresReader
    attempts: Attempts
    provider: ScriptedProvider
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
            if status not in WAITING:
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
async def open_worker(
    url: str,
    *responses: Response,
    on_ambiguous: OnAmbiguous = OnAmbiguous.RESEND,
    alive: Sequence[bool] = (),
    send_timeout_s: float = 5.0,
    reader_url: str | None = None,
    rate_limiter: RateLimiter | None = None,
    registry: CollectorRegistry | None = None,
) -> AsyncIterator[Worker]:
    async with AsyncExitStack() as stack:
        link = ConnectionSettings(url=url, statement_timeout_s=0.5)
        store = await stack.enter_async_context(open_store(link, worker_id()))
        reader = await stack.enter_async_context(
            open_reader(ConnectionSettings(url=reader_url or url))
        )
        provider, outcomes = ScriptedProvider(*responses), Outcomes()
        attempts = Attempts(
            store=store,
            observer=Metrics(
                QUEUES,
                {Channel("email"): ["script"]},
                version="0",
                registry=registry or CollectorRegistry(),
            ),
            rules=DeliveryRules(
                bindings={
                    Channel("email"): ProviderBinding(provider=provider, on_ambiguous=on_ambiguous)
                },
                policies=dict.fromkeys(Priority, QUICK),
            ),
            liveness=ScriptedLiveness(*alive),
            draw=lambda: 0.5,
            send_timeout_s=send_timeout_s,
            rate_limiter=rate_limiter or Unlimited(),
            outcome_listeners=[outcomes],
        )
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(attempts.run())
        yield Worker(store, reader, attempts, provider, [], outcomes)
        attempts.close()


def counted(registry: CollectorRegistry, name: str) -> float:
    """Return the sum of the counter over all label sets, `other` included."""
    return sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == f"notifier_{name}_total"
    )


OpenWorker = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
def start_worker(database_url: str) -> OpenWorker:
    def opened(*responses: Response, **options: object) -> object:
        return open_worker(database_url, *responses, **options)  # type: ignore[arg-type]

    return opened  # type: ignore[return-value]


async def test_an_accepted_notification_is_recorded_and_then_acked(
    start_worker: OpenWorker,
) -> None:
    async with start_worker(Accepted(code="250", reference="abc")) as worker:
        item = a_notification()
        await worker.accept(item)
        [pointer] = await worker.due()
        delivery = await worker.run(pointer)
        assert worker.acked == [delivery]
        assert await worker.status(item) is Status.SENT
        assert worker.provider.calls[0].content == {"subject": "Hello", "body": "World"}
        assert item.id not in worker.attempts.in_flight


async def test_a_refused_notification_fails_after_one_call_and_is_in_the_failure_log(
    start_worker: OpenWorker,
) -> None:
    async with start_worker(Refused(code="550", detail="no such user")) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED
        [failure] = await worker.reader.failures(Filter())
        assert (failure.reason, failure.code, failure.tries) == ("refused", "550", 1)
        assert len(worker.provider.calls) == 1


async def test_a_provider_that_stays_unavailable_uses_up_the_tries(
    start_worker: OpenWorker,
) -> None:
    async with start_worker(*[Unavailable(code="503")] * 9) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED
        assert [call.claim for call in worker.provider.calls] == [1, 2, 3]


async def test_throttling_spends_no_try(start_worker: OpenWorker) -> None:
    throttled = Throttled(code="429", after=timedelta(milliseconds=1))
    async with start_worker(*[throttled] * 5) as worker:
        item = a_notification(max_tries=1)
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.SENT
        assert len(worker.provider.calls) == 6


async def test_a_throttled_attempt_is_counted_as_retried_and_not_as_finished(
    start_worker: OpenWorker,
) -> None:
    registry = CollectorRegistry()
    async with start_worker(Throttled(code="429"), registry=registry) as worker:
        await worker.accept(a_notification())
        [pointer] = await worker.due()
        await worker.run(pointer)
    assert counted(registry, "retries") == 1
    assert counted(registry, "finished") == 0


@pytest.mark.parametrize("status", sorted(WAITING))
async def test_a_result_whose_row_waits_is_counted_as_retried_and_not_as_finished(
    start_worker: OpenWorker, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    async def record(results: Sequence[object]) -> Sequence[Recorded]:
        return [Recorded(status, late=False, age_s=0.0) for _ in results]

    registry = CollectorRegistry()
    async with start_worker(Throttled(code="429"), registry=registry) as worker:
        monkeypatch.setattr(worker.store, "record", record)
        await worker.accept(a_notification())
        [pointer] = await worker.due()
        await worker.run(pointer)
    assert counted(registry, "retries") == 1
    assert counted(registry, "finished") == 0


async def test_rejected_credentials_spend_no_try_and_delay_the_retry(
    start_worker: OpenWorker,
) -> None:
    async with start_worker(Unavailable(code="535", spends=False)) as worker:
        item = a_notification(max_tries=1)
        await worker.accept(item)
        [pointer] = await worker.due()
        await worker.run(pointer)
        assert await worker.status(item) is Status.RETRYING
        assert await worker.due() == []


async def test_listeners_get_each_call_once_with_its_queue_provider_and_outcome(
    start_worker: OpenWorker,
) -> None:
    down, sent = Unavailable(code="503"), Accepted(code="250")
    async with start_worker(down, sent) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.SENT
        assert worker.outcomes == [(EMAIL_HIGH, "script", down), (EMAIL_HIGH, "script", sent)]


async def test_listeners_get_a_call_that_the_stop_cancelled(start_worker: OpenWorker) -> None:
    async with start_worker(asyncio.Event()) as worker:
        await worker.accept(a_notification())
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.run(pointer))
            await worker.provider.called.wait()
            task.cancel()
        [(_, _, outcome)] = worker.outcomes
        assert (outcome.name, outcome.code) == ("ambiguous", "stopped")


async def test_a_notification_that_is_not_claimed_is_not_sent(start_worker: OpenWorker) -> None:
    async with start_worker() as worker:
        await worker.accept(a_notification())
        [pointer] = await worker.due()
        await worker.run(pointer)
        await worker.run(pointer)
        assert len(worker.outcomes) == 1


async def test_an_attempt_without_a_provider_is_a_local_outcome_and_is_retried(
    start_worker: OpenWorker,
) -> None:
    async with start_worker() as worker:
        item = a_notification(SMS_HIGH, recipient="+15005550006")
        await worker.accept(item)
        [pointer] = await worker.due()
        await worker.run(pointer)
        [(_, name, outcome)] = worker.outcomes
        assert isinstance(outcome, Unavailable)
        assert (name, outcome.code, outcome.is_local) == ("none", "no_provider", True)
        assert await worker.status(item) is Status.RETRYING


@pytest.mark.parametrize(
    ("policy", "status", "calls"),
    [(OnAmbiguous.RESEND, Status.SENT, 2), (OnAmbiguous.HOLD, Status.FAILED, 1)],
)
async def test_an_ambiguous_send_follows_the_rule_of_its_channel(
    start_worker: OpenWorker, policy: OnAmbiguous, status: Status, calls: int
) -> None:
    async with start_worker(Ambiguous(code="cut"), on_ambiguous=policy) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is status
        assert len(worker.provider.calls) == calls


async def test_a_call_without_a_response_is_ambiguous_after_its_timeout(
    start_worker: OpenWorker,
) -> None:
    async with start_worker(
        asyncio.Event(), on_ambiguous=OnAmbiguous.HOLD, send_timeout_s=0.05
    ) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED
        view = await worker.reader.get(item.id)
        assert view is not None
        assert (view.attempts[0].outcome, view.attempts[0].code) == ("ambiguous", "timeout")


async def test_an_exception_of_a_provider_is_ambiguous_and_the_worker_goes_on(
    start_worker: OpenWorker,
) -> None:
    async with start_worker(RuntimeError("bug"), on_ambiguous=OnAmbiguous.HOLD) as worker:
        item, other = a_notification(), a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED
        await worker.accept(other)
        assert await worker.run_until_final(other) is Status.SENT


async def test_the_second_copy_of_a_pointer_is_acked_and_not_sent(start_worker: OpenWorker) -> None:
    async with start_worker() as worker:
        await worker.accept(a_notification())
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(pointer))
            group.create_task(worker.run(pointer))
        assert len(worker.provider.calls) == 1
        assert len(worker.acked) == 2


async def test_giving_back_a_buffered_copy_does_not_affect_the_attempt_in_flight(
    start_worker: OpenWorker,
) -> None:
    """RabbitMQ reconnected and delivered the message again; then the lane had to shrink."""
    response = asyncio.Event()
    async with start_worker(response) as worker:
        item = a_notification()
        await worker.accept(item)
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(pointer))
            await worker.provider.called.wait()
            await worker.attempts.give_back_pointers([pointer])
            assert await worker.due() == []
            response.set()
        assert await worker.status(item) is Status.SENT
        assert len(worker.provider.calls) == 1


async def test_a_copy_of_a_notification_in_flight_is_acked_without_a_claim(
    start_worker: OpenWorker,
) -> None:
    response = asyncio.Event()
    async with start_worker(response) as worker:
        await worker.accept(a_notification())
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(pointer))
            await worker.provider.called.wait()
            copy = await worker.run(pointer)
            assert worker.acked == [copy]
            assert worker.attempts.in_flight.has(claim_request(pointer))
            response.set()
        assert len(worker.provider.calls) == 1


async def test_a_worker_that_others_may_take_for_dead_sends_nothing(
    start_worker: OpenWorker,
) -> None:
    async with start_worker(alive=[True, False]) as worker:
        item = a_notification()
        await worker.accept(item)
        [pointer] = await worker.due()
        await worker.run(pointer)
        assert worker.provider.calls == []
        assert await worker.status(item) is Status.QUEUED
        [again] = await worker.due()
        assert again.claim == 1


async def test_a_worker_claims_nothing_while_it_is_not_alive(start_worker: OpenWorker) -> None:
    async with start_worker(alive=[False, False, True, True]) as worker:
        item = a_notification()
        await worker.accept(item)
        [pointer] = await worker.due()
        await worker.run(pointer)
        assert [call.claim for call in worker.provider.calls] == [1]


async def test_a_cancellation_inside_the_provider_is_ambiguous(start_worker: OpenWorker) -> None:
    async with start_worker(asyncio.CancelledError(), on_ambiguous=OnAmbiguous.HOLD) as worker:
        item = a_notification()
        await worker.accept(item)
        assert await worker.run_until_final(item) is Status.FAILED
        assert len(worker.acked) == 1


async def test_a_stopping_worker_without_postgres_ends_in_bounded_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.attempt.RECORD_TIMEOUT_S", 0.2)
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), asyncio.Event(), reader_url=database_url) as worker,
    ):
        item = a_notification()
        await worker.accept(item)
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.run(pointer))
            await worker.provider.called.wait()
            proxy.cut()
            task.cancel()
        assert worker.acked == []
    # The block has ended, so the batches have ended too.


async def test_a_cancelled_give_back_is_not_repeated(database_url: str) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), reader_url=database_url) as worker,
    ):
        for _ in range(3):
            await worker.accept(a_notification())
        pointers = await worker.due()
        proxy.cut()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await worker.attempts.give_back_pointers(pointers)


async def test_a_cancelled_attempt_records_its_call_as_ambiguous(start_worker: OpenWorker) -> None:
    async with start_worker(asyncio.Event(), on_ambiguous=OnAmbiguous.HOLD) as worker:
        item = a_notification()
        await worker.accept(item)
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.run(pointer))
            await worker.provider.called.wait()
            task.cancel()
        assert await worker.status(item) is Status.FAILED
        view = await worker.reader.get(item.id)
        assert view is not None
        assert view.attempts[0].code == "stopped"


@pytest.mark.parametrize("when", ["in the call", "in the record"])
async def test_a_sent_notification_that_could_not_be_recorded_is_not_given_back(
    when: str, start_worker: OpenWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.attempt.RECORD_TIMEOUT_S", 0.2)
    recording = asyncio.Event()

    async def refuse(_: object) -> Sequence[Recorded]:
        recording.set()
        raise StoreUnavailable("away")

    async with start_worker(asyncio.Event() if when == "in the call" else Accepted()) as worker:
        monkeypatch.setattr(worker.store, "record", refuse)
        item = a_notification()
        await worker.accept(item)
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(worker.run(pointer))
            await (worker.provider.called if when == "in the call" else recording).wait()
            task.cancel()
        await worker.attempts.release_remaining()
        assert await worker.status(item) is Status.SENDING


async def test_orphans_are_given_back_and_notifications_in_flight_are_not(
    start_worker: OpenWorker,
) -> None:
    hold = asyncio.Event()
    async with start_worker(hold) as worker:
        await worker.accept(a_notification())
        [busy] = await worker.due()
        orphan = a_notification()
        await worker.accept(orphan)
        [claimed] = await worker.due()
        await worker.store.claim([claim_request(claimed)])
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(busy))
            await worker.provider.called.wait()
            assert await worker.attempts.release_orphans() == 1
            assert await worker.status(orphan) is Status.QUEUED
            hold.set()
        assert [pointer.id for pointer in await worker.due()] == [claimed.id]


async def test_a_notification_recorded_while_the_orphans_are_read_is_no_orphan(
    start_worker: OpenWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = asyncio.Event()
    async with start_worker(hold) as worker:
        await worker.accept(a_notification())
        [busy] = await worker.due()
        read = worker.store.claimed_by_me

        async def read_slowly() -> Sequence[ClaimRequest]:
            rows = await read()
            hold.set()
            await running
            return rows

        monkeypatch.setattr(worker.store, "claimed_by_me", read_slowly)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(worker.run(busy))
            await worker.provider.called.wait()
            assert await worker.attempts.release_orphans() == 0


async def _lose_the_claim_reply(worker: Worker, proxy: TcpProxy, pointer: Pointer) -> None:
    """Run an attempt whose claim is committed while its reply is lost."""
    proxy.swallow_replies()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(pointer))
        while not await _is_sending(worker, pointer):
            await asyncio.sleep(0.01)
        proxy.heal()


async def _is_sending(worker: Worker, pointer: Pointer) -> bool:
    view = await worker.reader.get(pointer.id)
    return view is not None and view.status is Status.SENDING


async def test_a_claim_whose_reply_is_lost_is_given_back_and_sent_once(
    database_url: str,
) -> None:
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), reader_url=database_url) as worker,
    ):
        first, item = a_notification(), a_notification()
        await worker.accept(first)
        assert await worker.run_until_final(first) is Status.SENT
        await worker.accept(item)
        [pointer] = await worker.due()
        await _lose_the_claim_reply(worker, proxy, pointer)
        assert len(worker.provider.calls) == 1  # that of the first notification
        assert len(worker.acked) == 2
        assert await worker.run_until_final(item) is Status.SENT
        assert len(worker.provider.calls) == 2


async def test_a_record_whose_reply_is_lost_is_repeated_and_nothing_is_sent_twice(
    database_url: str,
) -> None:
    hold = asyncio.Event()
    async with (
        open_proxy_for(database_url) as proxy,
        open_worker(proxy.url(database_url), Accepted(), hold, reader_url=database_url) as worker,
    ):
        first, item = a_notification(), a_notification()
        await worker.accept(first)
        await worker.run_until_final(first)
        await worker.accept(item)
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group:
            worker.provider.called.clear()
            group.create_task(worker.run(pointer))
            await worker.provider.called.wait()
            proxy.swallow_replies()
            hold.set()
            while await worker.status(item) is not Status.SENT:
                await asyncio.sleep(0.01)
            proxy.heal()
        assert len(worker.acked) == 2
        view = await worker.reader.get(item.id)
        assert view is not None
        assert [attempt.outcome for attempt in view.attempts] == ["accepted"]
        assert len(worker.provider.calls) == 2


class HeldRateLimiter:
    """Records the requests for a slot, and grants them when the test sets `granted`."""

    def __init__(self) -> None:
        self.requests: list[QueueKey] = []
        self.granted = asyncio.Event()

    async def acquire(self, queue: QueueKey) -> None:
        self.requests.append(queue)
        await self.granted.wait()


@asynccontextmanager
async def rows_locked(url: str, span_s: float) -> AsyncIterator[asyncio.Task[None]]:
    """Lock all rows for `span_s` seconds: none can be claimed or given back.

    Yields the task that holds the lock.
    """

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


async def test_a_late_claim_needs_a_new_slot_before_its_call(
    start_worker: OpenWorker, database_url: str
) -> None:
    limiter = HeldRateLimiter()
    async with start_worker(Accepted(), rate_limiter=limiter) as worker:
        item = a_notification()
        await worker.accept(item)
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group:
            async with rows_locked(database_url, 0.3):
                running = group.create_task(worker.run(pointer))
            while not limiter.requests:
                await asyncio.sleep(0.01)
            assert limiter.requests == [item.queue]
            assert not worker.provider.calls
            limiter.granted.set()
            await running
        assert await worker.status(item) is Status.SENT


async def test_a_row_is_given_back_unspent_if_the_new_slot_comes_too_late(
    start_worker: OpenWorker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.delivery.attempt.STALE_AFTER_S", 0.45)
    limiter = HeldRateLimiter()
    async with start_worker(Accepted(), rate_limiter=limiter) as worker:
        item = a_notification()
        await worker.accept(item)
        [pointer] = await worker.due()
        async with asyncio.TaskGroup() as group, rows_locked(database_url, 0.3):
            group.create_task(worker.run(pointer))
        view = await worker.reader.get(item.id)
        assert view is not None
        assert (view.status, view.tries) == (Status.QUEUED, 0)
        assert not worker.provider.calls
