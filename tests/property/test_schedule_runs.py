"""Schedules while processes are killed, answers are lost and time passes: nothing twice or lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.delivery.schedule_runner import HOLD_S
from notifier.domain.schedules import Run
from tests.schedule_processes import LIVE, Cut, RunningProcess, World, open_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.domain.schedules import Schedule
    from tests.live_rows import Connection

CRONS: Final = {"minute": "* * * * *", "third": "*/3 * * * *", "once": "2 10 * * *"}
TTL_S: Final = 300
NUMBER_OF_PROCESSES: Final = 3


class Step(NamedTuple):
    """Time passes, and then some processes make a pass at once, each cut off somewhere."""

    seconds: int
    cuts: Sequence[Cut]


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from((1, 6, 20, 31, 60, 61, 200, 400)),
        st.lists(st.sampled_from(Cut), max_size=NUMBER_OF_PROCESSES),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture
async def world(database_url: str, connection: Connection) -> AsyncIterator[World]:
    async with open_world(database_url, connection) as opened:
        yield opened


@pytest.fixture
async def processes(world: World) -> AsyncIterator[Sequence[RunningProcess]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(world.open_process())
            for _ in range(NUMBER_OF_PROCESSES)
        ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=steps)
async def test_each_instant_is_submitted_once_or_counted_as_missed(
    world: World, processes: Sequence[RunningProcess], drawn: Sequence[Step]
) -> None:
    await world.connection.execute("TRUNCATE schedules, notifications, live, idempotency_keys")
    passed = timedelta()
    await world.set_time(passed)
    schedules = {tag: await world.create(cron, tag=tag, ttl_s=TTL_S) for tag, cron in CRONS.items()}
    skipped_before = sum(api.skipped() for api in processes)
    for step in drawn:
        passed += timedelta(seconds=step.seconds)
        await world.set_time(passed)
        async with asyncio.TaskGroup() as group:
            for api, cut in zip(processes, step.cuts, strict=False):
                group.create_task(api.run(cut))
    passed += timedelta(seconds=HOLD_S + 1)
    now = await world.set_time(passed)
    await processes[0].run()
    submitted = await world.submitted()
    come = {tag: instants_until(each, now) for tag, each in schedules.items()}
    keys = await stored_keys(world)
    for tag, schedule in schedules.items():
        instants = come[tag]
        with_key = [at for at in instants if key_of(schedule, at) in keys]
        assert submitted[tag] == len(with_key)
        # Nobody holds the newest one any more; it is submitted unless its ttl has passed.
        if instants and now - instants[-1] < timedelta(seconds=TTL_S):
            assert instants[-1] in with_key
        found = await world.read(schedule)
        assert found.last_at == (with_key[-1] if with_key else None)
        assert found.problem is None
        following = schedule.cron.next_after(max([*instants, world.start]))
        assert found.next_at == following
    skipped = sum(api.skipped() for api in processes) - skipped_before
    missed = sum(map(len, come.values())) - sum(submitted.values())
    if any(Cut.SETTLE_ANSWER in step.cuts for step in drawn):
        assert skipped <= missed, "what was not answered is not counted"
    else:
        assert skipped == missed


def instants_until(schedule: Schedule, now: datetime) -> list[datetime]:
    found = []
    at = schedule.next_at
    while at is not None and at <= now:
        found.append(at)
        at = schedule.cron.next_after(at)
    return found


def key_of(schedule: Schedule, at: datetime) -> object:
    run = Run(
        schedule=schedule.id,
        scope=LIVE,
        cron=schedule.cron,
        notification=b"",
        at=at,
        begun_at=None,
        now=at,
    )
    return run.key.digest


async def stored_keys(world: World) -> set[object]:
    return {row["key"] for row in await world.connection.fetch("SELECT key FROM idempotency_keys")}
