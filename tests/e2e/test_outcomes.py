"""Whose matter a response is: scripted providers, real processes, calls counted at the provider."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import asyncpg
import pytest

from harness.client import Client, Document, open_client, until
from harness.system import running_system, urls
from notifier.domain.allocation.demand import RESERVED_CONSUMERS
from notifier.domain.notification import Priority
from notifier.scheduling.gates.prober import MAX_THROTTLED_PROBES
from tests.e2e.scripted import (
    HttpScript,
    MailScript,
    Reply,
    open_http_script,
    open_mail_script,
)

SENT: Reply = (201, {"sid": "SM1", "name": "projects/e2e/messages/1"})
HAS_FAILED_A_HANDFUL = 40
"""20 refusals in a row, and what was in flight then."""


@asynccontextmanager
async def a_system(
    folder: Path, database_url: str, vhost_url: str, **settings: object
) -> AsyncIterator[Client]:
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    with running_system(folder, urls(database_url, vhost_url) | dotted) as system:
        system.start_api()
        system.start_worker()
        async with open_client(system.api_url, system.sandbox_url) as client:
            yield client


def mails(count: int, name: str = "user") -> list[Document]:
    return [
        {
            "channel": "email",
            "priority": "high",
            "recipient": f"{name}-{number}@example.com",
            "content": {"subject": "Hello", "body": "World"},
        }
        for number in range(count)
    ]


def codes(count: int, priority: str = "high", **more: object) -> list[Document]:
    return [
        {
            "channel": "sms",
            "priority": priority,
            "recipient": f"+1202555{number:04}",
            "content": {"body": "123456"},
            **more,
        }
        for number in range(count)
    ]


def pushes(count: int, platform: str, priority: str) -> list[Document]:
    return [
        {
            "channel": "push",
            "priority": priority,
            "recipient": f"{platform}-token-{number}",
            "content": {"subject": "Hello", "body": "World"},
        }
        for number in range(count)
    ]


async def provider(client: Client, name: str) -> Document:
    rows = await client.items("providers")
    return next(row for row in rows if row["provider"] == name)


async def breaker_opens(client: Client, name: str, reason: str) -> None:
    async def reason_now() -> str:
        row = await provider(client, name)
        return str(row["reason"]) if row["breaker"] != "closed" else ""

    await until(reason_now, lambda found: found == reason)


async def opening(database_url: str) -> asyncpg.Record:
    """Return how often the only breaker opened in a row, and the rest of the last opening."""
    connection = await asyncpg.connect(database_url)
    try:
        [row] = await connection.fetch(
            """SELECT openings AS count, state = 'open' AS rests,
                      extract(epoch FROM probe_at - changed_at)::float8 AS rest_s FROM breakers"""
        )
        return row
    finally:
        await connection.close()


async def statuses(client: Client) -> Counter[str]:
    return Counter((await client.statuses()).values())


async def test_a_relay_that_refuses_everybody_costs_a_handful_and_not_a_campaign(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    denied = {"RCPT": "550 5.7.1 Command rejected"}
    script = MailScript(lambda verb, _: denied.get(verb))
    async with (
        open_mail_script(script),
        a_system(system_folder, database_url, vhost_url, providers__smtp__port=script.port) as app,
    ):
        ids = await app.submit(mails(200))
        await breaker_opens(app, "smtp", "refusals")
        denied.clear()
        found = await app.all_final(ids)
        assert found["failed"] <= HAS_FAILED_A_HANDFUL
        assert found["sent"] == 200 - found["failed"] == script.accepted.total()
        assert max(script.accepted.values()) == 1


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("MAIL", "550 5.7.1 Sender address rejected: not owned by user"),
        ("RCPT", "554 5.7.1 Relay access denied"),
        ("EHLO", "504 5.5.2 Helo command rejected: need fully-qualified hostname"),
    ],
)
async def test_settings_that_a_mail_server_rejects_fail_no_message(
    system_folder: Path, database_url: str, vhost_url: str, verb: str, reply: str
) -> None:
    wrong = {verb: reply, "HELO": reply if verb == "EHLO" else "250 ok"}
    script = MailScript(lambda said, _: wrong.get(said))
    async with (
        open_mail_script(script),
        a_system(system_folder, database_url, vhost_url, providers__smtp__port=script.port) as app,
    ):
        ids = await app.submit(mails(200))
        await breaker_opens(app, "smtp", "configuration")
        assert (await provider(app, "smtp"))["code"].startswith(reply[:3])
        wrong.clear()
        assert await app.all_final(ids) == {"sent": 200}
        assert script.accepted.total() == 200


@pytest.mark.parametrize("is_down_before", [False, True])
async def test_messages_that_their_template_cannot_render_hold_up_no_good_one_and_mostly_wait(
    system_folder: Path, database_url: str, vhost_url: str, *, is_down_before: bool
) -> None:
    replies: list[Reply] = [(503, {}) if is_down_before else SENT]
    accepted: list[str] = []

    def reply(fields: Mapping[str, str]) -> Reply:
        if replies[-1] == SENT:
            accepted.append(fields["To"])
        return replies[-1]

    script = HttpScript(reply)
    async with (
        open_http_script(script),
        a_system(
            system_folder,
            database_url,
            vhost_url,
            providers__twilio__url=f"{script.url}/{{{{ content.subject }}}}",
        ) as app,
    ):
        good = {"subject": "Code", "body": "123456"}
        if is_down_before:
            await app.submit(codes(30, "low", content=good))
            await breaker_opens(app, "twilio", "errors")
        unsendable = await app.submit(codes(80))
        sendable = await app.submit_one(
            codes(1)[0] | {"recipient": "+12025559999"} | {"content": good}
        )
        replies.append(SENT)
        assert (await app.final(sendable))["status"] == "sent"
        assert accepted[0] == "+12025559999"
        found = [await app.notification(which) for which in unsendable]
        assert sum(row["status"] == "failed" for row in found) <= HAS_FAILED_A_HANDFUL * 3 / 2
        attempts = [attempt for row in found for attempt in row["attempts"]]
        assert {attempt["code"] for attempt in attempts} == {"template"}
        assert {attempt["outcome"] for attempt in attempts} <= {"refused", "misconfigured"}


async def test_one_full_mailbox_slows_nobody_down_and_is_asked_once_a_minute(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    script = MailScript(
        lambda verb, argument: (
            "452 4.2.2 Mailbox full" if verb == "RCPT" and "full-" in argument else None
        )
    )
    async with (
        open_mail_script(script),
        a_system(
            system_folder,
            database_url,
            vhost_url,
            providers__smtp__port=script.port,
            providers__smtp__rate=40,
        ) as app,
    ):
        full = await app.submit(mails(3, "full"))
        ids = await app.submit(mails(300))
        assert await app.all_final(ids) == {"sent": 300}
        row = await app.notification(full[0])
        assert row["tries"] == 0
        [attempt] = row["attempts"]
        due_at, ended_at = (
            datetime.fromisoformat(attempt[key]) for key in ("next_at", "finished_at")
        )
        assert due_at - ended_at >= timedelta(minutes=1)
    log = "".join(file.read_text() for file in system_folder.rglob("*.log"))
    assert [event for event in ("breaker_opened", "rate_cut") if f'"{event}"' in log] == []


async def test_a_provider_that_throttles_everything_is_left_alone_for_growing_spans(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    replies: list[Reply] = [(429, {"code": 1})]
    script = HttpScript(lambda _: replies[-1])
    async with (
        open_http_script(script),
        a_system(system_folder, database_url, vhost_url, providers__twilio__url=script.url) as app,
    ):
        ids = await app.submit(codes(300))
        await breaker_opens(app, "twilio", "throttled")
        # After the second opening all calls of the first have ended.
        first = await until(lambda: opening(database_url), lambda row: row["count"] >= 2)
        burst = len(script.calls)
        last = await until(
            lambda: opening(database_url),
            lambda row: row["count"] >= first["count"] + 2 and row["rests"],
        )
        rests = last["count"] - first["count"]
        # The probes of one more opening may have begun.
        assert len(script.calls) - burst <= (rests + 1) * MAX_THROTTLED_PROBES
        assert last["rest_s"] == 2.0 ** (last["count"] - 1)
        replies.append(SENT)
        assert await app.all_final(ids) == {"sent": 300}


async def test_a_provider_rests_until_its_retry_after_for_all_notifications(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    replies: list[Reply] = [(429, {"code": 1})]
    script = HttpScript(lambda _: replies[-1], headers={"Retry-After": "6"})
    async with (
        open_http_script(script),
        a_system(system_folder, database_url, vhost_url, providers__twilio__url=script.url) as app,
    ):
        ids = await app.submit(codes(1))
        await breaker_opens(app, "twilio", "throttled")
        replies.append(SENT)
        ids += await app.submit(codes(50, "medium"))
        assert await app.all_final(ids) == {"sent": 51}
        (first, _), *others = script.calls
        assert min(at for at, _ in others) - first > 5


async def test_credentials_that_only_some_messages_lack_stop_no_others(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    def reply(fields: Mapping[str, str]) -> Reply:
        if fields["token"].startswith("ios-"):
            return 401, {"error": {"details": [{"errorCode": "THIRD_PARTY_AUTH_ERROR"}]}}
        return SENT

    script = HttpScript(reply)
    async with (
        open_http_script(script),
        a_system(system_folder, database_url, vhost_url, providers__fcm__url=script.url) as app,
    ):
        await app.submit(pushes(4, "ios", "high"))
        await asyncio.sleep(3)  # alone, they look like credentials that nobody has
        ids = await app.submit(pushes(30, "android", "medium"))
        assert await app.all_final(ids) == {"sent": 30}
        await until(lambda: provider(app, "fcm"), lambda row: row["breaker"] == "closed")
        for number in range(4):
            calls = script.calls_of(f"ios-token-{number}")
            gaps = [later - earlier for earlier, later in pairwise(calls)]
            assert all(gap >= 4.5 * 2**n for n, gap in enumerate(gaps))
        assert (await statuses(app))["failed"] == 0


async def test_login_codes_of_a_provider_that_hangs_wait_instead_of_being_used_up(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    replies: list[Reply | None] = [None]
    script = HttpScript(lambda _: replies[-1])
    async with (
        open_http_script(script),
        a_system(
            system_folder,
            database_url,
            vhost_url,
            providers__twilio__url=script.url,
            providers__twilio__timeout_s=12,
            providers__twilio__max_connections=16,
            channels__sms__ambiguous="hold",
            channels__sms__stop_unanswered_s=2,
        ) as app,
    ):
        ids = await app.submit(codes(200))
        await breaker_opens(app, "twilio", "unanswered")
        row = await until(lambda: opening(database_url), lambda row: row["count"] >= 2)
        # The calls of the first opening, one for each place and reserved consumer, and the probes.
        unanswered = len(script.calls)
        assert unanswered <= 16 + RESERVED_CONSUMERS[Priority.HIGH] + row["count"]
        replies.append(SENT)
        found = await app.all_final(ids)
        assert found["failed"] <= len(script.calls) - found["sent"] <= unanswered + 1


async def test_a_breaker_closes_while_the_calls_that_opened_it_still_hang(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    script = MailScript(lambda _verb, _argument: None, is_hanging=True)
    async with (
        open_mail_script(script),
        a_system(
            system_folder,
            database_url,
            vhost_url,
            worker__consumers=8,
            providers__smtp__port=script.port,
            providers__smtp__final_timeout_s=300,
            channels__email__stop_unanswered_s=4,
        ) as app,
    ):
        ids = await app.submit(mails(30))
        await breaker_opens(app, "smtp", "unanswered")
        hanging = script.hanging
        assert hanging >= RESERVED_CONSUMERS[Priority.HIGH]
        script.is_hanging = False
        await until(lambda: provider(app, "smtp"), lambda row: row["breaker"] == "closed")
        later = await app.submit_one(mails(1, "later")[0])
        assert (await app.final(later))["status"] == "sent"
        await until(lambda: statuses(app), lambda found: found["sending"] == hanging)
        assert script.hanging == hanging
        script.answered.set()
        assert await app.all_final(ids) == {"sent": 30}
        assert max(script.accepted.values()) == 1


async def test_rows_that_expired_in_a_pause_use_no_slot_of_the_rate(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    script = HttpScript(lambda _: SENT)
    async with (
        open_http_script(script),
        a_system(
            system_folder,
            database_url,
            vhost_url,
            providers__twilio__url=script.url,
            providers__twilio__rate=4,
        ) as app,
    ):
        await app.submit(codes(4000, ttl_s=8))
        await app.hold("pause", "queue", "sms.high")
        await asyncio.sleep(10)
        await app.hold("resume", "queue", "sms.high")
        # Were their slots used, it would wait until the sweeper ends them, and expire.
        fresh = await app.submit_one(codes(1, ttl_s=30)[0] | {"recipient": "+12025559999"})
        assert (await app.final(fresh))["status"] == "sent"
        assert len(script.calls_of("+12025559999")) == 1


async def test_a_limit_of_mails_per_second_is_used_and_spends_no_try(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    per_s, used = 20.0, [time.monotonic()]

    def reply(verb: str, _: str) -> str | None:
        if verb != "RCPT":
            return None
        if used[0] > time.monotonic():
            return "454 Throttling failure: Maximum sending rate exceeded."
        used[0] = max(used[0], time.monotonic() - 1) + 1 / per_s
        return None

    script = MailScript(reply)
    async with (
        open_mail_script(script),
        a_system(system_folder, database_url, vhost_url, providers__smtp__port=script.port) as app,
    ):
        ids = await app.submit(mails(400))
        # At the limit they take 20 s; `all_final` waits longer than four times that.
        assert await app.all_final(ids) == {"sent": 400}
        assert (await app.notification(ids[-1]))["tries"] == 1
