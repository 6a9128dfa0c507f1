"""People cancel notifications and have them sent again, on a real Postgres."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from notifier.adapters.postgres import operation_steps
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.keys import open_keys
from notifier.adapters.postgres.operation_steps import PostgresOperationSteps, open_operation_steps
from notifier.adapters.postgres.operations import MAX_RUNNING, PostgresOperations, open_operations
from notifier.adapters.postgres.reader import PostgresReader, open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.postgres.suppressions import open_suppressions
from notifier.domain.credentials import Mode
from notifier.domain.due import DueClass
from notifier.domain.errors import StoreRejected
from notifier.domain.lookups import Lookup, LookupKind
from notifier.domain.notification import EndReason, Status
from notifier.domain.operations import Operation, OperationKind, OperationStatus
from notifier.domain.suppressions import NewSuppression, SuppressionScope
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.keys import Author
from notifier.ports.operations import (
    NewOperation,
    OperationFilter,
    OperationRefusal,
    Replay,
    Retried,
)
from notifier.ports.queries import ALL_LIVE, Filter, View
from notifier.ports.store import ClaimRequest, NotClaimed
from tests.builders import EMAIL_LOW, SMS_HIGH, a_key, a_notification, a_result, worker_id
from tests.integration.test_store import in_transaction
from tests.live_rows import claim_all, claim_new, due, end_of, live_row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.domain.notification import NewNotification, NotificationView
    from notifier.ports.operations import Step
    from tests.live_rows import Connection

ADA = Author(actor="key:ada", request_id="r1")
SALE = "summer-sale"
BY_SALE = (Lookup(LookupKind.TAG, SALE),)
WAITING = (Status.QUEUED, Status.RETRYING, Status.SCHEDULED)
CANCEL, RETRY, _ = OperationKind


@dataclass(frozen=True, slots=True)
class Opened:
    """A store, a reader, and what people and processes do with operations."""

    store: PostgresStore
    reader: PostgresReader
    operations: PostgresOperations
    steps: PostgresOperationSteps

    async def view(self, item: NewNotification) -> NotificationView:
        view = await self.reader.get(item.id)
        assert view is not None
        return view

    async def status(self, item: NewNotification) -> Status:
        return (await self.view(item)).status

    async def cancel(self, item: NewNotification, note: str = "") -> bool:
        return await self.operations.cancel(await self.view(item), note, ADA) is not None

    async def retry(self, item: NewNotification, note: str = "") -> Retried:
        return await self.operations.retry(await self.view(item), note, ADA)

    async def fail(self, *items: NewNotification, code: str = "550") -> None:
        """Let the provider refuse notifications that wait."""
        for item in items:
            row = await claim_new(self.store, item)
            await self.store.record(
                [
                    a_result(
                        row, Status.FAILED, outcome="refused", reason=EndReason.REFUSED, code=code
                    )
                ]
            )

    async def create(self, kind: OperationKind = CANCEL, **changes: Any) -> Operation:
        made = await self.operations.create(an_operation(kind, **changes), ADA)
        assert isinstance(made, Operation)
        return made

    async def run(self, operation: Operation) -> Operation:
        """Take the steps of an operation until it ends."""
        async with asyncio.timeout(60):
            while True:
                step = await self.steps.step()
                if step is not None and step.operation.status is not OperationStatus.RUNNING:
                    assert step.operation.id == operation.id
                    return step.operation
                if step is None:
                    await asyncio.sleep(0.05)


def an_operation(kind: OperationKind, **changes: Any) -> NewOperation:
    fields: dict[str, Any] = {
        "kind": kind,
        "selection": Filter(tag=(SALE,), status=WAITING if kind is CANCEL else (Status.FAILED,)),
        "shown": {"tag": SALE},
        "rate_per_s": None,
        "note": "wrong price",
    }
    return NewOperation(**(fields | changes))


def tagged(tag: str = SALE, **fields: Any) -> NewNotification:
    return a_notification(EMAIL_LOW, tag=tag, lookups=(Lookup(LookupKind.TAG, tag),), **fields)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Opened]:
    link = ConnectionSettings(url=url)
    async with AsyncExitStack() as stack:
        yield Opened(
            await stack.enter_async_context(open_store(link, worker_id())),
            await stack.enter_async_context(open_reader(link)),
            await stack.enter_async_context(open_operations(link, keep_keys_s=86_400)),
            await stack.enter_async_context(open_operation_steps(link)),
        )


async def audited(connection: Connection) -> Sequence[tuple[str, str, str]]:
    rows = await connection.fetch("SELECT action, actor, note FROM audit ORDER BY id")
    return [(row["action"], row["actor"], row["note"]) for row in rows]


async def test_what_waits_is_cancelled_once(database_url: str, connection: Connection) -> None:
    async with opened(database_url) as db:
        item = a_notification()
        await db.store.insert([item])
        (pointer,) = await due(db.store)
        assert await db.cancel(item, "wrong price")
        view = await db.view(item)
        assert view.result is not None
        assert (view.status, view.result.reason) == (Status.CANCELLED, EndReason.REQUEST)
        assert not await db.cancel(item)
        assert await claim_all(db.store, [pointer]) == []
        assert await audited(connection) == [("notification.cancelled", "key:ada", "wrong price")]


async def test_what_is_being_sent_is_not_cancelled(database_url: str) -> None:
    async with opened(database_url) as db:
        item = a_notification()
        await db.store.insert([item])
        await claim_new(db.store, item)
        assert not await db.cancel(item)
        assert await db.status(item) is Status.SENDING


async def test_what_failed_waits_again_with_all_its_tries(
    database_url: str, connection: Connection
) -> None:
    async with opened(database_url) as db:
        item = a_notification(max_tries=3)
        await db.store.insert([item])
        (pointer,) = await due(db.store)
        await db.fail(item)
        end = await end_of(connection, item.id)
        assert end is not None
        assert await db.retry(item, "the relay was down") is Retried.DONE
        row = await live_row(connection, item.id)
        assert row is not None
        assert (row["class"], row["tries"], row["deaths"]) == (DueClass.RETRY, 0, 0)
        assert (row["claim"], row["max_tries"]) == (end["claim"] + 1, 3)
        view = await db.view(item)
        assert (view.status, view.result, view.retried_by) == (Status.QUEUED, None, None)
        # No pointer from before claims it, and the next one does.
        for claim in range(row["claim"]):
            (reply,) = await db.store.claim([ClaimRequest(id=pointer.id, claim=claim)])
            assert isinstance(reply, NotClaimed)
        assert len(await claim_all(db.store, await due(db.store))) == 1
        assert await db.retry(item) is Retried.WRONG_STATUS
        assert await audited(connection) == [
            ("notification.retried", "key:ada", "the relay was down")
        ]


async def test_a_retry_expires_after_the_time_that_it_had_at_first(
    database_url: str, connection: Connection
) -> None:
    async with opened(database_url) as db:
        item = a_notification()
        await db.store.insert([item])
        await connection.execute(
            """UPDATE notifications SET created_at = created_at - interval '2 hours',
                                        expires_at = expires_at - interval '2 hours'"""
        )
        await connection.execute("UPDATE live SET expires_at = now() - interval '1 hour'")
        await db.store.sweep([item.id])
        assert await db.status(item) is Status.EXPIRED
        assert await db.retry(item) is Retried.DONE
        view = await db.view(item)
        assert view.status is Status.QUEUED
        row = await live_row(connection, item.id)
        assert row is not None
        assert view.expires_at == row["expires_at"]
        assert (row["expires_at"] - row["due_at"]).total_seconds() == pytest.approx(3600)


async def test_what_was_sent_or_waits_is_not_retried(database_url: str) -> None:
    async with opened(database_url) as db:
        sent, waiting = a_notification(), a_notification()
        await db.store.insert([sent, waiting])
        await db.store.record([a_result(await claim_new(db.store, sent))])
        for item in (sent, waiting):
            assert await db.retry(item) is Retried.WRONG_STATUS


async def test_who_is_suppressed_gets_no_retry_until_the_suppression_is_gone(
    database_url: str,
) -> None:
    async with (
        opened(database_url) as db,
        open_suppressions(ConnectionSettings(url=database_url)) as suppressions,
    ):
        item = a_notification(recipient="ada@example.com")
        await db.store.insert([item])
        await db.fail(item)
        scope = SuppressionScope(DEFAULT_TENANT, Mode.LIVE)
        new = NewSuppression(channel="email", recipient="ada@example.com")
        ((stored, _),) = await suppressions.add(scope, [new], ADA)
        assert await db.retry(item) is Retried.SUPPRESSED
        await suppressions.remove(scope, stored.id, ADA)
        assert await db.retry(item) is Retried.DONE


async def test_a_late_accepted_settles_what_was_retried_and_not_yet_claimed(
    database_url: str,
) -> None:
    async with (
        opened(database_url) as db,
        open_store(ConnectionSettings(url=database_url), worker_id()) as frozen,
    ):
        item = a_notification()
        await db.store.insert([item])
        row = await claim_new(frozen, item)
        await db.store.give_back([])  # nothing: the row stays with the frozen worker
        await frozen.record([a_result(row, Status.FAILED, outcome="refused", reason="refused")])
        assert await db.retry(item) is Retried.DONE
        accepted, age_s = a_result(row)
        await db.store.record([(accepted, age_s)])
        assert await db.status(item) is Status.SENT


async def test_an_operation_cancels_what_has_the_tag_and_nothing_else(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_steps, "MAX_CHANGED", 7)
    monkeypatch.setattr(operation_steps, "PASS_PAUSE_S", 0.0)
    async with opened(database_url) as db:
        wrong = [tagged() for _ in range(30)]
        right = [tagged("receipts") for _ in range(5)]
        sent, sending = tagged(), tagged()
        await db.store.insert([*wrong, *right, sent, sending])
        await db.store.record([a_result(await claim_new(db.store, sent))])
        row = await claim_new(db.store, sending)
        operation = await db.create()
        later = tagged()
        await db.store.insert([later])
        for _ in range(6):  # it finds what is being sent again and again
            await db.steps.step()
        await db.store.record(
            [a_result(row, Status.RETRYING, outcome="unavailable", after=timedelta(seconds=60))]
        )
        done = await db.run(operation)
        assert (done.status, done.done, done.failed) == (OperationStatus.FINISHED, 31, 0)
        assert {await db.status(item) for item in (*wrong, sending)} == {Status.CANCELLED}
        assert {await db.status(item) for item in right} == {Status.QUEUED}
        assert (await db.status(sent), await db.status(later)) == (Status.SENT, Status.QUEUED)
        assert set(done.sample) <= {item.id for item in (*wrong, sending)}
        assert await db.steps.step() is None
        assert await audited(connection) == [("operation.created", "key:ada", "wrong price")]


async def test_an_operation_retries_one_code_once_although_two_people_ask(
    database_url: str, connection: Connection
) -> None:
    async with opened(database_url) as db:
        down = [tagged() for _ in range(20)]
        wrong = [tagged() for _ in range(5)]
        await db.store.insert([*down, *wrong])
        await db.fail(*down, code="421")
        await db.fail(*wrong, code="550")
        selection = Filter(tag=(SALE,), status=(Status.FAILED,), code=("421",))
        first = await db.create(RETRY, selection=selection)
        second = await db.create(RETRY, selection=selection)
        steps: list[Step] = []
        async with asyncio.timeout(60):
            while sum(step.operation.status is OperationStatus.FINISHED for step in steps) < 2:
                if (step := await db.steps.step()) is not None:
                    steps.append(step)
                else:
                    await asyncio.sleep(0.05)
        assert sum(step.retried for step in steps) == len(down)
        ended = {step.operation.id: step.operation for step in steps}
        assert ended[first.id].done + ended[second.id].done == len(down)
        assert {await db.status(item) for item in down} == {Status.QUEUED}
        assert {await db.status(item) for item in wrong} == {Status.FAILED}
        assert (await db.view(down[0])).retried_by in {first.id, second.id}
        claims = await connection.fetch("SELECT id FROM live WHERE claim <> 2")
        assert claims == []


async def test_a_retry_that_fails_again_is_not_retried_by_the_same_operation(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_steps, "PASS_PAUSE_S", 0.0)
    monkeypatch.setattr(operation_steps, "MAX_DUE_RETRIES", 1)
    async with opened(database_url) as db:
        items = [tagged() for _ in range(3)]
        await db.store.insert(items)
        await db.fail(*items)
        operation = await db.create(RETRY)
        retried = 0
        async with asyncio.timeout(60):
            while True:
                step = await db.steps.step()
                if step is None:
                    await asyncio.sleep(0.01)
                    continue
                retried += step.retried
                assert step.retried <= 1  # as many as there is room for
                for row in await claim_all(db.store, await due(db.store)):
                    await db.store.record(
                        [a_result(row, Status.FAILED, outcome="refused", reason="refused")]
                    )
                if step.operation.status is OperationStatus.FINISHED:
                    break
        assert (retried, step.operation.done) == (len(items), len(items))
        assert operation.id == step.operation.id


async def test_the_rate_of_an_operation_is_kept(database_url: str, connection: Connection) -> None:
    async with opened(database_url) as db:
        items = [tagged() for _ in range(12)]
        await db.store.insert(items)
        await db.fail(*items)
        await db.create(RETRY, rate_per_s=10.0)
        step = await db.steps.step()
        assert step is not None
        assert step.retried == 5
        assert await db.steps.step() is None
        wait_s = await connection.fetchval(
            "SELECT date_part('epoch', next_at - updated_at) FROM operations"
        )
        assert wait_s == pytest.approx(0.5)


async def test_an_operation_of_ids_changes_those_that_it_may_see(database_url: str) -> None:
    async with opened(database_url) as db:
        own = [a_notification(tenant=TenantId("shop")) for _ in range(3)]
        other, unknown = a_notification(tenant=TenantId("blog")), a_notification()
        await db.store.insert([*own, other])
        ids = [item.id for item in (*own, other, unknown)]
        selection = Filter(status=WAITING, view=View(TenantId("shop")))
        operation = await db.create(selection=selection, ids=ids, shown={"ids": ids})
        done = await db.run(operation)
        assert (done.matched, done.done, done.skipped) == (3, 3, 0)
        assert await db.status(other) is Status.QUEUED


async def test_a_stopped_operation_changes_nothing_more(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_steps, "MAX_CHANGED", 3)
    async with opened(database_url) as db:
        await db.store.insert([tagged() for _ in range(10)])
        operation = await db.create()
        await db.steps.step()
        stopped = await db.operations.stop(operation.id, ALL_LIVE, "wrong tag", ADA)
        assert stopped is not None
        assert (stopped.status, stopped.done) == (OperationStatus.STOPPED, 3)
        assert await db.steps.step() is None
        again = await db.operations.stop(operation.id, ALL_LIVE, "", ADA)
        assert again == stopped
        assert [action for action, _, _ in await audited(connection)] == [
            "operation.created",
            "operation.stopped",
        ]
        other = View(TenantId("blog"))
        assert await db.operations.stop(operation.id, other, "", ADA) is None


async def test_a_repeat_with_the_key_is_the_same_operation(database_url: str) -> None:
    async with opened(database_url) as db:
        key = a_key("k1", b"one")
        first = await db.create(key=key)
        again = await db.operations.create(an_operation(CANCEL, key=key), ADA)
        assert isinstance(again, Replay)
        assert again.operation.id == first.id
        other = an_operation(CANCEL, key=a_key("k1", b"two"))
        assert await db.operations.create(other, ADA) is OperationRefusal.KEY_REUSED


async def test_a_key_is_forgotten_after_its_time(database_url: str, connection: Connection) -> None:
    async with opened(database_url) as db:
        first = await db.create(key=a_key("k1"))
        await connection.execute("UPDATE operations SET created_at = now() - interval '25 hours'")
        assert (await db.create(key=a_key("k1"))).id != first.id


async def test_a_tenant_has_so_many_operations_at_once(database_url: str) -> None:
    of_shop = Filter(tag=(SALE,), status=WAITING, view=View(TenantId("shop")))
    async with opened(database_url) as db:
        async with asyncio.TaskGroup() as group:
            making = [
                group.create_task(
                    db.operations.create(an_operation(CANCEL, selection=of_shop), ADA)
                )
                for _ in range(MAX_RUNNING + 3)
            ]
        made = [task.result() for task in making]
        assert sum(isinstance(each, Operation) for each in made) == MAX_RUNNING
        assert made.count(OperationRefusal.TOO_MANY) == 3
        await db.create()  # the deployment has its own


async def test_operations_are_listed_for_those_who_may_see_them(database_url: str) -> None:
    async with opened(database_url) as db:
        shop = View(TenantId("shop"))
        made = [await db.create() for _ in range(3)]
        own = await db.create(RETRY, selection=Filter(status=(Status.FAILED,), view=shop))
        page = await db.operations.operations(OperationFilter(view=shop))
        assert [each.id for each in page.operations] == [own.id]
        first = await db.operations.operations(OperationFilter(limit=2))
        assert [each.id for each in first.operations] == [own.id, made[2].id]
        rest = await db.operations.operations(OperationFilter(before=first.next_before))
        assert [each.id for each in rest.operations] == [made[1].id, made[0].id]
        assert rest.next_before is None
        retries = await db.operations.operations(OperationFilter(kind=(RETRY,)))
        assert [each.id for each in retries.operations] == [own.id]
        assert await db.operations.operation(made[0].id, shop) is None
        assert await db.operations.operation(own.id, View(mode=Mode.TEST)) is None


async def test_a_dry_run_counts_and_changes_nothing(database_url: str) -> None:
    async with opened(database_url) as db:
        items = [tagged() for _ in range(4)]
        await db.store.insert([*items, tagged("receipts")])
        counted = await db.operations.count(an_operation(CANCEL))
        assert (counted.matched, counted.is_exact) == (4, True)
        assert set(counted.sample) == {item.id for item in items}
        assert {await db.status(item) for item in items} == {Status.QUEUED}


async def test_a_row_that_postgres_rejects_fails_alone(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_steps, "PASS_PAUSE_S", 0.0)
    async with opened(database_url) as db:
        items = [tagged() for _ in range(9)]
        await db.store.insert(items)
        await connection.execute(
            f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF NEW.id = '{items[4].id}' THEN RAISE EXCEPTION 'no' USING ERRCODE = '22023';
                    END IF; RETURN NEW; END $$;
                CREATE TRIGGER refuse BEFORE INSERT ON ends
                    FOR EACH ROW EXECUTE FUNCTION refuse()"""
        )
        done = await db.run(await db.create())
        assert (done.done, done.failed) == (8, 1)
        assert await db.status(items[4]) is Status.QUEUED


