"""The campaign guard on a real Postgres: tags with many refusals are paused, once."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from notifier.adapters.postgres import campaign_guard as guard_module
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.controls import PostgresControls, open_controls
from notifier.adapters.postgres.stats import open_stats
from notifier.domain.campaign_guard import REMEMBERED, SHARED_DAYS, GuardRule
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.errors import StoreUnavailable
from notifier.domain.stats import OTHER
from tests.builders import worker_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from asyncpg import Connection as Session
    from asyncpg import Record

    from notifier.adapters.postgres.campaign_guard import PostgresTagGuard
    from notifier.domain.audit import Action
    from tests.live_rows import Connection

RULE: Final = GuardRule(refused_share=0.2, least_results=100, window=timedelta(minutes=10))
SPRING: Final = Scope(ScopeKind.TAG, "spring")
ADD: Final = """
    INSERT INTO stats
    SELECT step, date_trunc(step, now() - $6::interval), $2, $5, 'email.low', $1, 'smtp',
           0, $3, 0, 0, 0, $4, 0, 0, 0, '{}', '{}'
    FROM unnest(ARRAY['minute', 'day']) AS t (step)
    ON CONFLICT (step, at, tenant, is_test, queue, tag, provider) DO UPDATE SET
        sent = stats.sent + excluded.sent, refused = stats.refused + excluded.refused
"""
MINUTE: Final = timedelta(minutes=1)


class World:
    """Two processes with a guard on one Postgres."""

    def __init__(
        self,
        connection: Connection,
        guards: Sequence[PostgresTagGuard],
        controls: PostgresControls,
    ) -> None:
        self.connection = connection
        self.guards = guards
        self.controls = controls

    async def add(
        self,
        tag: str = "spring",
        sent: int = 60,
        refused: int = 40,
        *,
        tenant: str = "",
        is_test: bool = False,
        ago: timedelta = timedelta(0),
    ) -> None:
        await self.connection.execute(ADD, tag, tenant, sent, refused, is_test, ago)

    async def pass_time(self, span: timedelta) -> None:
        """Make everything older."""
        await self.connection.execute("UPDATE stats SET at = at - $1::interval", span)
        await self.connection.execute("UPDATE judged_tags SET at = at - $1::interval", span)

    async def judge(self) -> Mapping[str, bool]:
        """Let one process judge; returns which tags it judged, and whether it paused them."""
        judged = await self.guards[0].judge(RULE)
        return {each.results.tag: each.is_paused for each in judged}

    async def notes(self) -> Mapping[Scope, str]:
        controls = await self.controls.read()
        return {pause.scope: pause.note for pause in controls.pauses}

    async def audit(self) -> Sequence[tuple[str, str, str]]:
        rows = await self.connection.fetch("SELECT actor, action, target FROM audit ORDER BY id")
        return [tuple(row) for row in rows]


@pytest.fixture
async def world(database_url: str, connection: Connection) -> AsyncIterator[World]:
    settings = ConnectionSettings(url=database_url)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_stats(settings, {})) for _ in range(2)]
        controls = await stack.enter_async_context(open_controls(settings, worker_id()))
        yield World(connection, [guard for _, guard in opened], controls)


async def test_a_tag_with_many_refusals_is_paused_and_others_go_on(world: World) -> None:
    await world.add("spring", 30, 20, ago=2 * MINUTE)
    await world.add("spring", 30, 20)
    await world.add("login", 99, 1)
    assert await world.judge() == {"spring": True}
    assert await world.notes() == {
        SPRING: "40% of 100 results within 10 min were bad: 40 refused; guard.refused_share is 20%"
    }
    assert await world.audit() == [("system", "pause.created", "pause:tag:spring")]
    assert await world.judge() == {}
    [event] = await world.connection.fetch(
        "SELECT type, tenant, mode, documents FROM event_batches"
    )
    assert (event["type"], event["tenant"], event["mode"]) == ("pause.created", None, "live")
    [shown] = map(json.loads, event["documents"])
    assert shown["pause"].pop("note").startswith("40% of 100 results")
    assert shown == {"pause": {"kind": "tag", "name": "spring", "expires_at": None}}


async def test_of_many_processes_one_pauses_a_tag(world: World) -> None:
    for number in range(20):
        await world.add(f"t{number}")
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(guard.judge(RULE), name="judge")
            for guard in (*world.guards, *world.guards)
        ]
    judged = [each.results.tag for task in tasks for each in task.result()]
    assert sorted(judged) == sorted(f"t{number}" for number in range(20))
    assert len(await world.audit()) == len(await world.notes()) == 20


async def test_what_the_guard_has_no_reason_to_pause_is_left_alone(world: World) -> None:
    await world.add("few", 50, 49)
    await world.add("good", 81, 20)
    await world.add("old", ago=11 * MINUTE)
    await world.add("tried", is_test=True)
    await world.add("")
    await world.add(OTHER)
    assert await world.judge() == {}
    assert await world.notes() == {}


async def test_the_pause_of_a_person_stays_and_an_expired_one_does_not_count(world: World) -> None:
    await world.add()
    await world.controls.pause(SPRING, note="wrong price", for_s=3600.0)
    assert await world.judge() == {}
    assert await world.notes() == {SPRING: "wrong price"}
    await world.connection.execute("UPDATE holds SET until = now()")
    assert await world.judge() == {"spring": True}
    [pause] = (await world.controls.read()).pauses
    assert pause.expires_at is None
    assert pause.age_s < 60


async def test_a_tag_that_a_person_resumed_is_not_paused_for_what_was_known(world: World) -> None:
    await world.add()
    assert await world.judge() == {"spring": True}
    await world.controls.resume(SPRING)
    assert await world.judge() == {}
    await world.pass_time(2 * MINUTE)
    assert await world.judge() == {}
    await world.add("spring", 55, 45)
    assert await world.judge() == {}, "it is hardly worse"
    await world.add("spring", 0, 100)
    assert await world.judge() == {"spring": True}, "the share of the rest has halved since"
    assert len(await world.audit()) == 2


async def test_after_a_day_a_tag_is_judged_as_if_for_the_first_time(world: World) -> None:
    await world.add()
    assert await world.judge() == {"spring": True}
    await world.controls.resume(SPRING)
    await world.pass_time(REMEMBERED)
    await world.add()
    assert await world.judge() == {"spring": True}


async def test_a_tag_that_another_tenant_uses_is_told_once_and_not_paused(world: World) -> None:
    await world.add(tenant="shop")
    await world.add("spring", 1, 0, tenant="bank", ago=timedelta(days=SHARED_DAYS - 1))
    await world.add("mine", tenant="shop")
    await world.add("mine", 1, 0, tenant="bank", ago=timedelta(days=SHARED_DAYS + 2))
    assert await world.judge() == {"mine": True, "spring": False}
    assert SPRING not in await world.notes()
    assert await world.judge() == {}


async def test_a_process_that_dies_while_it_pauses_leaves_nothing_half_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(connection: Session[Record], action: Action) -> None:
        del action
        connection.terminate()
        raise StoreUnavailable("killed")

    await world.add()
    with monkeypatch.context() as patched:
        patched.setattr(guard_module, "add_action", die)
        with pytest.raises(StoreUnavailable):
            await world.judge()
    assert await world.notes() == {}
    assert await world.guards[1].judge(RULE)
    assert len(await world.audit()) == 1
