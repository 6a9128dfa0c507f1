"""When a channel or a queue counts as hanging, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from structlog.testing import capture_logs

from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.controls import SendPermission
from notifier.domain.notification import Channel, QueueKey
from notifier.domain.timing import AttemptTiming
from notifier.ports.attempts import ClaimedRow
from notifier.ports.broker import Message, Pointer
from notifier.scheduling.consumers.claim_budget import ClaimBudget
from notifier.scheduling.consumers.held import HeldMessage, LanePointer
from notifier.scheduling.consumers.lane import InFlightCounter, Lane, QueueRule
from notifier.scheduling.consumers.ticker import Ticker
from notifier.scheduling.gates.hang_detector import HangDetector
from tests.builders import EMAIL_HIGH, EMAIL_LOW, SMS_HIGH, claim_request, new_id
from tests.doubles import FixedLiveness
from tests.scheduling_fakes import FakeBackend, claimed_of

EMAIL, SMS = Channel("email"), Channel("sms")


class Worker(FakeBackend):
    """Lanes whose calls the test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.permissions: dict[Channel, SendPermission] = {}
        self.liveness = FixedLiveness()
        self.metrics = Metrics([EMAIL_HIGH, SMS_HIGH], {}, version="0")
        self.detector = HangDetector(64, observer=self.metrics, liveness=self.liveness, gates=self)
        self.lanes = {queue: self._lane(queue) for queue in (EMAIL_HIGH, EMAIL_LOW, SMS_HIGH)}
        self._calls: dict[QueueKey, list[asyncio.Future[bool]]] = {}

    def permission(self, queue: QueueKey) -> SendPermission:
        return self.permissions.get(queue.channel, SendPermission.ALLOWED)

    def _lane(self, queue: QueueKey) -> Lane:
        return Lane(
            QueueRule(queue=queue, weight=1.0, target_wait_s=1.0),
            attempts=self,
            ticker=Ticker(lambda: self.now, Random(1)),
            clock=lambda: self.now,
            in_flight=InFlightCounter(),
            budget=ClaimBudget(),
        )

    async def attempt(self, row: ClaimedRow) -> AttemptTiming:
        call: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._calls.setdefault(row.claimed.queue, []).append(call)
        return AttemptTiming(seconds=1.0, answered=await call)

    async def begin(self, group: asyncio.TaskGroup, queue: QueueKey, count: int = 1) -> None:
        for _ in range(count):
            pointer = Pointer(queue=queue, id=new_id(), claim=0, published_at=0.0)
            message = HeldMessage(Message([pointer], redelivered=False, tag=None), self.now)
            held = LanePointer(pointer, message, self.lanes[queue])
            row = ClaimedRow(claimed_of(pointer), claim_request(pointer), self.now, held)
            group.create_task(self.lanes[queue].run_attempt(row))
        await asyncio.sleep(0)

    async def end(self, queue: QueueKey, *, answered: bool, count: int = 1) -> None:
        for _ in range(count):
            self._calls[queue].pop().set_result(answered)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def after(self, span_s: float) -> HangDetector:
        self.now += span_s
        self.detector.check(self.lanes.values(), self.now)
        return self.detector

    def end_all(self) -> None:
        for calls in self._calls.values():
            while calls:
                calls.pop().set_result(False)


@asynccontextmanager
async def running_worker() -> AsyncIterator[tuple[Worker, asyncio.TaskGroup]]:
    worker = Worker()
    async with asyncio.TaskGroup() as group:
        yield worker, group
        worker.end_all()


async def test_a_call_unanswered_for_ten_seconds_limits_its_channel_and_no_other() -> None:
    async with running_worker() as (worker, group):
        await worker.begin(group, SMS_HIGH)
        assert worker.after(9.9).channel_limit(SMS) is None
        assert worker.after(0.2).channel_limit(SMS) == 16
        assert worker.detector.channel_limit(EMAIL) is None


async def test_an_answer_on_another_queue_of_the_channel_ends_the_limit() -> None:
    async with running_worker() as (worker, group):
        await worker.begin(group, EMAIL_HIGH)
        assert worker.after(11).channel_limit(EMAIL) == 16
        await worker.begin(group, EMAIL_LOW)
        await worker.end(EMAIL_LOW, answered=True)
        assert worker.after(0.1).channel_limit(EMAIL) is None


async def test_a_call_that_timed_out_is_not_an_answer() -> None:
    async with running_worker() as (worker, group):
        await worker.begin(group, SMS_HIGH, 2)
        assert worker.after(11).channel_limit(SMS) == 16
        await worker.end(SMS_HIGH, answered=False)
        assert worker.after(0.1).channel_limit(SMS) == 16


async def test_one_hanging_call_among_answered_ones_limits_nothing() -> None:
    async with running_worker() as (worker, group):
        await worker.begin(group, SMS_HIGH)
        for _ in range(12):
            worker.after(1.0)
            await worker.begin(group, SMS_HIGH)
            await worker.end(SMS_HIGH, answered=True)
        assert worker.after(0.1).channel_limit(SMS) is None


async def test_a_queue_most_of_whose_calls_are_stuck_gets_no_more_consumers() -> None:
    async with running_worker() as (worker, group):
        lane = worker.lanes[SMS_HIGH]
        lane.consumers = 9
        await worker.begin(group, SMS_HIGH, 9)
        assert worker.after(0.5).queue_limit(lane) is None
        assert worker.after(1.0).queue_limit(lane) == 9


async def test_a_few_stuck_calls_limit_no_queue() -> None:
    async with running_worker() as (worker, group):
        lane = worker.lanes[SMS_HIGH]
        lane.consumers = 1
        await worker.begin(group, SMS_HIGH, 4)
        assert worker.after(5.0).queue_limit(lane) is None


