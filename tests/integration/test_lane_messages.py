"""What becomes of the messages that a lane holds: acked once, given back in time, or dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import permutations

import pytest

from notifier.ports.attempts import ClaimedRow
from notifier.ports.broker import Message
from notifier.scheduling.cluster.peer_load import PeerLoad
from tests.builders import EMAIL_LOW
from tests.lane_fakes import LaneGroup, open_lanes
from tests.scheduling_fakes import FakeBackend, now
from tests.virtual_time import run_virtually


class HeldBackend(FakeBackend):
    """A provider whose calls the test ends, by notification; those not in `held` end as usual."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Callable[[ClaimedRow], bool] = lambda _: True
        self._calls: dict[object, asyncio.Event] = {}

    async def call(self, row: ClaimedRow) -> bool:
        if not self.held(row):
            return await super().call(row)
        await self._calls.setdefault(row.claimed.id, asyncio.Event()).wait()
        return True

    def end(self, id_: object) -> None:
        self._calls[id_].set()

    def end_all(self) -> None:
        for call in self._calls.values():
            call.set()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_message_is_acked_once_after_the_last_of_its_pointers(order: tuple[int, ...]) -> None:
    async def scene() -> None:
        backend = HeldBackend()
        async with open_lanes(backend) as group:
            [message] = group.put(3)
            await asyncio.sleep(0.1)
            lane, queue = group.lanes[EMAIL_LOW], group.queues[EMAIL_LOW]
            for left, place in zip((2, 1, 0), order, strict=True):
                assert not queue.acked
                backend.end(message.pointers[place].id)
                await asyncio.sleep(0.001)
                assert lane.held == left
            assert queue.acked == [message]

    run_virtually(scene())


def test_a_message_is_acked_after_its_results_are_recorded_and_not_before() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.record_s = 1.0
        async with open_lanes(backend) as group:
            [message] = group.put(3)
            await asyncio.sleep(0.9)
            assert (len(backend.calls), group.queues[EMAIL_LOW].acked) == (3, [])
            assert (group.lanes[EMAIL_LOW].busy, group.lanes[EMAIL_LOW].held) == (0, 3)
            await asyncio.sleep(0.2)
            assert group.queues[EMAIL_LOW].acked == [message]

    run_virtually(scene())


def test_pointers_sent_given_back_and_moved_on_settle_a_message_together() -> None:
    """Of five, two are sent, one has moved on, and two go back unclaimed."""

    async def scene() -> None:
        backend = HeldBackend()
        async with open_lanes(backend, consumers=3) as group:
            [other] = group.put(1)
            await asyncio.sleep(0.1)
            backend.end_all()
            await asyncio.sleep(0.1)
            pointers = [*other.pointers, *backend.pointers(EMAIL_LOW, 5)]
            message = group.queues[EMAIL_LOW].put(pointers)
            await asyncio.sleep(0.1)
            assert len(backend.calls) == 1 + 3
            group.stopped.add(EMAIL_LOW)
            group.tick()
            await asyncio.sleep(0.1)
            assert backend.returned == pointers[4:]
            assert message not in group.queues[EMAIL_LOW].acked
            backend.end_all()
            await asyncio.sleep(0.1)
            assert group.queues[EMAIL_LOW].acked == [other, message]
            assert group.budget.bytes_left + group.budget.rows_left == 32 * 1024 * 1024 + 1_024

    run_virtually(scene())


def test_nothing_is_acked_after_its_connection_was_lost_and_what_was_claimed_goes_on() -> None:
    async def scene() -> None:
        backend = HeldBackend()
        async with open_lanes(backend) as group:
            lane, queue = group.lanes[EMAIL_LOW], group.queues[EMAIL_LOW]
            [message] = group.put(6)
            await asyncio.sleep(0.1)
            queue.cut()
            assert (lane.busy, lane.held) == (4, 0)
            await asyncio.sleep(0.1)
            # Delivered again: the four in flight are copies, two are unclaimed.
            assert lane.held == 6
            backend.end_all()
            await asyncio.sleep(0.1)
            backend.end_all()
            await asyncio.sleep(0.1)
            assert len(backend.recorded) == 6
            assert set(backend.ids_called().values()) == {1}
            # The two that were unclaimed were dropped, and claimed only as delivered again.
            assert backend.rows_claimed == 4 + 6
            [again] = queue.acked
            assert again is not message
            assert again.redelivered

    run_virtually(scene())


