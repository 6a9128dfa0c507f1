"""Suppressions on a real Postgres: whoever is suppressed gets nothing, whenever it was accepted."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import pytest

from notifier.adapters.postgres import suppressions as suppressions_module
from notifier.adapters.postgres.connection import ConnectionSettings, open_connection
from notifier.adapters.postgres.keys import PostgresKeys
from notifier.adapters.postgres.reader import open_reader
from notifier.adapters.postgres.store import PostgresStore, open_store
from notifier.adapters.postgres.suppressions import PostgresSuppressions, open_suppressions
from notifier.adapters.telemetry.metrics import Metrics
from notifier.delivery.accept import Accept
from notifier.delivery.suppression_check import SuppressionCheck
from notifier.delivery.unsubscribe_links import UnsubscribeLinks
from notifier.domain.credentials import Mode
from notifier.domain.lookups import Lookup
from notifier.domain.notification import Status
from notifier.domain.recipients import recipient_identity
from notifier.domain.suppressions import NewSuppression, SuppressionReason, SuppressionScope
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.acceptor import Replayed, Suppressed
from notifier.ports.keys import Author
from notifier.ports.queries import Filter
from notifier.ports.store import ClaimRequest
from notifier.ports.suppressions import SuppressionFilter
from notifier.recovery.pruner import Pruner
from notifier.recovery.suppressor import Suppressor
from notifier.scheduling.cluster.worker_features import WorkerFeatures
from tests.builders import (
    QUEUES,
    SMS_HIGH,
    a_key,
    a_notification,
    a_result,
    worker_id,
)
from tests.integration.test_accept import RecordingPublisher
from tests.live_rows import claim_new

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.adapters.postgres.reader import PostgresReader
    from notifier.domain.notification import NewNotification, NotificationView
    from notifier.ports.suppressions import AddedSuppression
    from tests.live_rows import Connection

SCOPE = SuppressionScope(DEFAULT_TENANT, Mode.LIVE)
AUTHOR = Author(actor="cli:ada@host")
ADA = "ada@example.com"


class Opened(NamedTuple):
    store: PostgresStore
    reader: PostgresReader
    suppressions: PostgresSuppressions
    check: SuppressionCheck
    accept: Accept
    publisher: RecordingPublisher
    suppressor: Suppressor
    keys: PostgresKeys

    async def suppress(self, recipient: str = ADA, **fields: Any) -> AddedSuppression:
        new = NewSuppression(**{"channel": "email", "recipient": recipient} | fields)
        (added,) = await self.suppressions.add(SCOPE, [new], AUTHOR)
        return added

    async def view(self, item: NewNotification) -> NotificationView:
        found = await self.reader.get(item.id)
        assert found is not None
        return found

    async def statuses(self, items: Sequence[NewNotification]) -> list[Status]:
        return [(await self.view(item)).status for item in items]


@pytest.fixture(autouse=True)
def known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only process of these tests asks each time, so that nobody must wait for it."""
    monkeypatch.setattr(suppressions_module, "UNKNOWN_FOR_S", 0.0)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Opened]:
    settings = ConnectionSettings(url=url)
    metrics = Metrics(QUEUES, {}, version="0")
    async with (
        open_store(settings, worker_id()) as store,
        open_reader(settings) as reader,
        open_suppressions(settings) as suppressions,
        open_connection(settings) as connection,
        asyncio.TaskGroup() as group,
    ):
        check, publisher = SuppressionCheck(store), RecordingPublisher()
        links = UnsubscribeLinks(
            hashes=store,
            secret=(keys := PostgresKeys(connection)),
            public_url="https://notify.example.com",
            channels=["email"],
        )
        features = WorkerFeatures(metrics)
        features.beat_succeeded([])
        accept = Accept(
            store=store,
            observer=metrics,
            publisher=publisher,
            features=features,
            steps=(check, links),
            deadline_s=5.0,
            max_backlog=100_000,
        )
        group.create_task(accept.run())
        suppressor = Suppressor(store=store.suppression_passes, observer=metrics)
        yield Opened(store, reader, suppressions, check, accept, publisher, suppressor, keys)
        accept.close()


