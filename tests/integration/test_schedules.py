"""Schedules on a real Postgres whose time is moved: each instant is submitted exactly once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
import pytest

from harness.client import until
from notifier.adapters.postgres import suppressions as suppressions_module
from notifier.adapters.postgres.blobs import open_blobs
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.schedules import open_schedules
from notifier.api.schedules.documents import RunProblem
from notifier.delivery.schedule_runner import HOLD_S
from notifier.domain.blobs import blob_id
from notifier.domain.credentials import Mode
from notifier.domain.cron import Cron
from notifier.domain.schedules import MAX_SCHEDULES, ScheduleScope
from notifier.domain.suppressions import NewSuppression, SuppressionScope
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.keys import AuditFilter, TenantRefusal
from notifier.ports.schedules import AddedSchedule, ScheduleRefusal
from notifier.ports.templates import NewTemplate
from tests.live_rows import SESSIONS_THAT_WAIT_FOR_A_LOCK
from tests.schedule_processes import (
    ADA,
    LIVE,
    MINUTE,
    RULES,
    Cut,
    World,
    new_schedule,
    open_world,
)
from tests.stored_templates import email_template

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notifier.domain.schedules import Schedule
    from tests.live_rows import Connection

SHOP = TenantId("shop")
HELD = timedelta(seconds=HOLD_S + 1)
DUE = timedelta(seconds=31)
"""After the start: the next minute has begun."""


@pytest.fixture
async def world(database_url: str, connection: Connection) -> AsyncIterator[World]:
    async with open_world(database_url, connection) as opened:
        yield opened


async def problem_of(world: World, schedule: Schedule) -> RunProblem | None:
    found = await world.read(schedule)
    return None if found.problem is None else msgspec.json.decode(found.problem, type=RunProblem)


async def test_a_schedule_submits_at_its_instants_and_not_between(world: World) -> None:
    schedule = await world.create(tag="a")
    assert schedule.next_at == world.start + timedelta(seconds=30)
    async with world.open_process() as api:
        assert await api.run() == 0
        for minute in range(3):
            now = await world.set_time(DUE + minute * MINUTE)
            assert await api.run() == 1
            assert await api.run() == 0
            found = await world.read(schedule)
            assert found.last_at == now - timedelta(seconds=1)
            assert found.next_at == found.last_at + MINUTE
        newest = await world.connection.fetchrow(
            "SELECT id, expires_at - created_at AS ttl FROM notifications ORDER BY id DESC LIMIT 1"
        )
        assert newest is not None
        assert (await world.read(schedule)).last_notification == newest["id"]
        # An hour for a high one, from its instant on, which is more than a second ago.
        assert timedelta(minutes=59) < newest["ttl"] < timedelta(minutes=60, seconds=-1)
        assert await world.submitted() == {"a": 3}
        assert (api.outcomes(), api.skipped()) == ({"submitted": 3}, 0)


async def test_many_processes_at_once_submit_each_instant_once(world: World) -> None:
    for number in range(120):
        await world.create(tag=f"n{number}")
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(world.open_process()) for _ in range(4)]
        for minute in range(3):
            await world.set_time(DUE + minute * MINUTE)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(api.run()) for api in apis for _ in range(2)]
            assert sum(task.result() for task in tasks) == 120
        assert set((await world.submitted()).values()) == {3}
        assert all(set(api.outcomes()) <= {"submitted"} for api in apis)


@pytest.mark.parametrize("cut", [Cut.BEFORE_SUBMIT, Cut.AFTER_SUBMIT])
async def test_what_a_killed_process_began_another_one_ends_after_a_while(
    world: World, cut: Cut
) -> None:
    schedule = await world.create("0 * * * *", tag="a")
    hour = timedelta(minutes=59, seconds=31)
    async with world.open_process() as doomed, world.open_process() as api:
        await world.set_time(hour)
        assert await doomed.run(cut) == 0
        assert await world.submitted() == ({"a": 1} if cut is Cut.AFTER_SUBMIT else {})
        assert await api.run() == 0, "it is held"
        assert (await world.read(schedule)).next_at == schedule.next_at
        await world.set_time(hour + HELD)
        assert await api.run() == 1
        assert await world.submitted() == {"a": 1}
        outcome = "replayed" if cut is Cut.AFTER_SUBMIT else "submitted"
        assert (api.outcomes(), api.skipped()) == ({outcome: 1}, 0)
        found = await world.read(schedule)
        (row,) = await world.connection.fetch("SELECT id FROM notifications")
        assert (found.last_at, found.last_notification) == (schedule.next_at, row["id"])


@pytest.mark.parametrize("cut", [Cut.SUBMIT_ANSWER, Cut.SETTLE_ANSWER])
async def test_a_lost_answer_of_postgres_submits_nothing_twice(world: World, cut: Cut) -> None:
    schedule = await world.create("0 * * * *", tag="a")
    hour = timedelta(minutes=59, seconds=31)
    async with world.open_process() as api:
        await world.set_time(hour)
        await api.run(cut)
        await world.set_time(hour + HELD)
        await api.run()
        assert await world.submitted() == {"a": 1}
        assert (await world.read(schedule)).last_at == schedule.next_at
        replays = {"postponed": 1, "replayed": 1} if cut is Cut.SUBMIT_ANSWER else {}
        assert api.outcomes() == replays
        assert await problem_of(world, schedule) is None


async def test_an_instant_that_was_begun_and_changed_since_is_not_submitted_twice(
    world: World,
) -> None:
    schedule = await world.create("0 * * * *", tag="a")
    hour = timedelta(minutes=59, seconds=31)
    async with world.open_process() as doomed, world.open_process() as api:
        await world.set_time(hour)
        await doomed.run(Cut.AFTER_SUBMIT)
        changed = new_schedule("0 * * * *", tag="b")
        replaced = await world.schedules.replace(LIVE, schedule.id, changed, ADA)
        assert not isinstance(replaced, ScheduleRefusal)
        assert replaced.next_at == schedule.next_at
        await world.set_time(hour + HELD)
        assert await api.run() == 1
        assert (await world.submitted(), api.outcomes()) == ({"a": 1}, {"replayed": 1})
        await world.set_time(hour + timedelta(hours=1))
        assert await api.run() == 1
        assert await world.submitted() == {"a": 1, "b": 1}


async def test_a_slow_process_and_the_one_after_it_submit_one_notification(world: World) -> None:
    schedule = await world.create("0 * * * *", tag="a")
    hour = timedelta(minutes=59, seconds=31)
    async with world.open_process() as slow, world.open_process() as api:
        await world.set_time(hour)
        (run,) = await slow.process.take(10, HOLD_S)
        await world.set_time(hour + HELD)
        assert await api.run() == 1
        submitted = await slow.runner._ended(run)
        assert await slow.process.settle([submitted.result]) == []
        assert await world.submitted() == {"a": 1}
        assert (await world.read(schedule)).next_at == run.at + timedelta(hours=1)


async def test_after_an_outage_the_newest_instant_is_submitted_and_the_others_are_counted(
    world: World,
) -> None:
    await world.create(tag="a")
    async with world.open_process() as api:
        now = await world.set_time(DUE + 9 * MINUTE)
        assert await api.run() == 2
        assert await world.submitted() == {"a": 1}
        assert (api.outcomes(), api.skipped()) == ({"skipped": 1, "submitted": 1}, 9)
        (schedule,) = await world.schedules.schedules(LIVE)
        assert schedule.last_at == now - timedelta(seconds=1)
        assert schedule.next_at == schedule.last_at + MINUTE


async def test_after_an_outage_longer_than_its_ttl_nothing_of_it_is_submitted(
    world: World,
) -> None:
    schedule = await world.create("1 10 * * *", tag="a", ttl_s=600)
    async with world.open_process() as api:
        await world.set_time(DUE + 10 * MINUTE)
        assert await api.run() == 1
        assert await world.submitted() == {}
        assert (api.outcomes(), api.skipped()) == ({"skipped": 1}, 1)
        found = await world.read(schedule)
        assert (found.last_at, found.problem) == (None, None)
        assert found.next_at == world.start - timedelta(seconds=30) + timedelta(days=1) + MINUTE
        await world.set_time(timedelta(days=1) + DUE + 9 * MINUTE)
        assert await api.run() == 1
        assert await world.submitted() == {"a": 1}


async def test_a_begun_instant_is_not_counted_as_missed_if_it_was_submitted(world: World) -> None:
    await world.create(tag="a")
    async with world.open_process() as doomed, world.open_process() as api:
        await world.set_time(DUE)
        await doomed.run(Cut.AFTER_SUBMIT)
        await world.set_time(DUE + 5 * MINUTE)
        assert await api.run() == 3
        assert await world.submitted() == {"a": 2}
        assert api.outcomes() == {"replayed": 1, "skipped": 1, "submitted": 1}
        assert api.skipped() == 4


@pytest.mark.parametrize("is_key_kept", [True, False])
async def test_an_instant_whose_key_may_be_gone_is_not_submitted_again(
    world: World, is_key_kept: bool
) -> None:
    schedule = await world.create("1 10 * * *", tag="a", ttl_s=10 * 86_400)
    await world.connection.execute("UPDATE schedules SET cron = '1 10 1 1 *'")
    async with world.open_process() as doomed, world.open_process() as api:
        await world.set_time(DUE)
        await doomed.run(Cut.AFTER_SUBMIT)
        if not is_key_kept:
            await world.connection.execute("DELETE FROM idempotency_keys")
        await world.set_time(timedelta(days=1) + HELD + DUE)
        assert await api.run() == 1
        assert await world.submitted() == {"a": 1}
        assert api.outcomes() == ({"replayed": 1} if is_key_kept else {"skipped": 1})
        found = await world.read(schedule)
        assert found.next_at is not None
        assert found.next_at > world.start + timedelta(days=2)


async def test_an_instant_that_no_process_began_is_submitted_however_old(world: World) -> None:
    await world.create("1 10 * * *", tag="a", ttl_s=10 * 86_400)
    await world.connection.execute("UPDATE schedules SET cron = '1 10 1 1 *'")
    async with world.open_process() as api:
        await world.set_time(timedelta(days=3))
        assert await api.run() == 1
        assert (await world.submitted(), api.outcomes()) == ({"a": 1}, {"submitted": 1})


async def test_a_refused_run_is_kept_and_the_schedule_goes_on(world: World) -> None:
    schedule, other = await world.create(tag="a"), await world.create(tag="b", channel="sms")
    await world.connection.execute(
        "UPDATE schedules SET notification = $1 WHERE id = $2",
        new_schedule(
            channel="sms", recipient="+15005550006", content={"body": "b"}, tag="b"
        ).notification,
        other.id,
    )
    without_sms = {name: RULES.channels[name] for name in ("email", "push")}
    async with (
        world.open_process() as api,
        world.open_process(replace(RULES, channels=without_sms)) as restarted,
    ):
        now = await world.set_time(DUE)
        assert await restarted.run() == 2
        assert restarted.outcomes() == {"submitted": 1, "refused": 1}
        problem = await problem_of(world, other)
        assert problem is not None
        assert problem.at == now - timedelta(seconds=1)
        assert problem.problem.errors is not None
        assert problem.problem.errors[0].field == "notification.channel"
        assert await problem_of(world, schedule) is None
        await world.set_time(DUE + MINUTE)
        assert await api.run() == 2
        assert await problem_of(world, other) is None
        assert await world.submitted() == {"a": 2, "b": 1}


async def test_the_newest_version_of_a_template_is_taken_at_each_run(world: World) -> None:
    async def save(**parts: object) -> None:
        document = msgspec.json.encode(email_template(**parts))
        new = NewTemplate(name="daily", channels=["email"], document=document, compiled=document)
        assert await world.templates.save(DEFAULT_TENANT, new, ADA)

    await save(body="Hello {{ name }}")
    variables = {"name": "Ada"}
    schedule = await world.create(content=None, template="daily", variables=variables)
    async with world.open_process() as api:
        await world.set_time(DUE)
        await api.run()
        await save(body="Goodbye {{ name }}")
        await world.set_time(DUE + MINUTE)
        await api.run()
        await save(body="Goodbye {{ name }} {{ order.id }}")
        await world.set_time(DUE + 2 * MINUTE)
        await api.run()
    rows = await world.connection.fetch("SELECT content FROM notifications ORDER BY id")
    versions = [msgspec.json.decode(row["content"])["template"] for row in rows]
    assert versions == ["daily@1", "daily@2"]
    problem = await problem_of(world, schedule)
    assert problem is not None
    assert problem.problem.errors is not None
    assert problem.problem.errors[0].field == "notification.variables"


async def test_a_run_is_postponed_while_it_cannot_be_submitted(world: World) -> None:
    schedule = await world.create("0 * * * *", tag="a")
    hour = timedelta(minutes=59, seconds=31)
    async with world.open_process() as api:
        api.process._accept._backlog = 100_000
        await world.set_time(hour)
        assert await api.run() == 1
        problem = await problem_of(world, schedule)
        assert problem is not None
        assert problem.problem.type.endswith("overloaded")
        api.process._accept._backlog = 0
        assert await api.run() == 0, "it waits"
        await world.set_time(hour + timedelta(seconds=6))
        assert await api.run() == 1
        assert api.outcomes() == {"postponed": 1, "submitted": 1}
        assert await world.submitted() == {"a": 1}
        assert await problem_of(world, schedule) is None


async def test_suppressions_count_at_each_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions_module, "UNKNOWN_FOR_S", 0.0)
    schedule = await world.create(tag="a", recipient="Ada <Ada@example.com>")
    async with world.open_process() as api:
        await world.set_time(DUE)
        await api.run()
        new = NewSuppression(channel="email", recipient="ada@example.com")
        await world.suppressions.add(SuppressionScope(DEFAULT_TENANT, Mode.LIVE), [new], ADA)
        await world.set_time(DUE + MINUTE)
        await api.run()
        assert api.outcomes() == {"submitted": 2}
    (end,) = await world.connection.fetch("SELECT id, status::text FROM ends")
    assert (end["id"], end["status"]) == (
        (await world.read(schedule)).last_notification,
        "suppressed",
    )


async def test_a_test_key_s_schedule_submits_tests_and_a_tenant_s_its_own(world: World) -> None:
    await world.keys.put_tenant(SHOP, note="", author=ADA)
    for scope in (LIVE, ScheduleScope(DEFAULT_TENANT, Mode.TEST), ScheduleScope(SHOP, Mode.LIVE)):
        await world.create(tag=f"{scope.tenant}{scope.mode}", scope=scope)
        assert len(await world.schedules.schedules(scope)) == 1
    async with world.open_process(with_keys=True) as api:
        await world.set_time(DUE)
        assert await api.run() == 3
    rows = await world.connection.fetch(
        "SELECT tenant, test_channel, queue, tag FROM notifications"
    )
    assert {tuple(row) for row in rows} == {
        ("", "", "email.high", "live"),
        ("", "email", "test.high", "test"),
        ("shop", "", "email.high", "shoplive"),
    }


async def test_the_runs_of_a_tenant_that_an_earlier_version_deleted_are_refused(
    world: World,
) -> None:
    await world.keys.put_tenant(SHOP, note="", author=ADA)
    scope = ScheduleScope(SHOP, Mode.LIVE)
    schedule = await world.create(scope=scope)
    await world.connection.execute("DELETE FROM tenants WHERE name = 'shop'")
    async with world.open_process(with_keys=True) as api:
        await world.set_time(DUE)
        assert await api.run() == 1
        assert api.outcomes() == {"refused": 1}
        assert b"notification.tenant" in ((await world.read(schedule)).problem or b"")
        await world.connection.execute(
            "UPDATE deleted_tenants SET deleted_at = now() - interval '9 days'"
        )
        await api.store.prune_tenants((world.start - timedelta(days=1)).date())
        await api.store.prune_tenants((world.start - timedelta(days=1)).date())
    assert await world.schedules.schedules(scope) == []
    assert await world.keys.put_tenant(SHOP, note="", author=ADA) is not None


async def test_a_tenant_with_schedules_is_not_deleted(world: World) -> None:
    await world.keys.put_tenant(SHOP, note="", author=ADA)
    scope = ScheduleScope(SHOP, Mode.TEST)
    schedule = await world.create(scope=scope)
    assert await world.keys.delete_tenant(SHOP, ADA) is TenantRefusal.HAS_SCHEDULES
    assert await world.schedules.delete(scope, schedule.id, ADA)
    assert await world.keys.delete_tenant(SHOP, ADA) is None


async def test_what_a_later_version_understands_is_left_to_its_processes(world: World) -> None:
    await world.create(tag="a")
    await world.connection.execute("UPDATE schedules SET needs = needs || '{later}'::text[]")
    async with world.open_process() as api:
        await world.set_time(DUE)
        assert (await api.run(), await world.submitted()) == (0, {})
        await world.connection.execute("UPDATE schedules SET needs = array_remove(needs, 'later')")
        assert (await api.run(), await world.submitted()) == (1, {"a": 1})


async def test_the_files_of_schedules_are_kept(world: World) -> None:
    kept, other = blob_id(b"kept"), blob_id(b"other")
    settings = ConnectionSettings(url=world.url)
    async with open_blobs(settings) as blobs, world.open_process() as api:
        for id_, data in ((kept, b"kept"), (other, b"other")):
            await blobs.put(DEFAULT_TENANT, id_, data, is_mail=False)
        file = {"filename": "a.txt", "content_type": "text/plain", "blob": kept}
        content = {"subject": "s", "body": "b", "attachments": [file]}
        schedule = await world.create(content=content)
        far = (world.start + timedelta(days=90)).date()
        await api.store.prune_blobs(far)
        assert set(await blobs.keep(DEFAULT_TENANT, [kept, other])) == {kept}
        await world.set_time(DUE)
        await api.run()
        assert api.outcomes() == {"submitted": 1}
        await world.schedules.delete(LIVE, schedule.id, ADA)
        await api.store.prune_blobs(far)
        assert await blobs.keep(DEFAULT_TENANT, [kept]) == {}


async def test_the_same_schedule_is_stored_once_and_only_in_its_scope(world: World) -> None:
    first = await world.schedules.create(LIVE, new_schedule(tag="a"), ADA)
    again = await world.schedules.create(LIVE, new_schedule("*  * * * *", tag="a", note="x"), ADA)
    assert isinstance(first, AddedSchedule)
    assert isinstance(again, AddedSchedule)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.schedule == first.schedule
    other = await world.create(tag="b")
    same = await world.schedules.replace(LIVE, other.id, new_schedule(tag="a"), ADA)
    assert same is ScheduleRefusal.EXISTS
    tests = ScheduleScope(DEFAULT_TENANT, Mode.TEST)
    for scope in (tests, ScheduleScope(SHOP, Mode.LIVE)):
        assert await world.schedules.schedule(scope, other.id) is None
        unknown = await world.schedules.replace(scope, other.id, new_schedule(), ADA)
        assert unknown is ScheduleRefusal.UNKNOWN
        assert not await world.schedules.delete(scope, other.id, ADA)
    assert not await world.schedules.delete(LIVE, uuid4(), ADA)
    nobody = ScheduleScope(TenantId("nobody"), Mode.LIVE)
    assert await world.schedules.create(nobody, new_schedule(), ADA) is (
        ScheduleRefusal.UNKNOWN_TENANT
    )


async def test_a_tenant_has_a_maximum_of_schedules_of_a_mode(world: World) -> None:
    await world.create(tag="a")
    await world.connection.execute(
        """INSERT INTO schedules (id, tenant, mode, digest, cron, time_zone, notification, needs,
                                  blobs, note, paused)
           SELECT gen_random_uuid(), '', 'live', gen_random_uuid(), cron, time_zone, notification,
                  needs, blobs, '', true
           FROM schedules, generate_series(2, $1)""",
        MAX_SCHEDULES,
    )
    assert await world.schedules.create(LIVE, new_schedule(), ADA) is ScheduleRefusal.TOO_MANY
    assert isinstance(await world.schedules.create(LIVE, new_schedule(tag="a"), ADA), AddedSchedule)
    await world.create(scope=ScheduleScope(DEFAULT_TENANT, Mode.TEST))


async def test_equal_creations_at_once_make_one_schedule(world: World) -> None:
    async with AsyncExitStack() as stack:
        stores = []
        for _ in range(4):
            opened = open_schedules(ConnectionSettings(url=world.url), ())
            stores.append((await stack.enter_async_context(opened))[0])
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(each.create(LIVE, new_schedule(tag="a"), ADA)) for each in stores
            ]
        added = [task.result() for task in tasks]
    assert sorted(isinstance(each, AddedSchedule) and each.is_new for each in added) == (
        [False] * 3 + [True]
    )


async def test_a_pause_lets_instants_pass_and_a_change_counts_from_now(world: World) -> None:
    schedule = await world.create(tag="a")

    async def replace_with(
        cron: str = "* * * * *", *, paused: bool = False, tag: str = "a"
    ) -> object:
        new = new_schedule(cron, paused=paused, tag=tag)
        stored = await world.schedules.replace(LIVE, schedule.id, new, ADA)
        assert not isinstance(stored, ScheduleRefusal)
        return stored.next_at

    async with world.open_process() as api:
        now = await world.set_time(DUE)
        assert await replace_with(tag="b") == schedule.next_at, "the instant that has come stays"
        assert await replace_with(paused=True) is None
        assert await api.run() == 0
        await world.set_time(DUE + 5 * MINUTE)
        assert await api.run() == 0
        second = timedelta(seconds=1)
        assert await replace_with() == now - second + 6 * MINUTE
        assert await replace_with("0 12 * * *") == now.replace(hour=12, minute=0, second=0)
        assert await replace_with() == now - second + 6 * MINUTE
        assert (await api.run(), api.skipped()) == (0, 0)


async def test_a_schedule_that_is_paused_during_its_run_keeps_its_last_notification(
    world: World,
) -> None:
    schedule = await world.create(tag="a")
    async with world.open_process() as api:
        await world.set_time(DUE)
        (run,) = await api.process.take(10, HOLD_S)
        ended = await api.runner._ended(run)
        await world.schedules.replace(LIVE, schedule.id, new_schedule(tag="a", paused=True), ADA)
        assert await api.process.settle([ended.result]) == []
        found = await world.read(schedule)
        assert (found.next_at, found.last_at) == (None, schedule.next_at)
        assert found.last_notification == ended.result.notification


async def test_a_result_waits_for_a_change_that_is_being_made_and_follows_it(
    world: World,
) -> None:
    schedule = await world.create(tag="a")
    async with world.open_process() as api, asyncio.TaskGroup() as group:
        await world.set_time(DUE)
        (run,) = await api.process.take(10, HOLD_S)
        ended = await api.runner._ended(run)
        async with world.connection.transaction():
            await world.connection.execute("UPDATE schedules SET next_at = NULL, paused = true")
            settling = group.create_task(api.process.settle([ended.result]))
            await until(
                lambda: world.connection.fetchval(SESSIONS_THAT_WAIT_FOR_A_LOCK),
                lambda waiting: waiting > 0,
            )
        assert await settling == []
        found = await world.read(schedule)
        assert (found.next_at, found.last_notification) == (None, ended.result.notification)


async def test_every_change_is_in_the_audit_without_the_recipient(world: World) -> None:
    schedule = await world.create(recipient="ada@example.com", note="why")
    changed = new_schedule("0 9 * * *", "Europe/Berlin", recipient="ada@example.com")
    await world.schedules.replace(LIVE, schedule.id, changed, ADA)
    await world.schedules.delete(LIVE, schedule.id, ADA)
    page = await world.keys.audit(AuditFilter(tenant=DEFAULT_TENANT))
    actions = [entry.action for entry in reversed(page.entries)]
    names = ["schedule.created", "schedule.changed", "schedule.deleted"]
    assert [action.name for action in actions] == names
    assert {action.target for action in actions} == {f"schedule:{schedule.id}"}
    created, change, deleted = actions
    assert created.after is not None
    assert (created.after["cron"], created.note) == ("* * * * *", "why")
    assert change.before == created.after
    assert change.after == deleted.before
    assert "example.com" not in str(actions)


async def test_a_machine_without_the_time_zone_leaves_the_instant_to_others(world: World) -> None:
    schedule = await world.create(tag="a")
    await world.connection.execute("UPDATE schedules SET time_zone = 'Mars/Olympus'")
    async with world.open_process() as api:
        await world.set_time(DUE)
        assert await api.run() == 1
        assert api.outcomes() == {"postponed": 1}
        assert await world.submitted() == {}
        assert (await world.read(schedule)).cron == Cron("* * * * *", "Mars/Olympus")
        await world.connection.execute("UPDATE schedules SET time_zone = 'UTC'")
        await world.set_time(DUE + HELD)
        assert await api.run() == 1
        assert await world.submitted() == {"a": 1}