def test_a_claim_under_way_when_the_connection_is_lost_is_sent() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.claim_s = 0.5
        async with open_lanes(backend) as group:
            group.put(4)
            await asyncio.sleep(0.1)
            group.queues[EMAIL_LOW].cut()
            await asyncio.sleep(3)
            assert len(backend.recorded) == 4
            assert set(backend.ids_called().values()) == {1}
            assert len(group.queues[EMAIL_LOW].acked) == 1

    run_virtually(scene())


def test_pointers_that_are_being_given_back_when_the_connection_is_lost_are_not_acked() -> None:
    async def scene() -> None:
        backend = HeldBackend()
        backend.return_s = 1.0
        async with open_lanes(backend, consumers=1) as group:
            group.put(4)
            await asyncio.sleep(0.1)
            group.stopped.add(EMAIL_LOW)
            group.tick()
            await asyncio.sleep(0.5)
            group.queues[EMAIL_LOW].cut()
            await asyncio.sleep(1)
            assert len(backend.returned) == 3
            assert not group.queues[EMAIL_LOW].acked

    run_virtually(scene())


def stop_by_pause(group: LaneGroup) -> None:
    group.stopped.add(EMAIL_LOW)
    group.tick()


def stop_by_suspension(group: LaneGroup) -> None:
    group.stopped.add(EMAIL_LOW)
    group.lanes[EMAIL_LOW].suspend()


def stop_for_good(group: LaneGroup) -> None:
    group.lanes[EMAIL_LOW].stop_taking()


@pytest.mark.parametrize("stop", [stop_by_pause, stop_by_suspension, stop_for_good])
@pytest.mark.parametrize("rate", [None, 1_000.0])
def test_rows_not_begun_go_back_at_once_when_the_queue_is_stopped_and_none_begins_after(
    stop: Callable[[LaneGroup], None], rate: float | None
) -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_lanes(backend, consumers=10, consumer_rate=rate) as group:
            messages = group.put(64, messages=40)
            await asyncio.sleep(3)
            claimed = backend.rows_claimed
            assert claimed > len(backend.calls)  # some are ahead of the consumers
            stop(group)
            stopped_at, calls = now(), len(backend.calls)
            await asyncio.sleep(0.05)
            assert len(backend.returned_rows) == claimed - calls > 0
            await asyncio.sleep(5)
            assert (len(backend.calls), backend.rows_claimed) == (calls, claimed)
            assert all(at < stopped_at + 0.01 for at, _ in backend.returned_rows)
            assert group.lanes[EMAIL_LOW].held == 0
            delivered = len(group.queues[EMAIL_LOW].acked)
            assert set(group.queues[EMAIL_LOW].acked) == set(messages[:delivered])
            assert len(backend.recorded) + len(backend.returned) == 64 * delivered

    run_virtually(scene())


@pytest.mark.parametrize("rate", [None, 1_000.0])
def test_a_claim_under_way_when_the_queue_is_stopped_goes_back_as_soon_as_it_is_there(
    rate: float | None,
) -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.claim_s = 0.5
        async with open_lanes(backend, consumer_rate=rate) as group:
            group.put(4)
            await asyncio.sleep(0.1)
            assert backend.rows_claimed == 4
            group.lanes[EMAIL_LOW].stop_taking()
            for loop in group.loops:
                await loop.wait_idle()
            await group.lanes[EMAIL_LOW].close()
            assert (len(backend.returned_rows), len(backend.calls)) == (4, 0)
            assert len(group.queues[EMAIL_LOW].acked) == 1

    run_virtually(scene())


@pytest.mark.parametrize("rate", [None, 1_000.0])
def test_a_claim_under_way_when_the_queue_is_paused_goes_back_as_soon_as_it_is_there(
    rate: float | None,
) -> None:
    async def scene() -> None:
        backend = FakeBackend()
        backend.claim_s = 0.5
        async with open_lanes(backend, consumer_rate=rate) as group:
            group.put(4)
            await asyncio.sleep(0.1)
            stop_by_pause(group)
            await asyncio.sleep(1)
            assert (len(backend.returned_rows), len(backend.calls)) == (4, 0)
            claimed_at = backend.claims[0].at + 0.5
            assert all(at < claimed_at + 0.01 for at, _ in backend.returned_rows)
            assert len(group.queues[EMAIL_LOW].acked) == 1

    run_virtually(scene())


