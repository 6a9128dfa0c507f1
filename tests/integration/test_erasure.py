"""One recipient is erased, on a real Postgres."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from notifier.adapters.postgres import erase_steps, erasing
from notifier.adapters.postgres.blobs import open_blobs
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.inbox import open_inbox_writer
from notifier.adapters.postgres.schedules import open_schedules
from notifier.adapters.postgres.statements import statement
from notifier.adapters.postgres.suppressions import open_suppressions
from notifier.domain.blobs import BlobUse, blob_id
from notifier.domain.credentials import Mode
from notifier.domain.cron import Cron
from notifier.domain.lookups import FILE, Lookup, LookupKind, metadata_kind
from notifier.domain.notification import Channel, NewFallback, NotificationId, QueueKey, Status
from notifier.domain.operations import Operation, OperationKind, OperationStatus
from notifier.domain.schedules import NewSchedule, ScheduleScope
from notifier.domain.suppressions import NewSuppression, SuppressionScope
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.domain.webhooks import WebhookScope, call_id, call_of
from notifier.embedded.postgres_binaries import find_binaries
from notifier.ports.inbox import NewEntry
from notifier.ports.operations import Replay, Retried
from notifier.ports.queries import ALL_LIVE, Filter, View
from notifier.ports.suppressions import Recipient, SuppressionFilter
from tests.builders import EMAIL_HIGH, SMS_HIGH, a_key, a_notification, a_result
from tests.integration.test_operations import ADA, Opened, an_operation, opened
from tests.live_rows import SESSIONS_THAT_WAIT_FOR_A_LOCK, claim_all, claim_new, due, end_of
from tests.receipts import PROVIDER, a_receipt, receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from notifier.domain.notification import NewNotification
    from tests.live_rows import Connection

ERASE = OperationKind.ERASE
WHO = "ada.lovelace@example.com"
SPELLED = "Ada.Lovelace@example.com"
SECRET = "your code is 471108"
CONTENT = json.dumps({"subject": "Login", "body": SECRET}).encode()
INVOICE = b"%PDF invoice of Ada Lovelace"
OF_WHO = (Lookup(LookupKind.RECIPIENT, WHO),)
SCOPE = SuppressionScope(DEFAULT_TENANT, Mode.LIVE)


@pytest.fixture
async def db(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Opened]:
    monkeypatch.setattr(erase_steps, "REVISIT_S", 0.0)
    async with opened(database_url) as db:
        yield db


def of_who(**fields: Any) -> NewNotification:
    fields = {"recipient": WHO, "content": CONTENT} | fields
    return a_notification(fields.pop("queue", EMAIL_HIGH), **fields)


def an_erasure(**changes: Any) -> dict[str, Any]:
    selection = Filter(recipient=(WHO,), **changes)
    return {"selection": selection, "shown": {"recipient": None}, "note": "asked by letter"}


async def erased(db: Opened, **changes: Any) -> Operation:
    """Erase, and return the operation when it has ended."""
    return await db.run(await db.create(ERASE, **an_erasure(**changes)))


async def is_erased(db: Opened, item: NewNotification) -> bool:
    view = await db.reader.get(item.id, view=View(mode=item.mode), with_content=True)
    assert view is not None
    gone = {not view.recipient, not view.content, view.metadata == b"{}" and view.tag is None}
    assert len(gone) == 1 or view.recipient, "a notification is half erased"
    return not view.recipient


def dump(database_url: str, bin_folder: Path | None) -> bytes:
    """Return all that the database holds, as pg_dump writes it."""
    command = [str(find_binaries(bin_folder) / "pg_dump"), "--dbname", database_url]
    return subprocess.run(command, capture_output=True, check=True).stdout


def traces(text: str) -> set[str]:
    """Return a text and its plain hashes, in the forms in which a dump may have them."""
    raw = text.encode()
    values = [raw, *(hashlib.new(name, raw).digest() for name in ("md5", "sha1", "sha256"))]
    hexes = {value.hex() for value in values}
    uuids = {f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:32]}" for d in hexes if len(d) >= 32}
    return {text, *hexes, *uuids, *(base64.b64encode(value).decode() for value in values)}


def a_fallback(submit: Mapping[str, object]) -> NewFallback:
    return NewFallback(
        channel="email",
        submit=json.dumps(submit).encode(),
        needs=frozenset(submit),
        after=timedelta(minutes=5),
    )


async def store_everything(db: Opened, url: str) -> None:
    """Store all that Notifier stores of a recipient, in every place that may have it."""
    link = ConnectionSettings(url=url)
    blob = blob_id(INVOICE)
    files = json.dumps({"body": SECRET, "attachments": [{"blob": blob, "name": "a.pdf"}]}).encode()
    metadata = json.dumps({"customer": WHO, "name": "Ada L."}).encode()
    lookups = (
        *OF_WHO,
        Lookup(LookupKind.TAG, f"for-{WHO}"),
        Lookup(metadata_kind("customer"), WHO),
    )
    waiting = replace(of_who(tag=f"for-{WHO}", lookups=lookups), metadata=metadata)
    later = of_who(delay=timedelta(hours=1), recipient=SPELLED, collapse_key="login")
    refused, sent = of_who(), of_who(key=a_key("one", CONTENT))
    with_file = replace(
        of_who(content=files, lookups=(*OF_WHO, Lookup(FILE, blob))), blobs=(BlobUse(blob, ""),)
    )
    async with open_blobs(link) as blobs:
        await blobs.put(DEFAULT_TENANT, blob, INVOICE, is_mail=False)
    to_who = {"channel": "email", "recipient": WHO, "content": {"body": SECRET}}
    of_other = replace(a_notification(recipient="eve@example.com"), fallback=a_fallback(to_who))
    later = replace(later, fallback=a_fallback(to_who | {"recipient": "eve@example.com"}))
    await db.store.insert([waiting, later, refused, with_file, of_other])
    await db.store.insert_keyed([sent])
    failed, age_s = a_result(
        await claim_new(db.store, refused), Status.FAILED, outcome="refused", reason="refused"
    )
    await db.store.record([(replace(failed, detail=f"{WHO}: mailbox unavailable"), age_s)])
    accepted, age_s = a_result(await claim_new(db.store, sent))
    await db.store.record(
        [(replace(accepted, detail=f"queued for {WHO}", reference=f"<{WHO}>"), age_s)]
    )
    async with open_suppressions(link) as suppressions:
        new = NewSuppression(channel="email", recipient=WHO, topic="news", note=f"{WHO} wrote")
        await suppressions.add(SCOPE, [new], ADA)
    submit = {"channel": "email", "recipient": f"Ada <{SPELLED}>", "content": {"body": SECRET}}
    async with open_schedules(link, ()) as (schedules, _):
        schedule = NewSchedule(
            cron=Cron("0 9 * * *", "UTC"),
            notification=json.dumps(submit).encode(),
            needs=frozenset(submit),
            blobs=(),
            note="",
            is_paused=False,
        )
        await schedules.create(ScheduleScope(DEFAULT_TENANT, Mode.LIVE), schedule, ADA)
    async with receiving(url, channels=("email",)) as receiver:
        await receiver.receipts.add(
            PROVIDER, [a_receipt("nobody knows it", recipient=SPELLED, detail=f"{WHO} complained")]
        )
    cancel = await db.create(
        selection=Filter(recipient=(WHO,), status=("queued",), created_to=1.0),
        shown={"recipient": SPELLED, "created_to": "1970-01-01T00:00:01Z"},
    )
    await db.run(cancel)


async def test_after_an_erasure_a_dump_has_no_trace_of_the_recipient(
    db: Opened, database_url: str, postgres_bin: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "BLOBS_KEPT_S", 0.0)
    await store_everything(db, database_url)
    others = a_notification(recipient="bob@example.com", content=b'{"body":"of Bob"}')
    await db.store.insert([others])
    secret = [*map(traces, (WHO, SPELLED)), {SECRET, SECRET.encode().hex(), INVOICE.hex()}]
    before = await asyncio.to_thread(dump, database_url, postgres_bin)
    assert [texts for texts in secret if not any(text.encode() in before for text in texts)] == []
    done = await erased(db)
    assert (done.status, done.done, done.skipped) == (OperationStatus.FINISHED, 5, 0)
    after = await asyncio.to_thread(dump, database_url, postgres_bin)
    assert [text for texts in secret for text in texts if text.encode() in after] == []
    assert b"bob@example.com" in after
    assert not await is_erased(db, others)


async def test_what_waits_ends_and_is_never_called(db: Opened, connection: Connection) -> None:
    item = of_who()
    await db.store.insert([item])
    (pointer,) = await due(db.store)
    await erased(db)
    end = await end_of(connection, item.id)
    assert end is not None
    assert (end["status"], end["reason"]) == ("suppressed", "erased")
    assert await claim_all(db.store, [pointer]) == []
    assert await is_erased(db, item)


async def test_what_is_being_sent_is_erased_once_its_result_is_recorded(
    db: Opened, connection: Connection
) -> None:
    sent, retried = of_who(), of_who()
    await db.store.insert([sent, retried])
    rows = [await claim_new(db.store, each) for each in (sent, retried)]
    operation = await db.create(ERASE, **an_erasure())
    for _ in range(3):
        step = await db.steps.step()
        assert step is not None
        assert step.operation.status is OperationStatus.RUNNING
    assert not await is_erased(db, sent)
    accepted, age_s = a_result(rows[0])
    await db.store.record([(replace(accepted, detail=f"for {WHO}"), age_s)])
    again = a_result(rows[1], Status.RETRYING, outcome="deferred", after=timedelta(seconds=60))
    await db.store.record([again])
    done = await db.run(operation)
    assert (done.matched, done.done) == (2, 2)
    assert [await db.status(each) for each in (sent, retried)] == [Status.SENT, Status.SUPPRESSED]
    assert await is_erased(db, sent)
    assert await is_erased(db, retried)
    assert await connection.fetchval("SELECT count(*) FROM attempts WHERE detail <> ''") == 0


async def test_a_late_result_of_an_erased_notification_keeps_no_text_of_the_provider(
    db: Opened, connection: Connection
) -> None:
    item = of_who()
    await db.store.insert([item])
    row = await claim_new(db.store, item)
    await db.store.record(
        [a_result(row, Status.RETRYING, outcome="deferred", after=timedelta(seconds=60))]
    )
    await erased(db)
    late, age_s = a_result(row)
    await connection.execute("UPDATE attempts SET recorded_by = gen_random_uuid()")
    await db.store.record([(replace(late, detail=WHO, reference=WHO), age_s)])
    attempt = await connection.fetchrow("SELECT detail, reference, late FROM attempts")
    assert attempt is not None
    assert tuple(attempt) == ("", "", True)
    assert await db.status(item) is Status.SENT


@pytest.mark.parametrize("name", ["record_late", "retry"])
async def test_late_results_and_retries_wait_for_an_erasure_and_find_it(
    db: Opened, connection: Connection, name: str
) -> None:
    item = of_who()
    await db.store.insert([item])
    row = await claim_new(db.store, item)
    failed = a_result(row, Status.FAILED, outcome="refused", reason="refused")
    await db.store.record([failed])
    await connection.execute("UPDATE attempts SET recorded_by = gen_random_uuid()")
    late, age_s = a_result(row, Status.FAILED, outcome="refused", reason="refused")

    async def change() -> object:
        if name == "retry":
            return await db.retry(item)
        return await db.store.record([(replace(late, detail=WHO), age_s)])

    ids, tomorrow = [item.id], datetime.now(UTC) + timedelta(days=1)
    async with asyncio.TaskGroup() as group, asyncio.timeout(30):
        async with connection.transaction():
            await connection.fetch(statement("erase_lock"), ids, item.id, item.id, tomorrow)
            changed = group.create_task(change(), name=name)
            while not await connection.fetchval(SESSIONS_THAT_WAIT_FOR_A_LOCK):
                await connection.execute("SELECT pg_stat_clear_snapshot()")
            await connection.fetch(statement("erase_wipe"), ids, item.id, item.id)
        result = await changed
    assert await is_erased(db, item)
    assert await db.status(item) is Status.FAILED
    assert await connection.fetchval("SELECT detail FROM attempts") == ""
    assert result is Retried.WRONG_STATUS or name == "record_late"


async def test_only_what_the_filter_names_and_was_there_before_is_erased(
    db: Opened, connection: Connection
) -> None:
    shop = TenantId("shop")
    await connection.execute("INSERT INTO tenants (name) VALUES ('shop')")
    mine, by_sms = of_who(tenant=shop), of_who(tenant=shop, queue=SMS_HIGH)
    of_others, test = of_who(), of_who(tenant=shop, test_channel="email")
    somebody = of_who(tenant=shop, recipient="lovelace@example.com")
    await db.store.insert([mine, by_sms, of_others, test, somebody])
    operation = await db.create(ERASE, **an_erasure(channel=("email",), view=View(shop)))
    later = of_who(tenant=shop)
    await db.store.insert([later])
    assert (await db.run(operation)).done == 1
    assert await is_erased(db, mine)
    for item in (by_sms, of_others, test, somebody, later):
        assert not await is_erased(db, item)


async def test_a_batch_that_was_being_stored_is_erased_too(
    db: Opened, connection: Connection
) -> None:
    item = of_who()
    session = db.store._connections.accept
    await session.fetch("BEGIN")
    await db.store.insert([item])
    operation = await db.create(ERASE, **an_erasure())
    step = await db.steps.step()
    assert step is not None
    assert step.operation.status is OperationStatus.RUNNING
    await session.fetch("COMMIT")
    assert (await db.run(operation)).done == 1
    assert await is_erased(db, item)
    assert await connection.fetchval("SELECT count(*) FROM lookups") == 0


@pytest.mark.parametrize("since", ["-1 day", "-70 minutes", "1 day"])
async def test_it_finds_what_has_lookups_and_what_has_none(
    db: Opened, connection: Connection, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    monkeypatch.setattr(erasing, "MAX_SCANNED", 7)
    monkeypatch.setattr(erasing, "MAX_ERASED", 3)
    await connection.execute(
        "INSERT INTO lookup_starts VALUES ('recipient', now() + $1::text::interval)", since
    )
    old = [older(of_who(), hours=5) for _ in range(20)]
    new = [of_who(lookups=OF_WHO) for _ in range(20)]
    others = [a_notification() for _ in range(20)]
    if since == "-1 day":  # then all must have lookups
        old = [replace(item, lookups=OF_WHO) for item in old]
    await db.store.insert([*old, *new, *others])
    counted = await db.operations.count(an_operation(ERASE, **an_erasure()))
    assert (counted.matched, counted.is_exact) == (40, True)
    assert (await erased(db)).done == 40
    for item in (*old, *new):
        assert await is_erased(db, item)
    assert await connection.fetchval("SELECT count(*) FROM lookups") == 0
    assert await connection.fetchval("SELECT count(*) FROM live") == len(others)


def older(item: NewNotification, *, hours: int) -> NewNotification:
    """Return a notification with an id of some hours ago."""
    ago = (hours * 3_600_000) << 80
    return replace(item, id=NotificationId(UUID(int=item.id.int - ago)))


async def test_what_was_suppressed_stays_suppressed_without_its_recipient(
    db: Opened, database_url: str
) -> None:
    async with open_suppressions(ConnectionSettings(url=database_url)) as suppressions:
        new = NewSuppression(channel="email", recipient=WHO, note="a complaint")
        await suppressions.add(SCOPE, [new, NewSuppression(channel="sms", recipient=WHO)], ADA)
        await erased(db, channel=("email",))
        page = await suppressions.suppressions(SuppressionFilter(scope=SCOPE))
    kept = {each.channel: each for each in page.suppressions}
    email = kept["email"]
    assert (email.recipient, email.reason, email.note) == (None, "erased", "")
    assert (kept["sms"].recipient, kept["sms"].reason) == (WHO, "manual")
    recipient = Recipient(of_who().scope, WHO)
    found = (await db.store.suppressed([recipient]))[recipient]
    assert {each.channel: each.reason for each in found} == {"email": "erased", "sms": "manual"}


async def test_a_running_operation_on_the_recipient_is_stopped(
    db: Opened, connection: Connection
) -> None:
    cancel = await db.create(
        selection=Filter(recipient=(WHO,), status=("queued",)), shown={"recipient": [WHO]}
    )
    other = await db.create(
        selection=Filter(recipient=("bob@example.com",), status=("queued",)),
        shown={"recipient": "bob@example.com"},
    )
    await connection.execute("UPDATE operations SET next_at = now() + interval '1 hour'")
    await erased(db)
    stopped = await db.operations.operation(cancel.id, ALL_LIVE)
    assert stopped is not None
    assert (stopped.status, stopped.filter) == (
        OperationStatus.STOPPED,
        {"recipient": ["erased"]},
    )
    left = await db.operations.operation(other.id, ALL_LIVE)
    assert left is not None
    assert (left.status, left.filter) == (
        OperationStatus.RUNNING,
        {"recipient": "bob@example.com"},
    )


async def test_a_file_is_removed_unless_somebody_else_has_it(
    db: Opened, database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "BLOBS_KEPT_S", 0.0)
    names = ("own", "shared", "used since")
    blobs = {name: blob_id(name.encode()) for name in names}
    async with open_blobs(ConnectionSettings(url=database_url)) as store:
        for name, blob in blobs.items():
            await store.put(DEFAULT_TENANT, blob, name.encode(), is_mail=False)
        mine = with_files(of_who(), *blobs.values())
        theirs = with_files(a_notification(), blobs["shared"])
        await db.store.insert([mine, theirs])
        operation = await db.create(ERASE, **an_erasure())
        monkeypatch.setattr(erasing, "BLOBS_KEPT_S", 3600.0)
        for _ in range(2):
            step = await db.steps.step()
            assert step is not None
            assert (step.operation.status, step.operation.done) == (OperationStatus.RUNNING, 1)
        assert len(await store.sizes(theirs.id, list(blobs.values()))) == 3
        await store.keep(DEFAULT_TENANT, [blobs["used since"]])
        await connection.execute("UPDATE erased_blobs SET due_at = now()")
        await db.run(operation)
        left = await store.sizes(theirs.id, list(blobs.values()))
    assert set(left) == {blobs["shared"], blobs["used since"]}
    assert await connection.fetchval("SELECT count(*) FROM erased_blobs") == 0


async def test_a_file_of_a_fallback_that_waits_is_not_removed(
    db: Opened, database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "BLOBS_KEPT_S", 0.0)
    blobs = {name: blob_id(name.encode()) for name in ("own", "shared")}
    async with open_blobs(ConnectionSettings(url=database_url)) as store:
        for name, blob in blobs.items():
            await store.put(DEFAULT_TENANT, blob, name.encode(), is_mail=False)
        mine = with_files(of_who(), *blobs.values())
        content = {"body": "text", "attachments": [{"blob": blobs["shared"]}]}
        submit = json.dumps({"channel": "email", "content": content}, separators=(",", ":"))
        waiting = NewFallback(
            channel="email",
            submit=submit.encode(),
            needs=frozenset({"channel", "content.attachments"}),
            after=timedelta(minutes=5),
        )
        other = replace(a_notification(), fallback=waiting)
        await db.store.insert([mine, other])
        await erased(db)
        left = await store.sizes(other.id, list(blobs.values()))
        assert set(left) == {blobs["shared"]}
        await connection.execute("UPDATE fallbacks SET look_at = NULL, submit = NULL")


async def test_a_schedule_whose_fallback_is_for_the_recipient_is_deleted(
    db: Opened, database_url: str, connection: Connection
) -> None:
    submit = {"channel": "sms", "recipient": "+15005550006", "content": {"body": "text"}}
    fallback = {"channel": "email", "recipient": WHO, "after_s": 60, "content": {"body": "text"}}
    other = fallback | {"recipient": "eve@example.com"}
    async with open_schedules(ConnectionSettings(url=database_url), ()) as (schedules, _):
        for second in (fallback, other):
            document = submit | {"fallback": second}
            schedule = NewSchedule(
                cron=Cron("0 9 * * *", "UTC"),
                notification=json.dumps(document).encode(),
                needs=frozenset(document),
                blobs=(),
                note="",
                is_paused=False,
            )
            await schedules.create(ScheduleScope(DEFAULT_TENANT, Mode.LIVE), schedule, ADA)
    await erased(db)
    [left] = await connection.fetch("SELECT notification FROM schedules")
    assert json.loads(left["notification"])["fallback"] == other


def with_files(item: NewNotification, *blobs: Any) -> NewNotification:
    content = {"body": SECRET, "attachments": [{"blob": blob} for blob in blobs]}
    return replace(
        item,
        content=json.dumps(content, separators=(",", ":")).encode(),
        lookups=tuple(Lookup(FILE, blob) for blob in blobs),
    )


async def test_what_was_erased_is_not_sent_again(db: Opened) -> None:
    items = [of_who(tag="summer-sale", lookups=(Lookup(LookupKind.TAG, "summer-sale"),))]
    await db.store.insert(items)
    await db.fail(*items)
    view = await db.view(items[0])
    await erased(db)
    assert await db.operations.retry(view, "", ADA) is Retried.CONTENT_GONE
    assert await db.status(items[0]) is Status.FAILED


async def test_an_erasure_keeps_only_hashes_of_the_recipient_and_a_repeat_is_known(
    db: Opened, connection: Connection
) -> None:
    new = an_operation(ERASE, key=a_key("erase-1", b"body"), **an_erasure())
    made = await db.operations.create(new, ADA)
    assert isinstance(made, Operation)
    assert made.filter == {"recipient": None}
    again = await db.operations.create(new, ADA)
    assert isinstance(again, Replay)
    stored = await connection.fetchval("SELECT o::text FROM operations o")
    assert WHO not in stored
    assert new.key is not None
    assert str(new.key.body) not in stored
    entry = await connection.fetchval("SELECT after::text FROM audit")
    (hash_,) = json.loads(entry)["recipient_hashes"]
    assert len(hash_) == 36
    assert WHO not in entry


def a_call(item: NewNotification) -> NewNotification:
    """Return a call of a webhook with an event of a notification."""
    event = {
        "id": str(uuid4()),
        "type": "notification.sent",
        "data": {
            "notification": {
                "id": str(item.id),
                "recipient": item.recipient,
                "tag": f"for-{item.recipient}",
                "reference": f"<{item.recipient}>",
                "metadata": {"customer": item.recipient},
                "result": {"code": "250", "detail": f"queued for {item.recipient}"},
            }
        },
    }
    webhook = uuid4()
    return call_of(
        webhook,
        WebhookScope(item.tenant, item.mode),
        call_id(uuid4(), webhook, datetime.now(UTC)),
        json.dumps(event).encode(),
        timedelta(days=1),
        of=item.id,
    )


async def test_calls_of_webhooks_say_nothing_of_an_erased_recipient_and_are_made_still(
    db: Opened, connection: Connection
) -> None:
    test = {"queue": QueueKey(Channel("test"), EMAIL_HIGH.priority), "test_channel": "email"}
    items = [of_who(), of_who(tenant=TenantId("shop")), of_who(**test)]
    bob = a_notification(recipient="bob@example.com")
    calls = [a_call(item) for item in (*items, bob)]
    await db.store.insert([*items, bob, *calls])
    failed, age_s = a_result(await claim_new(db.store, calls[0]), Status.FAILED, reason="refused")
    await db.store.record([(failed, age_s)])
    await erased(db)

    async def contents() -> list[dict[str, Any]]:
        query = "SELECT content FROM notifications WHERE id = $1"
        return [json.loads(await connection.fetchval(query, call.id)) for call in calls]

    before = [json.loads(call.content) for call in calls]
    after = await contents()
    assert after[2:] == before[2:]  # of another mode, and another recipient
    for was, became in zip(before[:2], after[:2], strict=True):
        shown = was["event"]["data"]["notification"]
        shown |= {"recipient": None, "tag": None, "reference": None, "metadata": {}}
        shown["result"]["detail"] = None
        assert became == was
    assert await connection.fetchval("SELECT count(*) FROM live WHERE id = $1", calls[1].id) == 1
    await erased(db)
    assert await contents() == after


async def test_entries_of_inboxes_go_with_their_notifications_and_with_their_users(
    db: Opened, database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "MAX_READ", 2)
    monkeypatch.setattr(erasing, "MAX_ENTRIES", 2)
    link = ConnectionSettings(url=database_url)
    queue = QueueKey(Channel("inbox"), EMAIL_HIGH.priority)
    items = [of_who(queue=queue), a_notification(queue, recipient="bob@example.com")]
    await db.store.insert(items)
    async with open_inbox_writer(link, 3600.0) as writer:
        for item in items:
            await writer.add(NewEntry(item.id, None, SECRET, None))
            await db.store.record([a_result(await claim_new(db.store, item))])
    add = """
        INSERT INTO inbox_entries (id, tenant, mode, user_id, body, expires_at)
        VALUES ($1, $2, $3, $4, '', 'infinity')"""
    old, of_shop, of_test, later = uuid4(), uuid4(), uuid4(), uuid4()
    of_others = [uuid4() for _ in range(5)]
    for number, id_ in enumerate(of_others):
        await connection.execute(add, id_, "", "live", f"user-{number}")
    await connection.execute(add, later, "", "live", WHO)
    await connection.execute(
        "UPDATE inbox_entries SET created_at = 'infinity' WHERE id = $1", later
    )
    await connection.execute(add, old, "", "live", SPELLED)
    for _ in range(5):
        await connection.execute(add, uuid4(), "", "live", WHO)
    await connection.execute(add, of_shop, "shop", "live", WHO)
    await connection.execute(add, of_test, "", "test", WHO)

    async def ids() -> set[UUID]:
        return {row["id"] for row in await connection.fetch("SELECT id FROM inbox_entries")}

    kept = {items[1].id, of_test, later, *of_others}
    await erased(db, channel=("email",))
    assert await ids() >= {*kept, items[0].id, old, of_shop}
    await erased(db, view=View(DEFAULT_TENANT, Mode.LIVE))
    assert await ids() == {*kept, of_shop}
    await erased(db)
    assert await ids() == kept