@pytest.mark.parametrize("change", ["kind = 'move'", "version = 2"])
async def test_an_operation_of_a_later_version_is_left_to_it(
    database_url: str, connection: Connection, change: str
) -> None:
    async with opened(database_url) as db:
        operation = await db.create()
        await connection.execute(f"UPDATE operations SET {change}")
        assert await db.steps.step() is None
        own = await db.create()
        page = await db.operations.operations(OperationFilter())
        is_known = change.startswith("version")
        expected = [own.id, operation.id] if is_known else [own.id]
        assert [each.id for each in page.operations] == expected


async def test_an_operation_whose_steps_fail_holds_up_no_other_and_fails(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_steps, "PASS_PAUSE_S", 0.0)
    monkeypatch.setattr(operation_steps, "MAX_STEPS", 3)
    async with opened(database_url) as db:
        items = [tagged("other") for _ in range(3)]
        await db.store.insert([tagged(), *items])
        broken = await db.create()
        await connection.execute("UPDATE operations SET rate_per_s = 1e-300")  # it overflows
        with pytest.raises(StoreRejected):
            await db.steps.step()
        selection = Filter(tag=("other",), status=WAITING)
        assert (await db.run(await db.create(selection=selection))).done == 3
        for _ in range(2):
            await connection.execute("UPDATE operations SET next_at = now()")
            with pytest.raises(StoreRejected):
                await db.steps.step()
        await connection.execute("UPDATE operations SET next_at = now()")
        step = await db.steps.step()
        assert step is not None
        assert (step.operation.id, step.operation.status) == (broken.id, OperationStatus.FAILED)
        assert await db.steps.step() is None