def to(recipient: str = ADA, **fields: Any) -> NewNotification:
    """A notification, with the lookup of its recipient."""
    lookup = Lookup("recipient", recipient_identity(recipient))
    return a_notification(**{"recipient": recipient, "lookups": (lookup,)} | fields)


async def make_due(connection: Connection) -> None:
    await connection.execute("UPDATE suppressions SET pass_at = now() WHERE pass_at IS NOT NULL")


async def test_a_submit_to_a_suppressed_recipient_is_stored_as_suppressed_and_not_published(
    database_url: str, connection: Connection
) -> None:
    mail, other = a_notification(recipient="Ada@EXAMPLE.com"), a_notification()
    text = a_notification(SMS_HIGH, recipient="+15005550006")
    async with opened(database_url) as db:
        db.publisher.room = 10
        await db.suppress(reason=SuppressionReason.COMPLAINT)
        assert await db.accept.submit([mail, other, text]) == [
            Suppressed("complaint"),
            Status.QUEUED,
            Status.QUEUED,
        ]
        assert db.publisher.enqueued == [other.id, text.id]
        assert db.publisher.reserved.total() == 0
        view = await db.view(mail)
        assert (view.status, view.result and view.result.reason) == ("suppressed", "complaint")
        assert view.tries == 0
        page = await db.reader.notifications(
            Filter(status=("suppressed",), reason=("complaint", "bounce"))
        )
        assert [each.id for each in page.views] == [mail.id]
    assert await connection.fetchval("SELECT count(*) FROM live") == 2


async def test_a_repeat_with_a_key_gets_the_reason_of_the_first_answer(database_url: str) -> None:
    first, repeat = to(key=a_key()), to(key=a_key())
    twin = to(key=a_key("twin"))
    async with opened(database_url) as db:
        await db.suppress()
        assert await db.accept.submit([first]) == [Suppressed("manual")]
        assert await db.accept.submit([repeat]) == [Replayed(first.id, Status.SUPPRESSED, "manual")]
        assert await db.accept.submit([twin, to(key=a_key("twin"))]) == [
            Suppressed("manual"),
            Replayed(twin.id, Status.SUPPRESSED, "manual"),
        ]


async def test_a_topic_suppresses_its_notifications_only(database_url: str) -> None:
    news, offers = to(topic="news"), to(topic="offers")
    async with opened(database_url) as db:
        await db.suppress(topic="news", reason=SuppressionReason.UNSUBSCRIBE)
        assert await db.accept.submit([news, offers, to()]) == [
            Suppressed("unsubscribe"),
            Status.QUEUED,
            Status.QUEUED,
        ]


async def test_suppressions_of_another_tenant_and_mode_do_not_count(database_url: str) -> None:
    async with opened(database_url) as db:
        for scope in (
            SuppressionScope(TenantId("shop"), Mode.LIVE),
            SuppressionScope(DEFAULT_TENANT, Mode.TEST),
        ):
            new = NewSuppression(channel="email", recipient=ADA)
            ((stored, _),) = await db.suppressions.add(scope, [new], AUTHOR)
            assert not await db.suppressions.remove(SCOPE, stored.id, AUTHOR)
            selection = SuppressionFilter(scope=scope)
            (found,) = (await db.suppressions.suppressions(selection)).suppressions
            assert found.id == stored.id
        assert await db.accept.submit([to()]) == [Status.QUEUED]
        page = await db.suppressions.suppressions(SuppressionFilter(scope=SCOPE))
        assert page.suppressions == []