async def test_calls_that_end_by_their_time_out_do_not_end_the_limit() -> None:
    async with running_worker() as (worker, group):
        await worker.begin(group, SMS_HIGH, 3)
        assert worker.after(11).channel_limit(SMS) == 16
        await worker.end(SMS_HIGH, answered=False, count=3)
        assert worker.after(0.1).channel_limit(SMS) == 16
        assert worker.after(60).channel_limit(SMS) == 16
        await worker.begin(group, SMS_HIGH)
        await worker.end(SMS_HIGH, answered=True)
        assert worker.after(0.1).channel_limit(SMS) is None


async def test_calls_that_time_out_before_ten_seconds_are_a_hang_too() -> None:
    async with running_worker() as (worker, group):
        for _ in range(3):
            await worker.begin(group, SMS_HIGH)
            worker.after(4)
            await worker.end(SMS_HIGH, answered=False)
        await worker.begin(group, SMS_HIGH)
        assert worker.after(0.1).channel_limit(SMS) == 16


async def test_a_call_that_timed_out_an_hour_ago_is_no_sign_of_a_hang() -> None:
    async with running_worker() as (worker, group):
        await worker.begin(group, SMS_HIGH)
        worker.after(5)
        await worker.end(SMS_HIGH, answered=False)
        worker.after(0.1)
        worker.after(3600)
        await worker.begin(group, SMS_HIGH)
        assert worker.after(0.1).channel_limit(SMS) is None


async def test_a_hang_is_detected_despite_a_call_that_hung_before_the_last_answer() -> None:
    async with running_worker() as (worker, group):
        await worker.begin(group, SMS_HIGH)
        worker.after(5)
        await worker.begin(group, EMAIL_LOW)
        await worker.begin(group, SMS_HIGH)
        await worker.end(SMS_HIGH, answered=True)
        await worker.begin(group, SMS_HIGH)
        assert worker.after(9.9).channel_limit(SMS) is None
        assert worker.after(0.2).channel_limit(SMS) == 16


async def test_calls_that_still_hang_after_the_first_answer_limit_nothing() -> None:
    async with running_worker() as (worker, group):
        lane = worker.lanes[SMS_HIGH]
        lane.consumers = 9
        await worker.begin(group, SMS_HIGH, 9)
        assert worker.after(11).queue_limit(lane) == 9
        assert (lane.calls.stuck, lane.calls.stuck_before_recovery) == (9, 0)
        worker.after(1)
        await worker.end(SMS_HIGH, answered=True)
        assert worker.after(0.1).channel_limit(SMS) is None
        assert worker.detector.queue_limit(lane) is None
        assert (lane.calls.stuck, lane.calls.stuck_before_recovery) == (0, 8)
        await worker.begin(group, SMS_HIGH, 6)
        assert worker.after(5).queue_limit(lane) == 9
        assert (lane.calls.stuck, lane.calls.stuck_before_recovery) == (6, 8)


async def test_begin_and_end_of_a_hang_are_logged_once() -> None:
    with capture_logs() as logs:
        async with running_worker() as (worker, group):
            await worker.begin(group, SMS_HIGH, 9)
            for _ in range(50):
                worker.after(0.25)
            await worker.end(SMS_HIGH, answered=False, count=9)
            worker.after(0.25)
            await worker.begin(group, SMS_HIGH, 9)
            for _ in range(10):
                worker.after(0.25)
            await worker.end(SMS_HIGH, answered=True, count=9)
            for _ in range(10):
                worker.after(0.25)
    events = [(entry["event"], entry["log_level"]) for entry in logs]
    assert events == [
        ("queue_hang_detected", "warning"),
        ("provider_hang_detected", "warning"),
        ("provider_recovered_from_hang", "info"),
        ("queue_recovered_from_hang", "info"),
    ]
    assert logs[0] == {
        "event": "queue_hang_detected",
        "log_level": "warning",
        "queue": "sms.high",
        "oldest_s": 1.2,
        "calls": 9,
    }
    assert (logs[1]["channel"], logs[1]["oldest_s"]) == ("sms", 10.2)


async def test_calls_that_wait_for_postgres_are_no_hang() -> None:
    async with running_worker() as (worker, group):
        await worker.begin(group, SMS_HIGH, 9)
        worker.liveness.value = False
        for _ in range(30):
            assert worker.after(1.0).channel_limit(SMS) is None
        worker.liveness.value = True
        assert worker.after(9.9).channel_limit(SMS) is None
        await worker.begin(group, SMS_HIGH)
        worker.after(0.1)
        assert worker.after(10.1).channel_limit(SMS) == 16


async def test_a_channel_is_unanswered_only_while_it_calls_and_no_breaker_stops_it() -> None:
    async with running_worker() as (worker, group):
        await worker.begin(group, EMAIL_HIGH)
        assert worker.after(12.0).unanswered_s(EMAIL) >= 11
        assert worker.after(0.0).unanswered_s(SMS) == 0.0
        worker.permissions[EMAIL] = SendPermission.BREAKER_OPEN
        assert worker.after(1.0).unanswered_s(EMAIL) == 0.0
        worker.permissions[EMAIL] = SendPermission.ALLOWED
        assert worker.after(60.0).unanswered_s(EMAIL) == 0.0
        await worker.end(EMAIL_HIGH, answered=False)
        await worker.begin(group, EMAIL_HIGH)
        assert worker.after(5.0).unanswered_s(EMAIL) < 6
        await worker.end(EMAIL_HIGH, answered=True)