async def test_a_batch_that_was_being_stored_when_it_was_made_is_cancelled(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_steps, "PASS_PAUSE_S", 0.0)
    async with opened(database_url) as db:
        late = tagged()
        async with in_transaction(db.store._connections.accept):
            await db.store.insert([late])
            operation = await db.create()
            for _ in range(3):
                step = await db.steps.step()
                assert step is not None
                assert step.operation.status is OperationStatus.RUNNING
        assert (await db.run(operation)).done == 1
        assert await db.status(late) is Status.CANCELLED


async def test_what_moves_between_waiting_and_sending_is_cancelled(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_steps, "PASS_PAUSE_S", 0.0)
    async with (
        opened(database_url) as db,
        open_store(ConnectionSettings(url=database_url), worker_id()) as worker,
    ):
        items = [a_notification() for _ in range(6)]
        await worker.insert(items)
        stop = asyncio.Event()

        async def send() -> None:
            while not stop.is_set():
                for row in await claim_all(worker, await due(worker)):
                    await worker.record(
                        [
                            a_result(
                                row,
                                Status.RETRYING,
                                outcome="unavailable",
                                after=timedelta(0),
                                spends=False,
                            )
                        ]
                    )

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            for _ in range(5):
                selection = Filter(channel=("email",), status=WAITING)
                await db.run(await db.create(selection=selection, shown={"channel": "email"}))
                assert {await db.status(item) for item in items} == {Status.CANCELLED}
                items = [a_notification() for _ in range(6)]
                await worker.insert(items)
            stop.set()