async def test_an_expired_suppression_does_not_count_and_begins_anew(
    database_url: str, connection: Connection
) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    async with opened(database_url) as db:
        added = await db.suppress(expires_at=soon, note="first")
        assert not (await db.suppress(note="second")).is_new
        assert (await db.suppress(expires_at=soon)).suppression.expires_at is None  # not shortened
        await connection.execute("UPDATE suppressions SET expires_at = now() - interval '1 s'")
        assert await db.accept.submit([to()]) == [Status.QUEUED]
        await make_due(connection)
        assert await db.suppressor.run_once() == 0
        again = await db.suppress(note="third", expires_at=soon)
        assert again.is_new
        assert again.suppression.id == added.suppression.id
        assert (again.suppression.note, again.suppression.expires_at) == ("third", soon)
        assert await db.accept.submit([to()]) == [Suppressed("manual")]


async def test_an_expired_suppression_is_listed_as_long_as_notifications_are_kept(
    database_url: str, connection: Connection
) -> None:
    ages = {"old@example.com": "31 days", "recent@example.com": "29 days", ADA: "-1 days"}
    async with opened(database_url) as db:
        for recipient, age in ages.items():
            added = await db.suppress(recipient)
            await connection.execute(
                "UPDATE suppressions SET expires_at = now() - $2::text::interval WHERE id = $1",
                added.suppression.id,
                age,
            )
        await db.suppress("endless@example.com")
        pruner = Pruner(
            store=db.store,
            observer=Metrics(QUEUES, {}, version="0"),
            retention=timedelta(days=30),
            audit_retention=timedelta(days=365),
            keep_keys=timedelta(hours=24),
            keep_event_days=7,
        )
        await pruner.run_once()
        page = await db.suppressions.suppressions(SuppressionFilter(scope=SCOPE))
        left = [each.recipient for each in page.suppressions]
        assert left == ["endless@example.com", ADA, "recent@example.com"]


async def test_adding_one_ends_what_waits_for_the_recipient(
    database_url: str, connection: Connection
) -> None:
    waiting = [
        to(),
        to("ADA@example.com", delay=timedelta(hours=1)),
        to(topic="news"),
    ]
    others = [to("eve@example.com"), to("+15005550006", queue=SMS_HIGH)]
    async with opened(database_url) as db:
        await db.accept.submit([*waiting, *others])
        added = await db.suppress()
        await db.suppressor.suppress([added.suppression.id])
        assert await db.statuses(waiting) == ["suppressed"] * 3
        assert await db.statuses(others) == ["queued"] * 2
        view = await db.view(waiting[0])
        assert view.result is not None
        assert view.result.reason == "manual"
    row = await connection.fetchrow(
        "SELECT pass, pass_at - created_at < interval '15 s' AS is_soon FROM suppressions"
    )
    assert row is not None
    assert tuple(row) == (1, True)


@pytest.mark.parametrize("keeps_lookups", [False, True])
async def test_notifications_from_before_there_were_lookups_are_found(
    database_url: str, connection: Connection, *, keeps_lookups: bool
) -> None:
    without = [a_notification(recipient=ADA) for _ in range(3)]
    gone = a_notification(recipient=ADA)
    async with opened(database_url) as db:
        await db.accept.submit([gone, *without])
        await connection.execute("DELETE FROM notifications WHERE id = $1", gone.id)
        await db.store.suppression_passes.note_lookups(are_kept=keeps_lookups)
        await db.suppress()
        assert await db.suppressor.run_once() == 3
        assert await db.statuses(without) == ["suppressed"] * 3


