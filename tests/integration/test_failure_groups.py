"""Groups of failures on a real Postgres."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from notifier.adapters.postgres import failures as failures_module
from notifier.adapters.postgres.connection import ConnectionSettings
from notifier.adapters.postgres.reader import open_reader
from notifier.domain.credentials import Mode
from notifier.domain.failures import HOURS, MAX_GROUPS, begin_of
from notifier.domain.notification import WEBHOOK_CHANNEL, Status
from notifier.domain.tenants import TenantId
from notifier.ports.queries import ALL_LIVE, View
from tests.builders import new_id
from tests.live_rows import retry_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from notifier.adapters.postgres.reader import PostgresReader
    from notifier.domain.failures import FailureGroup
    from notifier.domain.notification import NotificationId
    from tests.live_rows import Connection

NOW: Final = datetime.now(UTC)
SHOP: Final = TenantId("shop")
ADD: Final = """
    WITH stored AS (
        INSERT INTO notifications (id, expires_at, queue, recipient, content, metadata, tenant,
                                   test_channel)
        VALUES ($1, now() + interval '1 hour', $2, 'a@example.com', '{}', '{}', $3, $4)
    )
    INSERT INTO ends (id, claim, status, queue, reason, provider, code, tries, first_at, at)
    VALUES ($1, 1, $5::text::notification_status, $2, $6, $7, $8, 1, $9, $9)"""


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[PostgresReader]:
    async with open_reader(ConnectionSettings(url=database_url)) as opened:
        yield opened


async def add(
    connection: Connection,
    *,
    queue: str = "email.low",
    tenant: str = "default",
    test_channel: str = "",
    status: Status = Status.FAILED,
    reason: str = "exhausted",
    provider: str = "smtp",
    code: str = "421",
    at: datetime = NOW,
) -> NotificationId:
    """Write a notification that has ended; return its id."""
    id_ = new_id()
    values = (queue, tenant, test_channel, status.value, reason, provider, code, at)
    await connection.execute(ADD, id_, *values)
    return id_


async def groups_of(
    reader: PostgresReader, *channels: str, view: View = ALL_LIVE
) -> Sequence[FailureGroup]:
    found = await reader.failure_groups(begin_of(NOW), channels, view)
    assert found.is_exact
    return found.groups


async def test_failures_are_grouped_by_reason_provider_and_code(
    reader: PostgresReader, connection: Connection
) -> None:
    hours_ago = [NOW - timedelta(hours=hours) for hours in range(HOURS)]
    await add(connection, at=hours_ago[2])
    await add(connection, queue="email.high", at=hours_ago[5])
    newest = await add(connection, at=hours_ago[2])
    await add(connection, reason="refused")
    await add(connection, provider="ses")
    await add(connection, code="550")
    first, *others = await groups_of(reader)
    assert (first.reason, first.provider, first.code) == ("exhausted", "smtp", "421")
    assert (first.count, first.queues) == (3, ["email.high", "email.low"])
    assert (first.first_at, first.last_at) == (hours_ago[5], hours_ago[2])
    assert first.sample == newest
    expected = [0] * HOURS
    expected[-3], expected[-6] = 2, 1
    assert first.hours == expected
    assert {(group.reason, group.provider, group.code) for group in others} == {
        ("refused", "smtp", "421"),
        ("exhausted", "ses", "421"),
        ("exhausted", "smtp", "550"),
    }
    assert all(group.count == 1 and group.hours[-1] == 1 for group in others)


async def test_without_a_failure_there_is_no_group(
    reader: PostgresReader, connection: Connection
) -> None:
    assert await groups_of(reader) == []
    await add(connection, status=Status.CANCELLED, reason="request")
    await add(connection, status=Status.EXPIRED, reason="ttl")
    assert await groups_of(reader) == []


async def test_what_failed_before_the_first_hour_is_left_out(
    reader: PostgresReader, connection: Connection
) -> None:
    begin = begin_of(NOW)
    await add(connection, at=begin - timedelta(microseconds=1))
    assert await groups_of(reader) == []
    await add(connection, at=begin)
    [group] = await groups_of(reader)
    assert group.hours == [1] + [0] * (HOURS - 1)


async def test_a_notification_that_is_sent_again_leaves_its_group(
    reader: PostgresReader, connection: Connection
) -> None:
    failed = await add(connection)
    stays = await add(connection)
    assert await retry_by(connection, failed) == [failed]
    [group] = await groups_of(reader)
    assert (group.count, group.sample) == (1, stays)


async def test_a_tenant_sees_its_own_failures_only(
    reader: PostgresReader, connection: Connection
) -> None:
    await add(connection)
    own = await add(connection, tenant=SHOP)
    [all_] = await groups_of(reader)
    [group] = await groups_of(reader, view=View(SHOP))
    assert (all_.count, group.count, group.sample) == (2, 1, own)
    assert await groups_of(reader, view=View(TenantId("other"))) == []


async def test_failures_of_tests_are_seen_in_the_mode_of_tests_only(
    reader: PostgresReader, connection: Connection
) -> None:
    live = await add(connection)
    test = await add(connection, queue="test.low", test_channel="email")
    [group] = await groups_of(reader)
    assert group.sample == live
    tests = View(mode=Mode.TEST)
    for channels in ((), ("email",), ("sms", "email")):
        [group] = await groups_of(reader, *channels, view=tests)
        assert (group.sample, group.queues) == (test, ["test.low"])
    assert await groups_of(reader, "sms", view=tests) == []


async def test_calls_of_webhooks_and_entries_of_inboxes_are_grouped_if_their_channel_is_asked_for(
    reader: PostgresReader, connection: Connection
) -> None:
    await add(connection)
    await add(connection, queue="inbox.low")
    call = await add(connection, queue=f"{WEBHOOK_CHANNEL}.low", code="503")
    [group] = await groups_of(reader)
    assert group.queues == ["email.low"]
    [group] = await groups_of(reader, WEBHOOK_CHANNEL)
    assert (group.sample, group.code) == (call, "503")
    assert len(await groups_of(reader, "email", WEBHOOK_CHANNEL)) == 2


async def test_a_failure_without_its_notification_is_left_out(
    reader: PostgresReader, connection: Connection
) -> None:
    stays = await add(connection)
    gone = await add(connection)
    await connection.execute("DELETE FROM notifications WHERE id = $1", gone)
    [group] = await groups_of(reader)
    assert (group.count, group.sample) == (1, stays)


async def test_an_erased_notification_is_still_counted(
    reader: PostgresReader, connection: Connection
) -> None:
    erased = await add(connection)
    await connection.execute(
        "UPDATE notifications SET recipient = '', content = '', metadata = '{}' WHERE id = $1",
        erased,
    )
    [group] = await groups_of(reader)
    assert group.sample == erased


async def test_the_groups_with_the_most_failures_are_shown(
    reader: PostgresReader, connection: Connection
) -> None:
    for number in range(MAX_GROUPS + 1):
        await add(connection, code=str(number))
    await add(connection, code="1")
    groups = await groups_of(reader)
    assert len(groups) == MAX_GROUPS
    assert [group.count for group in groups] == [2] + [1] * (MAX_GROUPS - 1)


async def test_when_there_are_more_failures_than_are_read_the_newest_are_counted(
    reader: PostgresReader, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures_module, "MAX_READ", 2)
    await add(connection, code="oldest")
    await add(connection)
    assert not (await reader.failure_groups(begin_of(NOW), (), ALL_LIVE)).is_exact
    await add(connection)
    found = await reader.failure_groups(begin_of(NOW), (), ALL_LIVE)
    assert not found.is_exact
    [group] = found.groups
    assert (group.code, group.count) == ("421", 2)