def test_a_queue_that_was_stopped_for_a_moment_continues_with_what_it_holds() -> None:
    async def scene() -> None:
        backend = HeldBackend()
        async with open_lanes(backend) as group:
            group.put(64)
            await asyncio.sleep(0.1)
            lane = group.lanes[EMAIL_LOW]
            backend.return_s = 1.0
            lane.suspend()
            group.tick()
            backend.held = lambda _: False
            backend.end_all()
            await asyncio.sleep(5)
            assert len(backend.recorded) + len(backend.returned) == 64
            assert len(group.queues[EMAIL_LOW].acked) == 1

    run_virtually(scene())


def test_consumers_that_wait_get_rows_at_the_end_of_a_pause_without_a_new_message() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_lanes(backend) as group:
            backend.is_ready.clear()
            group.put(4)
            await asyncio.sleep(0.1)
            lane = group.lanes[EMAIL_LOW]
            lane.suspend()
            backend.is_ready.set()
            await asyncio.sleep(0)
            group.tick()
            await asyncio.sleep(0.2)
            assert len(backend.recorded) + len(backend.returned) == 4

    run_virtually(scene())


def test_a_probe_claims_and_sends_exactly_one() -> None:
    async def scene() -> None:
        backend = HeldBackend()
        async with open_lanes(backend, consumers=10) as group:
            backend.held = lambda _: False
            group.put(64, messages=60)
            await asyncio.sleep(2)
            group.stopped.add(EMAIL_LOW)
            group.tick()
            await asyncio.sleep(1)
            calls, claims = len(backend.calls), backend.rows_claimed
            backend.held = lambda _: True
            group.stopped.clear()
            group.probed.add(EMAIL_LOW)
            group.tick()
            await asyncio.sleep(5)
            assert (len(backend.calls), backend.rows_claimed) == (calls + 1, claims + 1)
            assert group.queues[EMAIL_LOW].unacked == 1
            backend.end_all()
            await asyncio.sleep(0.1)
            assert (len(backend.calls), backend.rows_claimed) == (calls + 2, claims + 2)
            backend.held = lambda _: False
            backend.end_all()
            group.probed.clear()
            group.tick()
            await asyncio.sleep(1)
            assert len(backend.calls) > calls + 100

    run_virtually(scene())


def test_claimed_rows_go_back_after_two_seconds_though_no_consumer_takes_any() -> None:
    async def scene() -> None:
        backend = HeldBackend()
        async with open_lanes(backend, consumers=10) as group:
            backend.held = lambda _: False
            group.put(64, messages=40)
            await asyncio.sleep(3)
            backend.held = lambda _: True  # from now on every call hangs
            await asyncio.sleep(0.1)
            calls = len(backend.calls)
            claimed_at = {
                pointer.id: batch.at for batch in backend.claims for pointer in batch.pointers
            }
            waiting = claimed_at.keys() - backend.ids_called().keys()
            assert waiting
            await asyncio.sleep(2.5)
            assert len(backend.calls) == calls
            returned = {id_: at for at, id_ in backend.returned_rows}
            assert waiting <= returned.keys()
            for id_ in waiting:
                assert 2.0 <= returned[id_] - claimed_at[id_] < 2.3
            await asyncio.sleep(10)
            assert backend.rows_claimed - len(backend.returned_rows) == calls

    run_virtually(scene())


def test_after_a_rate_cut_the_rows_that_would_wait_go_back_after_two_seconds() -> None:
    async def scene() -> None:
        backend = HeldBackend()
        backend.held = lambda _: False
        async with open_lanes(backend, consumers=20, consumer_rate=10) as group:
            group.put(64, messages=100)
            await asyncio.sleep(5)
            ahead = backend.rows_claimed - len(backend.calls)
            assert ahead > 5
            for consumer in group.consumers[EMAIL_LOW][1:]:
                consumer.assign(None)  # a twentieth of the rate is left
            del group.consumers[EMAIL_LOW][1:]
            cut_at = now()
            await asyncio.sleep(3)
            assert len(backend.returned_rows) >= ahead - 10 * 3
            for at, _ in backend.returned_rows:
                assert cut_at < at < cut_at + 2.6
            called = {id_ for at, _, id_ in backend.calls}
            assert not called & {id_ for _, id_ in backend.returned_rows}

    run_virtually(scene())