async def test_rows_beyond_one_scan_are_found(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.adapters.postgres.suppression_passes.MAX_SCANNED", 2)
    monkeypatch.setattr("notifier.recovery.suppressor.MAX_ENDED", 2)
    mine = [a_notification(recipient=ADA) for _ in range(5)]
    async with opened(database_url) as db:
        await db.accept.submit([a_notification(), *mine, a_notification(), a_notification()])
        await db.suppress()
        assert await db.suppressor.run_once() == 5


async def test_once_lookups_are_kept_only_older_rows_are_scanned(
    database_url: str, connection: Connection
) -> None:
    async with opened(database_url) as db:
        passes = db.store.suppression_passes
        await db.accept.submit([a_notification(recipient=ADA)])
        await passes.note_lookups(are_kept=True)
        await connection.execute("UPDATE lookup_starts SET since = since - interval '2 hours'")
        await passes.note_lookups(are_kept=True)
        await db.suppress()
        assert await db.suppressor.run_once() == 0
        await passes.note_lookups(are_kept=False)
        await make_due(connection)
        assert await db.suppressor.run_once() == 1


async def test_a_row_that_was_being_accepted_is_ended_by_a_later_pass(
    database_url: str, connection: Connection
) -> None:
    """The submit asked before the suppression was stored, and is stored after its first pass."""
    item = to()
    async with opened(database_url) as db:
        (checked,) = await db.check.apply([item])
        assert checked.suppressed is None
        added = await db.suppress()
        await db.suppressor.suppress([added.suppression.id])
        await db.store.insert([checked])
        assert await db.statuses([item]) == ["queued"]
        assert await db.suppressor.run_once() == 0  # not due yet
        await make_due(connection)
        assert await db.suppressor.run_once() == 1
        assert await db.statuses([item]) == ["suppressed"]
        assert await connection.fetchval("SELECT pass FROM suppressions") == 2
        await make_due(connection)
        await db.suppressor.run_once()
        assert await connection.fetchval("SELECT pass_at FROM suppressions") is None


async def test_a_row_that_is_being_sent_is_looked_for_until_it_waits_or_has_ended(
    database_url: str, connection: Connection
) -> None:
    sent, retried = to(), to()
    async with opened(database_url) as db:
        await db.accept.submit([sent, retried])
        first, second = await claim_new(db.store, sent), await claim_new(db.store, retried)
        await db.suppress()
        for _ in range(4):
            assert await db.suppressor.run_once() == 0
            await make_due(connection)
        assert await connection.fetchval("SELECT pass_at IS NOT NULL FROM suppressions")
        await db.store.record(
            [
                a_result(first),
                a_result(
                    second,
                    Status.RETRYING,
                    outcome="unavailable",
                    after=timedelta(minutes=1),
                    code="421",
                ),
            ]
        )
        assert await db.suppressor.run_once() == 1
        assert await db.statuses([sent, retried]) == ["sent", "suppressed"]
        assert await connection.fetchval("SELECT pass_at FROM suppressions") is None


async def test_a_late_accepted_shows_that_a_suppressed_notification_was_sent(
    database_url: str, connection: Connection
) -> None:
    item = to()
    async with opened(database_url) as db:
        await db.accept.submit([item])
        claimed = await claim_new(db.store, item)
        await db.store.give_back([ClaimRequest(id=item.id, claim=0)])
        await db.suppress()
        assert await db.suppressor.run_once() == 1
        await db.store.record([a_result(claimed)])
        assert await db.statuses([item]) == ["sent"]


async def test_two_processes_that_end_the_same_rows_count_each_once(
    database_url: str,
) -> None:
    items = [to(f"u{n % 50}@example.com") for n in range(400)]
    async with opened(database_url) as one, opened(database_url) as other:
        await one.accept.submit(items)
        new = [NewSuppression(channel="email", recipient=f"u{n}@example.com") for n in range(50)]
        await one.suppressions.add(SCOPE, new, AUTHOR)
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(each.suppressor.run_once()) for each in (one, other)]
        assert sum(run.result() for run in runs) == 400
        assert set(await one.statuses(items)) == {"suppressed"}


async def test_a_list_has_filters_and_pages_and_is_bounded(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppressions_module, "MAX_CANDIDATES", 3)
    async with opened(database_url) as db:
        new = [
            NewSuppression(
                channel="email" if n % 2 else "sms",
                recipient=f"u{n}",
                topic="news" if n == 0 else None,
                reason=SuppressionReason.GONE if n == 1 else SuppressionReason.MANUAL,
            )
            for n in range(7)
        ]
        for each in new:
            await db.suppressions.add(SCOPE, [each], AUTHOR)

        async def pages(**fields: Any) -> list[list[str | None]]:
            found, selection = [], SuppressionFilter(scope=SCOPE, **fields)
            while True:
                page = await db.suppressions.suppressions(selection)
                found.append([each.recipient for each in page.suppressions])
                if page.next_before is None:
                    return found
                selection = replace(selection, before=page.next_before)

        assert list(chain(*await pages(limit=2))) == [f"u{n}" for n in range(6, -1, -1)]
        assert await pages(channel=("email",)) == [["u5"], ["u3", "u1"], []]
        assert await pages(reason=("gone",)) == [[], ["u1"], []]
        assert list(chain(*await pages(topic=("news",)))) == ["u0"]
        assert await pages(recipient=("u3", "u4"), channel=("sms",)) == [["u4"]]
        assert await pages(before=UUID(int=0)) == [[]]  # a cursor can be made up


