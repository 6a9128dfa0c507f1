"""The keeper of the leases, with several processes on one table and a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from notifier.domain.due import DueClass, Position
from notifier.domain.liveness import LEASE_USABLE_S
from notifier.domain.notification import QueueKey, WorkerId
from notifier.lifecycle import Clock, background_task
from notifier.ports.leases import Progress
from tests.builders import EMAIL_HIGH, EMAIL_LOW, QUEUES
from tests.memory_leases import FixedWorkers, LeaseProcess, LeaseTable
from tests.virtual_time import run_virtually

ONE = (EMAIL_HIGH,)
PROGRESS = Progress(
    floors={DueClass.FIRST: Position(datetime(2026, 11, 29, tzinfo=UTC), UUID(int=7))},
    is_backlogged=True,
)


class PassingRelay:
    """Finishes a pass of each lease that its process holds every 100 ms, unless it is stalled."""

    def __init__(self, process: LeaseProcess, stalled: Collection[WorkerId], clock: Clock) -> None:
        self._process = process
        self._stalled = stalled
        self._clock = clock

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            for lease in self._process.keeper.held().values():
                if self._process.id not in self._stalled:
                    lease.passed_at = self._clock()
            await asyncio.sleep(0.1)


class World:
    """Processes on one table. Each is a worker whose relay finishes a pass every 100 ms."""

    def __init__(self, queues: Sequence[QueueKey] = QUEUES) -> None:
        self.table = LeaseTable.of(queues)
        self.workers = FixedWorkers()
        self.stalled: set[WorkerId] = set()

    @asynccontextmanager
    async def running(self, *, may_hold: bool = True) -> AsyncIterator[LeaseProcess]:
        clock = asyncio.get_running_loop().time
        process = LeaseProcess(self.table, self.workers, clock=clock, may_hold=may_hold)

        relay = PassingRelay(process, self.stalled, clock)
        async with background_task(relay, "relay"), background_task(process.keeper, "leases"):
            yield process
        if may_hold:
            self.workers.ids.remove(process.id)


def holders(table: LeaseTable) -> set[WorkerId | None]:
    return set(table.holders().values())


def held(process: LeaseProcess) -> set[QueueKey]:
    return set(process.keeper.held())


def leases_metric(process: LeaseProcess) -> float | None:
    return process.metrics.registry.get_sample_value("notifier_leases")


def test_a_worker_that_is_alone_acquires_all_leases_at_once() -> None:
    async def scenario() -> None:
        world = World()
        with capture_logs() as logs:
            async with world.running() as ann:
                await asyncio.sleep(0.1)
                assert held(ann) == set(QUEUES)
                assert leases_metric(ann) == len(QUEUES)
        assert [(log["event"], log["taken_from"]) for log in logs[: len(QUEUES)]] == [
            ("lease_acquired", None)
        ] * len(QUEUES)
        assert leases_metric(ann) == 0

    run_virtually(scenario())


def test_a_worker_waits_for_its_broker_before_it_acquires_leases() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as ann:
            ann.broker.is_available = False
            await asyncio.sleep(10)
            assert not held(ann)
            ann.broker.is_available = True
            await asyncio.sleep(0.6)
            assert held(ann) == set(QUEUES)

    run_virtually(scenario())


def test_thirty_workers_that_start_at_once_share_the_leases_and_each_has_one_holder() -> None:
    async def scenario() -> None:
        world = World()
        async with asyncio.TaskGroup() as group:
            stop = asyncio.Event()
            clock = asyncio.get_running_loop().time
            processes = [LeaseProcess(world.table, world.workers, clock=clock) for _ in range(30)]
            for process in processes:
                group.create_task(process.keeper.run(stop))
            await asyncio.sleep(0.1)
            assert sorted(queue for process in processes for queue in held(process)) == sorted(
                QUEUES
            )
            assert len(holders(world.table)) > 3
            stop.set()

    run_virtually(scenario())


def test_an_api_process_holds_nothing_and_sees_what_the_holder_said() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running(may_hold=False) as api:
            await asyncio.sleep(5)
            assert holders(world.table) == {None}
            assert not api.keeper.is_backlogged(EMAIL_HIGH)
            async with world.running() as ann:
                await asyncio.sleep(0.1)
                ann.keeper.held()[EMAIL_HIGH].progress = PROGRESS
                assert ann.keeper.is_backlogged(EMAIL_HIGH)
                await asyncio.sleep(1.1)
                assert api.keeper.is_backlogged(EMAIL_HIGH)
                assert not api.keeper.is_backlogged(EMAIL_LOW)
                assert not held(api)

    run_virtually(scenario())


def test_a_stop_releases_all_leases_with_the_progress_written_last() -> None:
    async def scenario() -> None:
        world = World()
        with capture_logs() as logs:
            async with world.running() as ann:
                await asyncio.sleep(0.1)
                ann.keeper.held()[EMAIL_HIGH].progress = PROGRESS
        assert holders(world.table) == {None}
        assert world.table.progress[EMAIL_HIGH] == PROGRESS
        assert not held(ann)
        assert [log["event"] for log in logs].count("lease_released") == len(QUEUES)

    run_virtually(scenario())


def test_a_keeper_that_retires_renews_its_leases_and_acquires_no_more() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as ann:
            await asyncio.sleep(0.1)
            async with world.running() as ben:
                ben.keeper.retire()
                await asyncio.sleep(1)
                ann.keeper.retire()
                world.table.leases[EMAIL_LOW] = world.table.leases[EMAIL_LOW]._replace(term=9)
                await asyncio.sleep(100)
                assert held(ann) == set(QUEUES) - {EMAIL_LOW}
                assert not held(ben)

    run_virtually(scenario())


def test_the_leases_of_a_worker_that_stops_go_to_the_others_at_once() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as ann:
            async with world.running():
                await asyncio.sleep(100)
            await asyncio.sleep(1.1)
            assert held(ann) == set(QUEUES)

    run_virtually(scenario())


def test_nothing_is_held_while_a_renewal_hangs_longer_than_a_lease_is_usable() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as ann:
            await asyncio.sleep(0.1)
            lease = ann.keeper.held()[EMAIL_HIGH]
            ann.store.thawed.clear()
            await asyncio.sleep(LEASE_USABLE_S + 0.1)
            assert not held(ann)
            ann.store.thawed.set()
            await asyncio.sleep(0.6)
            assert ann.keeper.held()[EMAIL_HIGH] is lease

    run_virtually(scenario())


@pytest.mark.parametrize(("delay_s", "longest_s"), [(0.7, 1.0), (0.8, 0.0)])
def test_a_lease_is_usable_from_the_request_of_its_renewal_on(
    delay_s: float, longest_s: float
) -> None:
    async def scenario() -> None:
        world = World(ONE)
        async with world.running() as ann:
            ann.store.delay_s = delay_s  # a statement takes twice as long
            usable_s = 0.0
            for _ in range(200):
                await asyncio.sleep(0.05)
                usable_s += 0.05 * bool(held(ann))
            assert usable_s <= longest_s
            assert world.table.leases[EMAIL_HIGH].holder == ann.id

    run_virtually(scenario())


def test_nothing_is_held_while_the_release_at_a_stop_hangs() -> None:
    async def scenario() -> None:
        world = World(ONE)
        clock = asyncio.get_running_loop().time
        ann, stop = LeaseProcess(world.table, world.workers, clock=clock), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(ann.keeper.run(stop))
            await asyncio.sleep(0.1)
            assert held(ann)
            ann.store.thawed.clear()
            stop.set()
            await asyncio.sleep(0.1)
            assert not held(ann)
            assert holders(world.table) == {ann.id}
            ann.store.thawed.set()
        assert holders(world.table) == {None}

    run_virtually(scenario())


def test_the_leases_of_a_frozen_worker_are_taken_over_and_it_learns_so() -> None:
    async def scenario() -> None:
        world = World(ONE)
        async with world.running() as ann:
            await asyncio.sleep(0.1)
            ann.keeper.held()[EMAIL_HIGH].progress = PROGRESS
            await asyncio.sleep(1)
            async with world.running() as ben:
                await asyncio.sleep(1)
                ann.store.thawed.clear()
                await asyncio.sleep(4.5)
                assert ben.keeper.held()[EMAIL_HIGH].progress == PROGRESS
                ben.keeper.retire()
                with capture_logs() as logs:
                    ann.store.thawed.set()
                    await asyncio.sleep(0.1)
                assert [log["event"] for log in logs] == ["lease_lost"]
                assert (held(ann), held(ben)) == (set(), set(ONE))

    run_virtually(scenario())


def test_an_outage_of_postgres_moves_no_lease() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as ann, world.running() as ben:
            await asyncio.sleep(100)
            before = {queue: lease.term for queue, lease in world.table.leases.items()}
            leases = {**ann.keeper.held(), **ben.keeper.held()}
            with capture_logs() as logs:
                ann.store.is_cut = ben.store.is_cut = True
                await asyncio.sleep(10)
                assert not held(ann) | held(ben)
                ann.store.is_cut = ben.store.is_cut = False
                world.stalled |= {ann.id, ben.id}  # the first passes take long
                await asyncio.sleep(5)
            after = {**ann.keeper.held(), **ben.keeper.held()}
            assert all(after[queue] is lease for queue, lease in leases.items())
            assert {queue: lease.term for queue, lease in world.table.leases.items()} == before
            assert [log["event"] for log in logs] == ["lease_renewal_failed"] * 2

    run_virtually(scenario())


def test_a_lease_whose_acquisition_was_not_answered_is_acquired_again() -> None:
    async def scenario() -> None:
        world = World(ONE)
        async with world.running() as ann:
            ann.store.is_answer_lost = True
            await asyncio.sleep(0.7)
            ann.store.is_answer_lost = False
            await asyncio.sleep(3)
            assert held(ann) == set(ONE)
            assert ann.keeper.held()[EMAIL_HIGH].term == world.table.leases[EMAIL_HIGH].term

    run_virtually(scenario())


def test_a_stalled_relay_loses_its_leases_and_does_not_get_them_back_at_once() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as ann, world.running() as ben:
            world.stalled.add(ann.id)
            with capture_logs() as logs:
                await asyncio.sleep(20)
            given_up = [log for log in logs if log["event"] == "lease_given_up"]
            assert {log["reason"] for log in given_up} == {"relay"}
            assert held(ben) == set(QUEUES)

    run_virtually(scenario())


def test_the_leases_of_a_worker_that_cannot_publish_go_to_another() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as ann:
            await asyncio.sleep(1)
            ann.broker.is_available = False
            for lease in ann.keeper.held().values():
                lease.unpublishable_since = 1.0
            await asyncio.sleep(6)
            assert held(ann) == set(QUEUES)
            async with world.running() as ben:
                await asyncio.sleep(3)
                assert (held(ann), held(ben)) == (set(), set(QUEUES))

    run_virtually(scenario())


def test_leases_are_handed_over_one_by_one_with_their_last_progress() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as ann:
            await asyncio.sleep(1)
            async with world.running() as ben:
                leases = dict(ann.keeper.held())
                while held(ann) == set(leases):
                    await asyncio.sleep(0.1)
                (queue,) = set(leases) - held(ann)
                assert queue not in held(ben)
                leases[queue].progress = PROGRESS
                await asyncio.sleep(1.1)
                assert ben.keeper.held()[queue].progress == PROGRESS
                await asyncio.sleep(120)
                assert held(ann)
                assert len(held(ben)) > 1
                terms = {queue: lease.term for queue, lease in world.table.leases.items()}
                await asyncio.sleep(60)
                assert terms == {queue: lease.term for queue, lease in world.table.leases.items()}

    run_virtually(scenario())


def test_a_stop_without_postgres_ends_and_the_leases_are_taken_over() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as ann:
            with capture_logs() as logs:
                async with world.running() as ben:
                    await asyncio.sleep(100)
                    ben.store.is_cut = True
            assert [log["event"] for log in logs][-1] == "leases_not_released"
            await asyncio.sleep(3.5)
            assert held(ann) == set(QUEUES)

    run_virtually(scenario())
