"""When a channel counts as hanging, on a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

from structlog.testing import capture_logs

from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.notification import Channel, QueueKey
from notifier.domain.timing import AttemptTiming
from notifier.ports.broker import Delivery, Pointer
from notifier.scheduling.consumers.lane import InFlightCounter, Lane, QueueRule
from notifier.scheduling.consumers.ticker import Ticker
from notifier.scheduling.gates.hang_detector import HangDetector
from tests.builders import EMAIL_HIGH, EMAIL_LOW, SMS_HIGH, new_id

EMAIL, SMS = Channel("email"), Channel("sms")


class Scene:
    """Lanes whose calls end when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.is_alive = True
        self.metrics = Metrics([EMAIL_HIGH, SMS_HIGH], {}, version="0")
        self.hangs = HangDetector(64, observer=self.metrics, is_alive=lambda: self.is_alive)
        self.lanes = {queue: self._lane(queue) for queue in (EMAIL_HIGH, EMAIL_LOW, SMS_HIGH)}
        self._calls: dict[QueueKey, list[asyncio.Future[bool]]] = {}

    def _lane(self, queue: QueueKey) -> Lane:
        return Lane(
            QueueRule(queue=queue, weight=1.0, target_wait_s=1.0),
            attempts=self,
            ticker=Ticker(lambda: self.now, Random(1)),
            in_flight=InFlightCounter(),
            clock=lambda: self.now,
        )

    async def attempt(self, delivery: Delivery, _: Callable[[Delivery], None]) -> AttemptTiming:
        call: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._calls.setdefault(delivery.pointer.queue, []).append(call)
        return AttemptTiming(seconds=1.0, answered=await call)

    async def give_back_pointers(self, pointers: Sequence[Pointer]) -> None:
        raise AssertionError(pointers)

    async def call(self, group: asyncio.TaskGroup, queue: QueueKey, count: int = 1) -> None:
        for _ in range(count):
            pointer = Pointer(queue=queue, id=new_id(), claim=0, published_at=0.0)
            delivery = Delivery(pointer, redelivered=False, tag=None)
            group.create_task(self.lanes[queue].run_attempt(delivery))
        await asyncio.sleep(0)

    async def end(self, queue: QueueKey, *, answered: bool, count: int = 1) -> None:
        for _ in range(count):
            self._calls[queue].pop().set_result(answered)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def after(self, span_s: float) -> HangDetector:
        self.now += span_s
        self.hangs.look(self.lanes.values(), self.now)
        return self.hangs

    def end_all(self) -> None:
        for calls in self._calls.values():
            while calls:
                calls.pop().set_result(False)


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[Scene, asyncio.TaskGroup]]:
    one = Scene()
    async with asyncio.TaskGroup() as group:
        yield one, group
        one.end_all()


async def test_a_call_of_ten_seconds_without_an_answer_binds_its_channel_alone() -> None:
    async with scene() as (one, group):
        await one.call(group, SMS_HIGH)
        assert one.after(9.9).channel_at_most(SMS) is None
        assert one.after(0.2).channel_at_most(SMS) == 16
        assert one.hangs.channel_at_most(EMAIL) is None


async def test_an_answer_on_another_queue_of_the_channel_ends_it() -> None:
    async with scene() as (one, group):
        await one.call(group, EMAIL_HIGH)
        assert one.after(11).channel_at_most(EMAIL) == 16
        await one.call(group, EMAIL_LOW)
        await one.end(EMAIL_LOW, answered=True)
        assert one.after(0.1).channel_at_most(EMAIL) is None


async def test_a_call_that_timed_out_is_no_answer() -> None:
    async with scene() as (one, group):
        await one.call(group, SMS_HIGH, 2)
        assert one.after(11).channel_at_most(SMS) == 16
        await one.end(SMS_HIGH, answered=False)
        assert one.after(0.1).channel_at_most(SMS) == 16


async def test_one_call_that_hangs_beside_others_that_are_answered_binds_nobody() -> None:
    async with scene() as (one, group):
        await one.call(group, SMS_HIGH)
        for _ in range(12):
            one.after(1.0)
            await one.call(group, SMS_HIGH)
            await one.end(SMS_HIGH, answered=True)
        assert one.after(0.1).channel_at_most(SMS) is None