async def test_every_change_of_a_person_is_in_the_audit_without_the_recipient(
    database_url: str, connection: Connection
) -> None:
    async with opened(database_url) as db:
        added = await db.suppress(note="asked by phone")
        await db.suppressions.add(
            SCOPE,
            [NewSuppression(channel="email", recipient=f"u{n}") for n in range(2)],
            AUTHOR,
        )
        assert await db.suppressions.remove(SCOPE, added.suppression.id, AUTHOR)
        assert not await db.suppressions.remove(SCOPE, added.suppression.id, AUTHOR)
    rows = await connection.fetch("SELECT actor, action, target, note FROM audit ORDER BY id")
    target = f"suppression:{added.suppression.id}"
    assert [tuple(row) for row in rows] == [
        (AUTHOR.actor, "suppression.created", target, "asked by phone"),
        (AUTHOR.actor, "suppression.created", "suppressions", ""),
        (AUTHOR.actor, "suppression.deleted", target, ""),
    ]
    texts = await connection.fetchval("SELECT string_agg(audit::text, '') FROM audit")
    assert ADA not in texts


async def test_equal_rows_of_one_call_are_one_suppression(database_url: str) -> None:
    async with opened(database_url) as db:
        new = [NewSuppression(channel="email", recipient=ADA, note=str(n)) for n in range(2)]
        first, second = await db.suppressions.add(SCOPE, new, AUTHOR)
        assert (first.is_new, second.is_new) == (True, False)
        assert first.suppression.id == second.suppression.id


async def test_the_link_of_a_mail_suppresses_its_topic_also_after_the_mail_is_gone(
    database_url: str, connection: Connection
) -> None:
    mail = to("Ada@Example.com", topic="news")
    erased = to("eve@example.com", topic="news")
    async with opened(database_url) as db:
        links = UnsubscribeLinks(
            hashes=db.store, secret=db.keys, public_url="https://x", channels=["email"]
        )
        for item, recipient in ((mail, ADA), (erased, None)):
            (linked,) = await links.apply([item])
            token = linked.content.decode().partition("/v1/unsubscribe/")[2].partition(">")[0]
            wish = await links.read(token)
            assert wish is not None
            await db.accept.submit([item])
            if recipient is None:
                await connection.execute(
                    "UPDATE notifications SET recipient = 'erased:1' WHERE id = $1", item.id
                )
            id_ = await db.suppressions.unsubscribe(wish)
            assert await db.suppressions.unsubscribe(wish) == id_
            (found,) = [
                each
                for each in (
                    await db.suppressions.suppressions(SuppressionFilter(scope=SCOPE))
                ).suppressions
                if each.id == id_
            ]
            assert (found.recipient, found.topic) == (recipient, "news")
            assert (found.reason, found.notification) == ("unsubscribe", item.id)
            again = to(item.recipient, topic="news")
            transactional = to(item.recipient)
            assert await db.accept.submit([again, transactional]) == [
                Suppressed("unsubscribe"),
                Status.QUEUED,
            ]
    assert await connection.fetchval("SELECT count(*) FROM audit") == 0


async def test_whoever_adds_the_first_one_waits_until_every_process_knows(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with opened(database_url) as db:
        await db.suppress()
        await connection.execute(
            "UPDATE suppressions SET created_at = created_at - interval '20 s'"
        )
        await db.suppress("eve@example.com")
    assert slept == [0.0]