async def test_a_full_queue_holds_up_no_retries_of_others(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_steps, "MAX_DUE_RETRIES", 5)
    async with opened(database_url) as db:
        sms = [a_notification(SMS_HIGH, tag=SALE, lookups=BY_SALE) for _ in range(3)]
        await db.store.insert(sms)
        mails = [tagged() for _ in range(40)]
        await db.store.insert(mails)
        await db.fail(*mails, *sms)
        await db.create(RETRY, rate_per_s=1000.0)
        step = await db.steps.step()
        assert step is not None
        assert step.retried == 5 + 3
        assert {await db.status(item) for item in sms} == {Status.QUEUED}
        assert step.operation.status is OperationStatus.RUNNING


async def test_what_is_over_and_not_yet_swept_is_retried(
    database_url: str, connection: Connection
) -> None:
    async with opened(database_url) as db:
        one, many = tagged(), tagged()
        await db.store.insert([one, many])
        past = "expires_at = now() - interval '1 second'"
        await connection.execute(f"UPDATE live SET {past}")
        await connection.execute(
            f"UPDATE notifications SET {past}, created_at = created_at - interval '1 hour'"
        )
        assert await db.retry(one) is Retried.DONE
        selection = Filter(tag=(SALE,), status=(Status.EXPIRED,))
        await db.create(RETRY, selection=selection)
        step = await db.steps.step()
        assert step is not None
        assert step.retried == 1


