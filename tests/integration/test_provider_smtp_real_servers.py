"""The SMTP provider against Debian's Postfix and Exim: what they say, and how many they take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from notifier.adapters.providers.smtp.provider import SmtpProvider, open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Accepted, Misconfigured, Outcome
from notifier.ports.provider import Envelope
from tests.integration.real_mail_servers import MailServer, open_exim, open_postfix

REJECT_SENDER = (
    "smtpd_sender_restrictions = check_sender_access inline:{{notifier@example.com=REJECT}}"
)
TAKE_EXAMPLE = (
    "smtpd_recipient_restrictions = {}"
    "check_recipient_access inline:{{{{example.com=OK}}}}, reject_unauth_destination"
)


def mail(to: str = "ann@example.com") -> Envelope:
    return Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=QueueKey.parse("email.high"),
        recipient=to,
        content={"subject": "Hi", "body": "there"},
    )


@asynccontextmanager
async def open_provider(server: MailServer, **settings: Any) -> AsyncIterator[SmtpProvider]:
    values = {"host": "127.0.0.1", "port": server.port, **settings}
    async with open_smtp("smtp", SmtpSettings(**values)) as provider:
        yield provider


async def send_until_accepted(provider: SmtpProvider, count: int) -> list[str]:
    """Send so many mails; those that found no free session again. Returns their ids."""
    left = [mail() for _ in range(count)]
    ids = [str(envelope.id) for envelope in left]
    while left:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(provider.send(envelope)) for envelope in left]
        outcomes = [task.result() for task in tasks]
        refused = [each for each in outcomes if each.name != "accepted"]
        assert all(getattr(each, "is_local", False) for each in refused), refused
        left = [
            envelope
            for envelope, each in zip(left, outcomes, strict=True)
            if each.name != "accepted"
        ]
    return ids


def named(outcome: Outcome) -> str:
    is_login = isinstance(outcome, Misconfigured) and outcome.is_credentials
    return "credentials" if is_login else outcome.name


async def test_postfix_with_ten_connections_gets_every_mail_once() -> None:
    limit = "smtpd_client_connection_count_limit = 10"
    async with (
        open_postfix(TAKE_EXAMPLE.format(""), limit) as server,
        open_provider(server, max_connections=32) as provider,
    ):
        ids = await send_until_accepted(provider, 300)
        assert provider.connection_limit <= 16
        assert sorted(server.message_ids()) == sorted(ids)


async def test_exim_with_ten_connections_gets_every_mail_once() -> None:
    async with (
        open_exim("smtp_accept_max = 10") as server,
        open_provider(server, max_connections=32) as provider,
    ):
        ids = await send_until_accepted(provider, 300)
        assert provider.connection_limit <= 16
        assert sorted(server.message_ids()) == sorted(ids)


async def test_exim_that_ends_sessions_after_five_mails_gets_every_mail_once() -> None:
    async with (
        open_exim("smtp_accept_max_per_connection = 5", "smtp_accept_max = 100") as server,
        open_provider(server, max_connections=2) as provider,
    ):
        ids = [mail() for _ in range(23)]
        for envelope in ids:
            assert (await provider.send(envelope)).name == "accepted"
        assert sorted(server.message_ids()) == sorted(str(each.id) for each in ids)


@pytest.mark.parametrize(
    ("settings", "recipient", "expected"),
    [
        ((TAKE_EXAMPLE.format(""),), "ann@example.com", "accepted"),
        ((TAKE_EXAMPLE.format(""),), "ann@other.example", "misconfigured"),
        (
            ("smtpd_recipient_restrictions = defer_unauth_destination",),
            "a@b.example",
            "misconfigured",
        ),
        (
            (
                TAKE_EXAMPLE.format(
                    "check_recipient_access inline:{{full@example.com=452 4.2.2 mailbox full}}, "
                ),
            ),
            "full@example.com",
            "deferred",
        ),
        (
            (
                TAKE_EXAMPLE.format(
                    "check_recipient_access inline:{{new@example.com=450 4.2.0 Greylisted}}, "
                ),
            ),
            "new@example.com",
            "deferred",
        ),
        (
            (
                TAKE_EXAMPLE.format(""),
                REJECT_SENDER,
            ),
            "ann@example.com",
            "misconfigured",
        ),
        (
            (
                TAKE_EXAMPLE.format(""),
                "smtpd_delay_reject = no",
                REJECT_SENDER,
            ),
            "ann@example.com",
            "misconfigured",
        ),
        (
            (TAKE_EXAMPLE.format("reject_unknown_sender_domain, "), "smtpd_delay_reject = yes"),
            "no one@example.com",
            "refused",
        ),
    ],
)
async def test_what_postfix_says_has_the_outcome_of_whom_it_concerns(
    settings: tuple[str, ...], recipient: str, expected: str
) -> None:
    async with open_postfix(*settings) as server, open_provider(server) as provider:
        outcome = await provider.send(mail(recipient))
    assert named(outcome) == expected, outcome


@pytest.mark.parametrize("delay_reject", ["yes", "no"])
async def test_postfix_refuses_a_bare_host_name_and_takes_the_default(delay_reject: str) -> None:
    settings = (
        TAKE_EXAMPLE.format(""),
        "smtpd_helo_required = yes",
        "smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname",
        f"smtpd_delay_reject = {delay_reject}",
    )
    async with open_postfix(*settings) as server:
        async with open_provider(server, ehlo_name="vm") as provider:
            outcome = await provider.send(mail())
        assert (named(outcome), outcome.code) == ("misconfigured", "504 5.5.2")
        async with open_provider(server) as provider:
            assert (await provider.send(mail())).name == "accepted"


async def test_postfix_that_limits_the_rate_throttles() -> None:
    settings = (TAKE_EXAMPLE.format(""), "smtpd_client_message_rate_limit = 3")
    async with open_postfix(*settings) as server, open_provider(server) as provider:
        outcomes = [(await provider.send(mail())).name for _ in range(5)]
    assert outcomes == ["accepted"] * 3 + ["throttled"] * 2


async def test_what_exim_says_has_the_outcome_of_whom_it_concerns() -> None:
    rules = (
        "  defer local_parts = full",
        "        message = 452 4.2.2 mailbox full",
        "  defer local_parts = new",
        "        message = Greylisted, please try again later",
        "  deny  local_parts = gone",
        "        message = 550 5.1.1 no such user",
        "  deny  local_parts = from",
        "        message = Sender verify failed",
    )
    async with (
        open_exim("smtp_accept_max = 100", rules=rules) as server,
        open_provider(server) as provider,
    ):
        outcomes = {
            to: named(await provider.send(mail(to)))
            for to in (
                "ann@example.com",
                "full@example.com",
                "new@example.com",
                "gone@example.com",
                "from@example.com",
                "ann@other.example",
            )
        }
    assert outcomes == {
        "ann@example.com": "accepted",
        "full@example.com": "deferred",
        "new@example.com": "deferred",
        "gone@example.com": "refused",
        "from@example.com": "misconfigured",
        "ann@other.example": "misconfigured",
    }


async def test_a_mail_has_one_outcome_and_a_refused_copy_is_named_in_its_detail() -> None:
    gone = "check_recipient_access inline:{{gone@example.com=550 5.1.1 no such user}}, "
    content = {"subject": "s", "cc": ["Bob <bob@example.com>"], "bcc": ["gone@example.com"]}
    async with (
        open_postfix(TAKE_EXAMPLE.format(gone)) as server,
        open_provider(server) as provider,
    ):
        sent = await provider.send(msgspec.structs.replace(mail(), content=content))
        refused = await provider.send(
            msgspec.structs.replace(mail("gone@example.com"), content=content)
        )
        after = await provider.send(mail())
        takes = re.findall(r"nrcpt=(\d+) \(queue active\)", await logged(server, mails=2))
    assert isinstance(sent, Accepted)
    assert (sent.detail, sent.refused_copies) == ("copy refused: gone@example.com 550 5.1.1", 1)
    assert named(refused) == "refused"
    assert named(after) == "accepted"
    assert takes == ["2", "1"]


async def test_copies_beyond_the_limit_of_recipients_get_the_mail_over_further_ones() -> None:
    copies = [f"copy{n}@example.com" for n in range(5)]
    limit = "smtpd_recipient_limit = 2"
    async with (
        open_postfix(TAKE_EXAMPLE.format(""), limit) as server,
        open_provider(server) as provider,
    ):
        sent = await provider.send(
            msgspec.structs.replace(mail(), content={"subject": "s", "bcc": copies})
        )
        takes = re.findall(r"nrcpt=(\d+) \(queue active\)", await logged(server, mails=3))
    assert isinstance(sent, Accepted)
    assert (sent.detail, sent.refused_copies) == ("", 0)
    assert takes == ["2", "2", "2"]


async def test_a_copy_that_stays_refused_for_now_is_asked_once_more_and_named() -> None:
    full = "check_recipient_access inline:{{full@example.com=452 4.2.2 mailbox full}}, "
    content = {"subject": "s", "cc": ["bob@example.com", "full@example.com"]}
    async with (
        open_postfix(TAKE_EXAMPLE.format(full)) as server,
        open_provider(server) as provider,
    ):
        sent = await provider.send(msgspec.structs.replace(mail(), content=content))
        after = await provider.send(mail())
        log = await logged(server, mails=2)
    assert isinstance(sent, Accepted)
    assert (sent.detail, sent.refused_copies) == ("copy refused: full@example.com 452 4.2.2", 1)
    assert named(after) == "accepted"
    assert re.findall(r"nrcpt=(\d+) \(queue active\)", log) == ["2", "1"]
    assert log.count("452 4.2.2 <full@example.com>") == 2


async def test_copies_behind_one_that_stays_refused_get_the_mail() -> None:
    full = "check_recipient_access inline:{{full@example.com=452 4.2.2 mailbox full}}, "
    copies = ["bob@example.com", "full@example.com", "eve@example.com", "dan@example.com"]
    async with (
        open_postfix(TAKE_EXAMPLE.format(full), "smtpd_recipient_limit = 2") as server,
        open_provider(server) as provider,
    ):
        content = {"subject": "s", "bcc": copies}
        sent = await provider.send(msgspec.structs.replace(mail(), content=content))
        takes = re.findall(r"nrcpt=(\d+) \(queue active\)", await logged(server, mails=2))
    assert isinstance(sent, Accepted)
    assert (sent.detail, sent.refused_copies) == ("copy refused: full@example.com 452 4.2.2", 1)
    assert takes == ["2", "2"]


async def test_a_send_that_is_cancelled_while_copies_are_left_says_that_the_mail_was_accepted() -> (
    None
):
    content = {"subject": "s", "bcc": ["bob@example.com", "eve@example.com"]}
    limit, slow = "smtpd_recipient_limit = 2", "smtpd_end_of_data_restrictions = sleep 3"
    async with (
        open_postfix(TAKE_EXAMPLE.format(""), limit, slow) as server,
        open_provider(server) as provider,
    ):
        whole = msgspec.structs.replace(mail(), content=content)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(provider.send(whole))
            await logged(server, mails=1)
            await asyncio.sleep(0.5)
            sending.cancel()
        sent = sending.result()
    assert isinstance(sent, Accepted)
    assert sent.refused_copies == 1


async def logged(server: MailServer, *, mails: int) -> str:
    """The log once that many mails are in it."""
    async with asyncio.timeout(30):
        while server.read_log().count("(queue active)") < mails:
            await asyncio.sleep(0.05)
    return server.read_log()
