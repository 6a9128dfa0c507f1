"""Fallbacks on a real Postgres whose time is moved: each is submitted once, if it is needed."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
from structlog.testing import capture_logs

from notifier.adapters.postgres import suppressions as suppressions_module
from notifier.adapters.postgres.connection import ConnectionSettings, open_connection
from notifier.adapters.postgres.fallbacks import SESSION_SETTINGS
from notifier.adapters.postgres.statements import statement
from notifier.api.rules import AddressKind, ChannelRules
from notifier.api.submission.idempotency import RequestKeys
from notifier.api.submission.stored_fields import KNOWN_FIELDS
from notifier.delivery.fallback_runner import HOLD_S, RETRY
from notifier.domain.credentials import Mode
from notifier.domain.errors import InvalidNotification
from notifier.domain.fallbacks import FIRST_LOOK
from notifier.domain.notification import Status
from notifier.domain.schedules import KEY_KEPT
from notifier.domain.suppressions import NewSuppression, SuppressionScope
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.ports.keys import Author
from tests.builders import a_result
from tests.fallback_processes import (
    AFTER,
    SMS,
    RunningProcess,
    World,
    fallback_body,
    first_one,
    open_world,
)
from tests.live_rows import cancel_by, claim_new, retry_by
from tests.schedule_processes import RULES, Cut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from notifier.api.rules import ApiRules
    from notifier.domain.notification import NewNotification
    from tests.live_rows import Connection

ADA = Author(actor="cli:ada@desk")
SECOND = timedelta(seconds=1)
LOOK = FIRST_LOOK + 3 * SECOND
"""After a submit: the notification is looked at for the first time."""
DUE = AFTER + 10 * SECOND
"""After a submit: its fallback is due."""
HELD = timedelta(seconds=HOLD_S + 1)


@pytest.fixture
async def world(database_url: str, connection: Connection) -> AsyncIterator[World]:
    async with open_world(database_url, connection) as opened:
        yield opened


async def record(
    api: RunningProcess, item: NewNotification, status: Status = Status.SENT, **result: str
) -> None:
    """Send a notification, with this result."""
    claimed = await claim_new(api.store, item)
    await api.store.record([a_result(claimed, status, **result)])  # type: ignore[arg-type]


async def fail(api: RunningProcess, item: NewNotification) -> None:
    await record(api, item, Status.FAILED, outcome="refused", reason="refused", code="21211")


async def rows(world: World) -> list[tuple[bool, bool, bool]]:
    """For each fallback: whether it is done, was submitted, and still has its document."""
    found = await world.connection.fetch("SELECT * FROM fallbacks ORDER BY id")
    return [
        (row["look_at"] is None, row["notification"] is not None, row["submit"] is not None)
        for row in found
    ]


async def test_what_is_sent_in_time_needs_no_fallback(world: World) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await record(api, item)
        assert await api.run() == 0, "it is too early to look"
        await world.set_time(LOOK)
        assert await api.run() == 1
        await world.set_time(DUE)
        assert await api.run() == 0
        assert (await world.stored(), api.outcomes()) == (1, {"dropped": 1})
        assert await rows(world) == [(True, False, False)]
        shown = (await world.view(item.id)).fallback
        assert shown is not None
        assert (shown.after_s, shown.channel, shown.notification) == (600, "sms", None)


def with_receipts() -> ApiRules:
    """Rules of channels whose providers send receipts."""
    channels = {name: replace(of, has_receipts=True) for name, of in RULES.channels.items()}
    return replace(RULES, channels=channels)


async def test_what_is_sent_and_not_delivered_in_time_gets_its_fallback(world: World) -> None:
    body = fallback_body(unless="delivered")
    async with world.open_process() as api:
        items = [first_one(body, rules=with_receipts()) for _ in range(3)]
        silent, delivered, bounced = items
        for item in items:
            await api.submit(item)
            await record(api, item)
        await world.set_time(LOOK)
        assert (await api.run(), api.outcomes()) == (3, {})
        for item, status in ((delivered, "delivered"), (bounced, "undelivered")):
            await world.connection.execute(
                "INSERT INTO ends (id, claim, status, queue, tries, first_at, at)"
                " VALUES ($1, 1, $2, 'email.high', 1, now(), now())",
                item.id,
                status,
            )
        await world.set_time(3 * LOOK)
        assert (await api.run(), api.outcomes()) == (3, {"dropped": 1, "submitted": 1})
        assert await world.second_of(silent) is None
        await world.set_time(DUE)
        assert (await api.run(), api.outcomes()) == (1, {"dropped": 1, "submitted": 2})
        assert [await world.second_of(item) is not None for item in items] == [True, False, True]
        shown = (await world.view(silent.id)).fallback
        assert shown is not None
        assert shown.unless == "delivered"


@pytest.mark.parametrize("of_tests", [False, True])
@pytest.mark.parametrize("of_live", [False, True])
def test_a_test_key_waits_for_receipts_if_a_live_key_could(of_tests: bool, of_live: bool) -> None:
    channels = {
        **RULES.channels,
        "email": replace(RULES.channels["email"], has_receipts=of_live),
        "test": ChannelRules(address=AddressKind.TOKEN, has_receipts=of_tests),
    }
    rules = replace(RULES, channels=channels, test_channel="test")
    submits = partial(first_one, fallback_body(unless="delivered"), rules=rules)
    for mode, is_accepted in ((Mode.LIVE, of_live), (Mode.TEST, of_live and of_tests)):
        if is_accepted:
            assert submits(mode=mode).fallback is not None
        else:
            with pytest.raises(InvalidNotification, match="receipts"):
                submits(mode=mode)


async def test_a_process_that_does_not_know_the_receipts_leaves_their_fallbacks(
    world: World,
) -> None:
    async with world.open_process(known=KNOWN_FIELDS - {"fallback.unless"}) as old:
        await old.submit(first_one(fallback_body(unless="delivered"), rules=with_receipts()))
        await world.set_time(DUE)
        assert (await old.run(), old.outcomes()) == (0, {})
    async with world.open_process() as new:
        assert (await new.run(), new.outcomes()) == (1, {"submitted": 1})


async def test_what_is_not_sent_in_time_gets_its_fallback_and_goes_on_itself(world: World) -> None:
    async with world.open_process() as api:
        item = first_one(tag="login", metadata={"order": 17}, ttl_s=7200, max_tries=3)
        await api.submit(item)
        await world.set_time(AFTER - 20 * SECOND)
        assert await api.run() == 1
        assert (await world.stored(), api.outcomes()) == (1, {})
        await world.set_time(DUE)
        assert await api.run() == 1
        second = await world.second_of(item)
        assert second is not None
        assert (str(second.queue), second.recipient, second.status) == ("sms.high", SMS, "queued")
        assert (second.tag, second.metadata, second.max_tries) == ("login", b'{"order":17}', 3)
        assert msgspec.json.decode(second.content or b"") == {"body": "Your code is 123456"}
        assert second.expires_at - second.created_at == timedelta(hours=2)
        assert (second.fallback_of, second.fallback) == (item.id, None)
        first = await world.view(item.id)
        assert (first.status, first.fallback_of) == (Status.QUEUED, None)
        await world.set_time(2 * AFTER)
        assert await api.run() == 0
        assert (await world.stored(), api.outcomes()) == (2, {"submitted": 1})
        assert await rows(world) == [(True, True, False)]


async def test_what_has_failed_gets_its_fallback_at_the_next_look(world: World) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await fail(api, item)
        await world.set_time(LOOK)
        assert await api.run() == 1
        assert await world.second_of(item) is not None
        assert (await world.view(item.id)).status is Status.FAILED


async def test_a_later_failure_is_seen_before_twice_its_time(world: World) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        for waited in (5, 12, 30):
            await world.set_time(waited * SECOND)
            assert await api.run() == 1
        await fail(api, item)
        await world.set_time(65 * SECOND)
        assert await api.run() == 1
        assert await world.second_of(item) is not None


async def test_what_expires_gets_its_fallback(world: World) -> None:
    async with world.open_process() as api:
        item = first_one(ttl_s=60)
        await api.submit(item)
        await world.set_time(90 * SECOND)
        assert await api.run() == 1
        second = await world.second_of(item)
        assert second is not None
        assert second.expires_at - second.created_at == timedelta(minutes=1)


async def test_what_a_person_cancels_gets_no_fallback(world: World) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        assert await cancel_by(world.connection, item.id) == [item.id]
        await world.set_time(DUE)
        assert await api.run() == 1
        assert (await world.stored(), api.outcomes()) == (1, {"dropped": 1})


async def test_what_a_newer_one_replaces_takes_its_fallback_with_it(world: World) -> None:
    async with world.open_process() as api:
        older, newer = first_one(collapse_key="k"), first_one(collapse_key="k")
        await api.submit(older)
        await api.submit(newer)
        await world.set_time(DUE)
        assert await api.run() == 2
        assert await world.second_of(older) is None
        second = await world.second_of(newer)
        assert second is not None
        assert await world.stored() == 3


@pytest.mark.parametrize(("reason", "submits"), [("bounce", True), ("unsubscribe", False)])
async def test_a_suppressed_one_gets_its_fallback_unless_the_person_wants_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, reason: str, submits: bool
) -> None:
    monkeypatch.setattr(suppressions_module, "UNKNOWN_FOR_S", 0.0)
    await suppress(world, "email", "ada@example.com", reason)
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        assert (await world.view(item.id)).status is Status.SUPPRESSED
        await world.set_time(LOOK)
        assert await api.run() == 1
        assert (await world.second_of(item) is not None) is submits


async def test_a_suppression_of_its_own_recipient_counts_when_it_is_submitted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions_module, "UNKNOWN_FOR_S", 0.0)
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await suppress(world, "sms", SMS, "manual")
        await world.set_time(DUE)
        assert await api.run() == 1
        second = await world.second_of(item)
        assert second is not None
        assert second.status is Status.SUPPRESSED


async def suppress(world: World, channel: str, recipient: str, reason: str) -> None:
    new = NewSuppression(channel=channel, recipient=recipient, reason=reason)  # type: ignore[arg-type]
    scope = SuppressionScope(DEFAULT_TENANT, Mode.LIVE)
    await world.suppressions.add(scope, [new], ADA)


async def test_a_scheduled_one_is_not_looked_at_before_it_is_due(world: World) -> None:
    async with world.open_process() as api:
        send_at = (world.start + timedelta(hours=2)).isoformat()
        item = first_one(send_at=send_at)
        await api.submit(item)
        shown = (await world.view(item.id)).fallback
        assert shown is not None
        assert abs(shown.at - world.start - timedelta(hours=2) - AFTER) < 10 * SECOND
        await world.set_time(timedelta(hours=2))
        assert await api.run() == 0
        await world.set_time(timedelta(hours=2) + LOOK)
        assert await api.run() == 1
        await world.set_time(timedelta(hours=2) + DUE)
        assert await api.run() == 1
        assert await world.second_of(item) is not None


async def test_what_a_person_has_sent_again_gets_no_second_fallback(world: World) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await fail(api, item)
        await world.set_time(LOOK)
        assert await api.run() == 1
        assert await retry_by(world.connection, item.id) == [item.id]
        await world.set_time(DUE)
        assert await api.run() == 0
        assert (await world.view(item.id)).status is Status.QUEUED
        assert await world.stored() == 2


async def test_a_test_key_gets_a_fallback_of_its_mode(world: World) -> None:
    async with world.open_process() as api:
        item = first_one(mode=Mode.TEST)
        await api.submit(item)
        await world.set_time(DUE)
        assert await api.run() == 1
        second = await world.second_of(item)
        assert second is not None
        assert (second.test_channel, second.queue.channel) == ("sms", "test")


async def test_the_repeat_of_a_submit_stores_no_second_fallback(world: World) -> None:
    keys = RequestKeys("order-17")
    async with world.open_process() as api:
        await api.submit(first_one(keys=keys), first_one(keys=keys))
        await api.submit(first_one(keys=keys))
        assert len(await rows(world)) == 1
        await world.set_time(DUE)
        assert await api.run() == 1
        assert await world.stored() == 2


async def test_a_batch_has_fallbacks_where_it_says_so(world: World) -> None:
    async with world.open_process() as api:
        items = [first_one(tag=f"n{number}") for number in range(3)]
        plain = msgspec.structs.replace(first_one(), fallback=None)
        await api.submit(items[0], plain, *items[1:])
        await world.set_time(DUE)
        assert await api.run() == 3
        seconds = [await world.second_of(item) for item in items]
        assert [second and second.tag for second in seconds] == ["n0", "n1", "n2"]
        assert (await world.view(plain.id)).fallback is None


async def test_many_processes_at_once_submit_each_fallback_once(world: World) -> None:
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(world.open_process()) for _ in range(4)]
        items = [first_one(tag=f"n{number}") for number in range(150)]
        await apis[0].submit(*items)
        await world.set_time(DUE)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(api.run()) for api in apis for _ in range(2)]
        assert sum(task.result() for task in tasks) == 150
        assert await world.stored() == 300
        assert await rows(world) == [(True, True, False)] * 150
        assert all(set(api.outcomes()) <= {"submitted"} for api in apis)


@pytest.mark.parametrize("cut", [Cut.BEFORE_SUBMIT, Cut.AFTER_SUBMIT])
async def test_what_a_killed_process_began_another_one_ends_after_a_while(
    world: World, cut: Cut
) -> None:
    async with world.open_process() as doomed, world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await world.set_time(DUE)
        assert await doomed.run(cut) == 0
        assert await world.stored() == (2 if cut is Cut.AFTER_SUBMIT else 1)
        assert await api.run() == 0, "it is held"
        await world.set_time(DUE + HELD)
        assert await api.run() == 1
        assert await world.stored() == 2
        outcome = "replayed" if cut is Cut.AFTER_SUBMIT else "submitted"
        assert api.outcomes() == {outcome: 1}
        assert await world.second_of(item) is not None


@pytest.mark.parametrize("cut", [Cut.SUBMIT_ANSWER, Cut.SETTLE_ANSWER])
async def test_a_lost_answer_of_postgres_submits_nothing_twice(world: World, cut: Cut) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await world.set_time(DUE)
        await api.run(cut)
        await world.set_time(DUE + HELD)
        await api.run()
        assert await world.stored() == 2
        assert await world.second_of(item) is not None
        expected = {"postponed": 1, "replayed": 1} if cut is Cut.SUBMIT_ANSWER else {}
        assert api.outcomes() == expected


async def test_a_submitted_one_is_noted_if_the_first_is_sent_before_the_process_noted_it(
    world: World,
) -> None:
    async with world.open_process() as doomed, world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await world.set_time(DUE)
        await doomed.run(Cut.AFTER_SUBMIT)
        await record(api, item)
        await world.set_time(DUE + HELD)
        assert await api.run() == 1
        assert api.outcomes() == {"replayed": 1}
        assert await world.second_of(item) is not None


async def test_a_slow_process_and_the_one_after_it_submit_one_notification(world: World) -> None:
    async with world.open_process() as slow, world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await world.set_time(DUE)
        (fallback,) = await slow.process.take(10, HOLD_S)
        assert list(await slow.process.begin([fallback])) == [item.id]
        await world.set_time(DUE + HELD)
        assert await api.run() == 1
        assert await slow.process.begin([fallback]) == [], "another process has it"
        ended = await slow.runner._ended(fallback)
        assert await slow.process.settle([ended.result]) == []
        assert await world.stored() == 2


async def test_what_a_slow_process_has_submitted_ends_the_fallback_of_another(
    world: World,
) -> None:
    async with world.open_process() as slow, world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await world.set_time(DUE)
        (fallback,) = await slow.process.take(10, HOLD_S)
        await slow.process.begin([fallback])
        ended = await slow.runner._ended(fallback)
        await world.set_time(DUE + HELD)
        (again,) = await api.process.take(10, HOLD_S)
        assert again.begun_at is not None
        assert list(await slow.process.settle([ended.result])) == [item.id]
        assert await rows(world) == [(True, True, False)]


@pytest.mark.parametrize("is_key_kept", [True, False])
async def test_one_whose_key_may_be_gone_is_not_submitted_again(
    world: World, is_key_kept: bool
) -> None:
    async with world.open_process() as doomed, world.open_process() as api:
        await api.submit(first_one(ttl_s=10 * 86_400))
        await world.set_time(DUE)
        await doomed.run(Cut.AFTER_SUBMIT)
        if not is_key_kept:
            await world.connection.execute("DELETE FROM idempotency_keys")
        await world.set_time(KEY_KEPT + HELD + DUE)
        assert await api.run() == 1
        assert await world.stored() == 2
        assert api.outcomes() == ({"replayed": 1} if is_key_kept else {"skipped": 1})


async def test_one_that_no_process_began_is_submitted_however_old(world: World) -> None:
    async with world.open_process() as api:
        await api.submit(first_one(ttl_s=10 * 86_400))
        await world.set_time(timedelta(days=3))
        assert await api.run() == 1
        assert api.outcomes() == {"submitted": 1}


async def test_one_that_cannot_be_submitted_any_more_is_dropped_with_a_log(world: World) -> None:
    without_sms = {name: RULES.channels[name] for name in ("email", "push")}
    async with (
        world.open_process() as api,
        world.open_process(replace(RULES, channels=without_sms)) as restarted,
    ):
        item = first_one()
        await api.submit(item, first_one(fallback_body(channel="push", recipient="token")))
        await world.set_time(DUE)
        with capture_logs() as logs:
            assert await restarted.run() == 2
        (refused,) = [entry for entry in logs if entry["event"] == "fallback_refused"]
        assert refused["notification"] == str(item.id)
        assert refused["problem"] == "invalid-field"
        assert SMS not in str(logs)
        assert restarted.outcomes() == {"refused": 1, "submitted": 1}
        assert await rows(world) == [(True, False, False), (True, True, False)]


async def test_one_is_postponed_while_it_cannot_be_submitted(world: World) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await world.set_time(DUE)
        api.process.accept._backlog = 100_000
        assert await api.run() == 1
        assert await api.run() == 0, "it waits"
        api.process.accept._backlog = 0
        await world.set_time(DUE + RETRY + SECOND)
        assert await api.run() == 1
        assert api.outcomes() == {"postponed": 1, "submitted": 1}
        assert await world.stored() == 2


async def test_a_field_of_a_later_version_is_left_to_others(world: World) -> None:
    async with (
        world.open_process(known={"channel", "recipient", "content"}) as older,
        world.open_process() as api,
    ):
        await api.submit(first_one())
        await world.set_time(DUE)
        assert await older.run() == 0
        assert await api.run() == 1
        assert await world.stored() == 2


async def test_one_whose_notification_is_not_stored_any_more_is_dropped(world: World) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await world.connection.execute("DELETE FROM live")
        await world.connection.execute("DELETE FROM notifications")
        await world.set_time(DUE)
        assert await api.run() == 1
        assert (await world.stored(), api.outcomes()) == (0, {"dropped": 1})


@pytest.mark.parametrize("is_analyzed", [True, False])
async def test_the_rows_of_a_step_are_found_in_an_index(world: World, is_analyzed: bool) -> None:
    if is_analyzed:  # as an empty table, which would be read as a whole
        await world.connection.execute("VACUUM ANALYZE fallbacks")
    indexes = {
        "fallbacks_take": {"fallbacks_look", "fallbacks_pkey"},
        "fallbacks_begin": {"fallbacks_pkey"},
        "fallbacks_settle": {"fallbacks_pkey"},
    }
    async with open_connection(ConnectionSettings(url=world.url), SESSION_SETTINGS) as link:
        for name, expected in indexes.items():
            async with link.acquire() as connection:
                plan = await plan_of(connection, statement(name))
            assert set(re.findall(r"using (\w+) on", plan)) == expected, plan
            assert "Seq Scan" not in plan
            by_id = re.findall(r"fallbacks_pkey on .*\n +Index Cond: \(+id = ", plan)
            assert len(by_id) == plan.count("fallbacks_pkey"), plan


async def plan_of(connection: Connection, text: str) -> str:
    count = max(int(number) for number in re.findall(r"\$(\d+)", re.sub(r"--.*", "", text)))
    await connection.execute(f"PREPARE planned AS {text}")
    rows = await connection.fetch(f"EXPLAIN EXECUTE planned ({', '.join(['NULL'] * count)})")
    await connection.execute("DEALLOCATE planned")
    return "\n".join(row[0] for row in rows)


async def test_fallbacks_of_dropped_days_are_removed(world: World) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        await world.set_time(timedelta(days=30))
        await api.store.prune_fallbacks(timedelta(days=30))
        assert len(await rows(world)) == 1
        await world.set_time(timedelta(days=31, minutes=1))
        await api.store.prune_fallbacks(timedelta(days=30))
        assert await rows(world) == []


async def test_a_key_of_a_caller_is_never_that_of_a_fallback(world: World) -> None:
    async with world.open_process() as api:
        item = first_one()
        await api.submit(item)
        keys = RequestKeys(f"fallback/{item.id}")
        await api.submit(msgspec.structs.replace(first_one(keys=keys), fallback=None))
        await world.set_time(DUE)
        assert await api.run() == 1
        assert api.outcomes() == {"submitted": 1}
        assert await world.stored() == 3