@pytest.mark.parametrize(
    ("idle_peers", "held_s"), [(1, 1.0), (0, 60.0)], ids=["idle peers", "busy peers"]
)
def test_unclaimed_pointers_go_back_when_others_could_send_them(
    idle_peers: int, held_s: float
) -> None:
    async def scene() -> None:
        backend = HeldBackend()
        async with open_lanes(backend) as group:
            group.peer_load[EMAIL_LOW] = PeerLoad(idle=idle_peers)
            group.put(64)
            await asyncio.sleep(held_s - 0.1)
            assert (len(backend.calls), backend.returned) == (4, [])
            await asyncio.sleep(0.5)
            assert len(backend.returned) == 60
            assert group.lanes[EMAIL_LOW].held == 4
            assert not backend.returned_rows

    run_virtually(scene())


def test_pointers_stay_beside_idle_peers_where_the_rate_is_the_limit() -> None:
    async def scene() -> None:
        backend = FakeBackend()
        async with open_lanes(backend, consumer_rate=0.02) as group:
            group.peer_load[EMAIL_LOW] = PeerLoad(idle=10)
            group.put(64)
            await asyncio.sleep(30)
            assert not backend.returned

    run_virtually(scene())


def test_a_message_of_slow_sends_does_not_hold_up_the_consumers_of_another_worker() -> None:
    """64 slow sends in one message, two workers with four consumers each."""

    async def scene() -> None:
        backend = FakeBackend()
        backend.latency_s = 4.0
        async with open_lanes(backend) as first, open_lanes(backend) as second:
            first.put(64)
            for _ in range(80):
                await asyncio.sleep(0.5)
                for group, peer in ((first, second), (second, first)):
                    figures = peer.lanes[EMAIL_LOW].figures()
                    idle = figures.consumers - figures.busy
                    group.peer_load[EMAIL_LOW] = PeerLoad(idle=idle)
                for pointer in backend.returned:  # published again, where the least is held
                    least = min(first, second, key=lambda group: group.queues[EMAIL_LOW].depth)
                    least.queues[EMAIL_LOW].put([pointer])
                    await asyncio.sleep(0.001)
                backend.returned.clear()
            # One worker alone would take 64 s, both together take 32 s.
            assert len(backend.recorded) == 64
            assert set(backend.ids_called().values()) == {1}

    run_virtually(scene())


def test_a_message_with_one_hanging_call_takes_no_place_of_others() -> None:
    async def scene() -> None:
        backend = HeldBackend()
        async with open_lanes(backend, consumers=8) as group:
            messages = group.put(64, messages=2_000)
            # The first call of each of the first six messages hangs.
            hanging = {message.pointers[0].id for message in messages[:6]}
            backend.held = lambda row: row.claimed.id in hanging
            await asyncio.sleep(4)
            queue = group.queues[EMAIL_LOW]
            assert not set(messages[:6]) & set(queue.acked)
            done = len(backend.recorded)
            await asyncio.sleep(4)
            # The two free consumers never wait: 100 a second.
            assert len(backend.recorded) - done >= 0.97 * 400
            assert queue.prefetch >= 8
            backend.end_all()
            await asyncio.sleep(4)
            assert set(messages[:6]) <= set(queue.acked)

    run_virtually(scene())


def test_rows_that_were_not_claimed_do_not_hide_that_a_message_waits_for_one_call() -> None:
    async def scene() -> None:
        backend = HeldBackend()
        async with open_lanes(backend, consumers=5) as group:
            queue = group.queues[EMAIL_LOW]
            backend.held = lambda _: False
            [sent] = group.put(32)
            await asyncio.sleep(2)
            assert queue.prefetch == 2
            messages: list[Message] = []
            for _ in range(3):
                hanging = backend.pointers(EMAIL_LOW, 1)
                messages.append(queue.put([*hanging, *sent.pointers]))
            slow = {message.pointers[0].id for message in messages}
            backend.held = lambda row: row.claimed.id in slow
            await asyncio.sleep(2)
            assert queue.unacked == 3
            group.put(32, messages=10)
            await asyncio.sleep(8)
            assert len(queue.acked) == 1 + 10

    run_virtually(scene())