async def test_a_queue_most_of_whose_calls_are_old_gets_no_more_than_it_holds() -> None:
    async with scene() as (one, group):
        lane = one.lanes[SMS_HIGH]
        lane.consumers = 9
        await one.call(group, SMS_HIGH, 9)
        assert one.after(0.5).held_at_most(lane) is None
        assert one.after(1.0).held_at_most(lane) == 9


async def test_a_few_stuck_calls_bind_no_queue() -> None:
    async with scene() as (one, group):
        lane = one.lanes[SMS_HIGH]
        lane.consumers = 1
        await one.call(group, SMS_HIGH, 4)
        assert one.after(5.0).held_at_most(lane) is None


async def test_that_the_calls_ended_by_their_time_out_does_not_end_it() -> None:
    async with scene() as (one, group):
        await one.call(group, SMS_HIGH, 3)
        assert one.after(11).channel_at_most(SMS) == 16
        await one.end(SMS_HIGH, answered=False, count=3)
        assert one.after(0.1).channel_at_most(SMS) == 16
        assert one.after(60).channel_at_most(SMS) == 16
        await one.call(group, SMS_HIGH)
        await one.end(SMS_HIGH, answered=True)
        assert one.after(0.1).channel_at_most(SMS) is None


async def test_calls_that_time_out_sooner_than_ten_seconds_are_a_hang_too() -> None:
    async with scene() as (one, group):
        for _ in range(3):
            await one.call(group, SMS_HIGH)
            one.after(4)
            await one.end(SMS_HIGH, answered=False)
        await one.call(group, SMS_HIGH)
        assert one.after(0.1).channel_at_most(SMS) == 16


async def test_a_call_that_timed_out_an_hour_ago_is_no_silence() -> None:
    async with scene() as (one, group):
        await one.call(group, SMS_HIGH)
        one.after(5)
        await one.end(SMS_HIGH, answered=False)
        one.after(0.1)
        one.after(3600)
        await one.call(group, SMS_HIGH)
        assert one.after(0.1).channel_at_most(SMS) is None


async def test_a_hang_is_seen_behind_a_call_that_hung_before_the_last_answer() -> None:
    async with scene() as (one, group):
        await one.call(group, SMS_HIGH)
        one.after(5)
        await one.call(group, EMAIL_LOW)
        await one.call(group, SMS_HIGH)
        await one.end(SMS_HIGH, answered=True)
        await one.call(group, SMS_HIGH)
        assert one.after(9.9).channel_at_most(SMS) is None
        assert one.after(0.2).channel_at_most(SMS) == 16


async def test_what_still_hangs_after_the_first_answer_is_lost_and_binds_nothing() -> None:
    async with scene() as (one, group):
        lane = one.lanes[SMS_HIGH]
        lane.consumers = 9
        await one.call(group, SMS_HIGH, 9)
        assert one.after(11).held_at_most(lane) == 9
        assert (lane.stuck, lane.stuck_before_recovery) == (9, 0)
        one.after(1)
        await one.end(SMS_HIGH, answered=True)
        assert one.after(0.1).channel_at_most(SMS) is None
        assert one.hangs.held_at_most(lane) is None
        assert (lane.stuck, lane.stuck_before_recovery) == (0, 8)
        await one.call(group, SMS_HIGH, 6)
        assert one.after(5).held_at_most(lane) == 9
        assert (lane.stuck, lane.stuck_before_recovery) == (6, 8)


async def test_begin_and_end_are_told_once() -> None:
    with capture_logs() as logs:
        async with scene() as (one, group):
            await one.call(group, SMS_HIGH, 9)
            for _ in range(50):
                one.after(0.25)
            await one.end(SMS_HIGH, answered=False, count=9)
            one.after(0.25)
            await one.call(group, SMS_HIGH, 9)
            for _ in range(10):
                one.after(0.25)
            await one.end(SMS_HIGH, answered=True, count=9)
            for _ in range(10):
                one.after(0.25)
    told = [(each["event"], each["log_level"]) for each in logs]
    assert told == [
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


async def test_what_waits_for_postgres_hangs_at_no_provider() -> None:
    async with scene() as (one, group):
        await one.call(group, SMS_HIGH, 9)
        one.is_alive = False
        for _ in range(30):
            assert one.after(1.0).channel_at_most(SMS) is None
        one.is_alive = True
        assert one.after(9.9).channel_at_most(SMS) is None
        await one.call(group, SMS_HIGH)
        one.after(0.1)
        assert one.after(10.1).channel_at_most(SMS) == 16