async def test_a_tenant_with_an_operation_that_runs_is_not_deleted(database_url: str) -> None:
    shop = TenantId("shop")
    async with opened(database_url) as db, open_keys(ConnectionSettings(url=database_url)) as keys:
        await keys.put_tenant(shop, note="", author=ADA)
        selection = Filter(tag=(SALE,), status=WAITING, view=View(shop))
        operation = await db.create(selection=selection)
        deletion = await keys.delete_tenant(shop, ADA)
        await db.operations.stop(operation.id, View(shop), "", ADA)
        assert deletion != await keys.delete_tenant(shop, ADA)


async def test_operations_of_test_keys_do_not_count_for_live_ones(database_url: str) -> None:
    tests = Filter(tag=(SALE,), status=WAITING, view=View(mode=Mode.TEST))
    async with opened(database_url) as db:
        for _ in range(MAX_RUNNING):
            await db.create(selection=tests)
        refused = await db.operations.create(an_operation(CANCEL, selection=tests), ADA)
        assert refused is OperationRefusal.TOO_MANY
        await db.create()


async def test_two_processes_share_operations_and_never_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_steps, "MAX_CHANGED", 5)
    monkeypatch.setattr(operation_steps, "PASS_PAUSE_S", 0.0)
    async with (
        opened(database_url) as db,
        open_operation_steps(ConnectionSettings(url=database_url)) as second,
    ):
        items = [tagged() for _ in range(60)]
        await db.store.insert(items)
        operation = await db.create()
        ended: list[Any] = []

        async def work(steps: PostgresOperationSteps) -> None:
            while not ended or ended[-1] is not None:
                step = await steps.step()
                if step is not None:
                    ended.extend(row.id for row in step.ended)
                    if step.operation.status is OperationStatus.FINISHED:
                        ended.append(None)
                await asyncio.sleep(0)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(work(db.steps))
            group.create_task(work(second))
        assert sorted(ended[:-1]) == sorted(item.id for item in items)
        found = await db.operations.operation(operation.id, ALL_LIVE)
        assert found is not None
        assert (found.matched, found.done) == (60, 60)


def test_the_filter_of_an_operation_survives_its_storage() -> None:
    selection = Filter(
        status=WAITING,
        tag=(SALE,),
        metadata=(("order_id", ("17",)),),
        created_from=1.5,
        view=View(TenantId("shop"), Mode.TEST),
    )
    assert msgspec.json.decode(msgspec.json.encode(selection), type=Filter) == selection
