"""Pipelined sessions: what was out when they broke, and how many the server takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
import uvloop

from notifier.adapters.providers.connection_limit import HALVE_INTERVAL_S
from notifier.adapters.providers.smtp.provider import SmtpProvider, open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Outcome
from notifier.ports.provider import Envelope
from tests.integration.limited_mail_server import LimitedServer, open_limited


def mail(to: str = "ann@example.com", body: str = "there", number: int = 1) -> Envelope:
    return Envelope(
        id=NotificationId(UUID(int=number)),
        claim=1,
        queue=QueueKey.parse("email.high"),
        recipient=to,
        content={"subject": "Hi", "body": body},
    )


@asynccontextmanager
async def open_pair(
    server: LimitedServer, *, max_connections: int = 32, timeout_s: float = 10.0
) -> AsyncIterator[SmtpProvider]:
    async with open_limited(server):
        settings = SmtpSettings(
            host="127.0.0.1",
            port=server.port,
            ehlo_name="mail.example.com",
            max_connections=max_connections,
            timeout_s=timeout_s,
            final_timeout_s=timeout_s,
        )
        async with open_smtp("smtp", settings) as provider:
            yield provider


def most_refused(began_at: float) -> float:
    """One refusal per connection at the beginning, then one a second."""
    return 32 + 1 + (time.monotonic() - began_at) / HALVE_INTERVAL_S


async def send_all(provider: SmtpProvider, count: int) -> list[Outcome]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(provider.send(mail(number=n))) for n in range(count)]
    return [task.result() for task in tasks]


async def session_bytes() -> LimitedServer:
    """A server that saw one whole mail."""
    server = LimitedServer()
    async with open_pair(server) as provider:
        assert (await provider.send(mail())).name == "accepted"
    return server


async def outcome_with_cut(server: LimitedServer) -> Outcome:
    async with open_pair(server) as provider:
        return await provider.send(mail())


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_cut_after_any_byte_of_the_server_is_ambiguous_only_after_the_text(
    loop_factory: object,
) -> None:
    async def outcomes() -> tuple[list[tuple[str, int]], int]:
        whole = await session_bytes()
        results = []
        for cut in range(whole.sent_bytes + 1):
            server = LimitedServer(cut_after_sent=cut)
            results.append(((await outcome_with_cut(server)).name, len(server.mails)))
        return results, len(b"250 2.0.0 queued\r\n")

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        results, last_reply = runner.run(outcomes())
    before = len(results) - last_reply - 1
    assert results[:before] == [("unavailable", 0)] * before
    # The first of these has the whole reply to DATA, so its text went out; it was not read.
    assert results[before] == ("ambiguous", 0)
    assert results[before + 1 : -1] == [("ambiguous", 1)] * (last_reply - 1)
    assert results[-1] == ("accepted", 1)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_cut_after_any_byte_of_the_client_never_hides_a_mail_that_was_taken(
    loop_factory: object,
) -> None:
    async def outcomes() -> tuple[list[tuple[str, int]], int]:
        whole = await session_bytes()
        text_at = whole.received.index(b"DATA\r\n") + len(b"DATA\r\n")
        results = []
        for cut in range(len(whole.received) + 1):
            server = LimitedServer(cut_after_received=cut)
            results.append(((await outcome_with_cut(server)).name, len(server.mails)))
        return results, text_at

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        results, text_at = runner.run(outcomes())
    assert results[:text_at] == [("unavailable", 0)] * text_at
    assert {name for name, _ in results[text_at:]} <= {"ambiguous", "accepted"}
    assert all(name in {"ambiguous", "accepted"} for name, mails in results if mails)


async def test_a_long_text_that_is_cut_before_its_dot_is_unavailable() -> None:
    server = LimitedServer(cut_after_received=5_000)
    async with open_pair(server) as provider:
        outcome = await provider.send(mail(body="line\n" * 2_000_000))
    assert (outcome.name, len(server.mails)) == ("unavailable", 0)


async def test_a_long_text_arrives_whole() -> None:
    server = LimitedServer()
    async with open_pair(server) as provider:
        assert (await provider.send(mail(body="line\n.dot\n" * 3_000))).name == "accepted"
    assert server.mails[0].count(b"\r\n..dot") == 3_000


async def test_a_text_that_the_server_limits_before_its_end_is_refused() -> None:
    server = LimitedServer(replies={"DATA": b"354 go\r\n552 5.3.4 too large\r\n"})
    async with open_pair(server) as provider:
        outcome = await provider.send(mail(body="line\n" * 2_000_000))
    assert outcome.name in {"refused", "unavailable"}


async def test_mail_rcpt_and_data_travel_in_one_group() -> None:
    server = await session_bytes()
    start = server.received.index(b"MAIL")
    assert server.received[start:].startswith(
        b"MAIL FROM:<notifier@example.com>\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n"
    )


@pytest.mark.parametrize(
    ("replies", "expected", "empty_mails"),
    [
        ({"RCPT": b"550 5.1.1 who?\r\n"}, ("refused", "550 5.1.1"), 1),
        (
            {"RCPT": b"550 5.1.1 who?\r\n", "DATA": b"503 5.5.1 no recipients\r\n"},
            ("refused", "550 5.1.1"),
            0,
        ),
        (
            {"MAIL": b"550 5.7.1 no\r\n", "RCPT": b"503 5.5.1 no\r\n"},
            ("misconfigured", "550 5.7.1"),
            1,
        ),
        ({"MAIL": b"550 5.7.1 no\r\n"}, ("misconfigured", "550 5.7.1"), 0),
        ({"DATA": b"451 4.3.0 later\r\n"}, ("unavailable", "451 4.3.0"), 0),
        ({"RCPT": b"452 4.2.2 full\r\n", "DATA": b"554 no\r\n"}, ("deferred", "452 4.2.2"), 0),
    ],
)
async def test_the_first_refusal_of_a_group_counts_and_no_text_is_sent(
    replies: dict[str, bytes], expected: tuple[str, str], empty_mails: int
) -> None:
    server, is_kept = LimitedServer(replies=replies), expected[0] in ("refused", "deferred")
    async with open_pair(server) as provider:
        outcome = await provider.send(mail())
        assert (outcome.name, outcome.code) == expected
        assert server.mails == [b".\r\n"] * empty_mails
        server.replies.clear()
        assert (await provider.send(mail())).name == "accepted"
    assert len(server.mails) == empty_mails + 1
    assert server.accepted_connections == (1 if is_kept else 2)


@pytest.mark.parametrize(
    "reply",
    [
        b"450 4.3.2 Service currently unavailable\r\n",
        b"550 5.7.1 Client host rejected: cannot find your reverse hostname\r\n",
    ],
)
async def test_a_session_whose_mails_all_fail_is_not_used_again(reply: bytes) -> None:
    server = LimitedServer(failing=2, failure=reply)
    async with open_pair(server) as provider:
        outcomes = [await provider.send(mail(number=n)) for n in range(6)]
    failed = "unavailable" if reply.startswith(b"4") else "misconfigured"
    assert [each.name for each in outcomes] == [failed] * 2 + ["accepted"] * 4
    assert server.accepted_connections == 3


@pytest.mark.parametrize(
    "reply",
    [
        b"421 Maximum message count per session reached.\r\n",
        b"452 4.4.5 Maximum number of messages per session exceeded.\r\n",
        b"451-Requested action aborted\r\n451 Mails per session limit exceeded\r\n",
        b"450 too many mails in this connection\r\n",
    ],
)
async def test_a_server_that_limits_the_mails_of_a_session_gets_every_mail(reply: bytes) -> None:
    server = LimitedServer(mails_per_session=5, failure=reply)
    async with open_pair(server) as provider:
        outcomes = [await provider.send(mail(number=n)) for n in range(17)]
    assert {each.name for each in outcomes} == {"accepted"}
    assert server.accepted_connections == 4


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_421_on_a_reused_session_is_no_outcome(verb: str) -> None:
    server = LimitedServer()
    async with open_pair(server) as provider:
        await provider.send(mail())
        server.once[verb] = b"421 4.4.2 idle too long\r\n"
        assert (await provider.send(mail())).name == "accepted"
    assert server.accepted_connections == 2


@pytest.mark.parametrize("limit", [1, 10, 20])
@pytest.mark.parametrize(
    "refusal",
    [
        b"421 Too many concurrent SMTP connections; please try again later.\r\n",
        b"421 4.3.2 All server ports are busy\r\n",
        b"421 4.7.0 mx.example Error: too many connections from 192.0.2.1\r\n",
        b"",
    ],
)
async def test_a_server_that_takes_few_connections_gets_every_mail(
    limit: int, refusal: bytes
) -> None:
    server = LimitedServer(max_connections=limit, refusal=refusal, mail_s=0.005)
    began_at = time.monotonic()
    async with open_pair(server) as provider:
        left = set(range(200))
        while left:
            outcomes = dict(zip(left, await send_all(provider, len(left)), strict=True))
            left = {n for n, outcome in outcomes.items() if outcome.name != "accepted"}
            local = [o for o in outcomes.values() if o.name != "accepted"]
            assert all(o.name == "unavailable" and getattr(o, "is_local", False) for o in local)
        assert limit <= provider.connection_limit <= 16 or provider.connection_limit <= limit
    assert len(server.mails) == 200
    assert server.peak <= limit
    assert server.refused_connections <= most_refused(began_at)


async def test_without_a_session_of_its_own_a_full_server_spends_nothing() -> None:
    server = LimitedServer(max_connections=0)
    async with open_pair(server) as provider:
        outcome = await provider.send(mail())
    assert (outcome.name, getattr(outcome, "is_local", False)) == ("unavailable", True)


async def test_a_server_that_is_full_of_others_is_asked_for_a_connection_once_a_second() -> None:
    server, began_at = LimitedServer(max_connections=0), time.monotonic()
    async with open_pair(server) as provider:
        for _ in range(3):
            for outcome in await send_all(provider, 100):
                assert (outcome.name, getattr(outcome, "is_local", False)) == ("unavailable", True)
    assert server.refused_connections <= most_refused(began_at)


async def test_a_server_that_is_down_is_not_taken_for_a_full_one() -> None:
    server = LimitedServer(max_connections=0, refusal=b"421 4.3.2 shutting down\r\n")
    async with open_pair(server) as provider:
        outcome = await provider.send(mail())
    assert (outcome.name, getattr(outcome, "is_local", True)) == ("unavailable", False)


async def test_a_mail_whose_final_dot_is_answered_late_is_not_sent_again() -> None:
    server = LimitedServer(mail_s=2)
    async with open_limited(server):
        settings = SmtpSettings(host="127.0.0.1", port=server.port, timeout_s=1, final_timeout_s=60)
        async with open_smtp("smtp", settings) as provider:
            assert (await provider.send(mail())).name == "accepted"
    assert len(server.mails) == 1


async def test_a_reply_of_200_kilobytes_keeps_its_code() -> None:
    server = LimitedServer(replies={".": b"550-5.7.1 no\r\n" * 15_000 + b"550 5.7.1 no\r\n"})
    async with open_pair(server) as provider:
        outcome = await provider.send(mail())
    assert (outcome.name, outcome.code) == ("refused", "550 5.7.1")
