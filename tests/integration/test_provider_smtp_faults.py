"""The SMTP provider against servers that misbehave, and how it shares its sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from notifier.adapters.providers.smtp.provider import open_smtp
from notifier.adapters.providers.smtp.settings import SmtpSettings
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Misconfigured, Refused, Throttled, Unavailable
from notifier.embedded.free_ports import free_ports
from notifier.ports.provider import Envelope, Provider
from tests.integration.raw_servers import CLOSE, HELLO, SILENCE, RawServer, open_smtp_script

GARBAGE = "HTTP/1.1 400 Bad Request"


def mail(to: str = "ann@example.com", claim: int = 1) -> Envelope:
    return Envelope(
        id=NotificationId(uuid4()),
        claim=claim,
        queue=QueueKey.parse("email.high"),
        recipient=to,
        content={"subject": "Hi", "body": "there"},
    )


@asynccontextmanager
async def open_pair(
    answers: Mapping[str, str | list[str]] | None = None,
    *,
    timeout_s: float = 5.0,
    final_timeout_s: float = 10.0,
    max_connections: int = 32,
    idle_s: float = 30.0,
) -> AsyncIterator[tuple[Provider, RawServer]]:
    async with open_smtp_script(answers or {}) as raw:
        settings = SmtpSettings(
            host="127.0.0.1",
            port=raw.port,
            timeout_s=timeout_s,
            final_timeout_s=final_timeout_s,
            max_connections=max_connections,
            idle_s=idle_s,
        )
        async with open_smtp("smtp", settings) as provider:
            yield provider, raw


@pytest.mark.parametrize("verb", ["greeting", "EHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    ("reply", "code"), [(CLOSE, "connection"), (SILENCE, "timeout"), (GARBAGE, "protocol")]
)
async def test_a_failure_before_the_text_is_sent_is_unavailable(
    verb: str, reply: str, code: str
) -> None:
    timeout_s = 0.5 if code == "timeout" else 10
    async with open_pair({verb: reply}, timeout_s=timeout_s) as (provider, raw):
        outcome = await provider.send(mail())
    assert (outcome.name, outcome.code) == ("unavailable", code)
    assert raw.connections == 1
    assert not any("Message-ID" in line for line in raw.seen)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (CLOSE, "disconnected"),
        (SILENCE, "timeout"),
        (GARBAGE, "protocol"),
        ("354 more?", "354"),
        ("250-never ends", "timeout"),
    ],
)
async def test_a_failure_after_the_final_dot_is_ambiguous_and_not_repeated(
    reply: str, code: str
) -> None:
    timeout_s = 0.5 if code == "timeout" else 10
    async with open_pair({".": reply}, final_timeout_s=timeout_s) as (provider, raw):
        outcome = await provider.send(mail())
    assert (outcome.name, outcome.code) == ("ambiguous", code)
    assert sum("Message-ID" in line for line in raw.seen) == 1


async def test_a_250_reply_to_data_is_not_an_acceptance() -> None:
    async with open_pair({"DATA": "250 ok"}) as (provider, _):
        assert (await provider.send(mail())).name == "unavailable"


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        ("421 4.3.2 closing", Unavailable(code="421 4.3.2", detail="4.3.2 closing")),
        ("421 4.7.0 too many", Throttled(code="421 4.7.0", detail="4.7.0 too many")),
        ("554 no", Misconfigured(code="554", detail="no")),
    ],
)
async def test_a_negative_greeting_does_not_refuse_the_recipient(
    greeting: str, expected: Unavailable | Throttled
) -> None:
    async with open_pair({"greeting": greeting}) as (provider, _):
        assert await provider.send(mail()) == expected


async def test_a_refused_connection_is_unavailable() -> None:
    settings = SmtpSettings(host="127.0.0.1", port=free_ports(1)[0])
    async with open_smtp("smtp", settings) as provider:
        outcome = await provider.send(mail())
    assert (outcome.name, outcome.code) == ("unavailable", "connection")


async def test_a_server_without_ehlo_is_greeted_with_helo() -> None:
    async with open_pair({"EHLO": "502 what?"}) as (provider, raw):
        assert (await provider.send(mail())).name == "accepted"
    assert [line.split()[0] for line in raw.seen[:3]] == ["EHLO", "HELO", "MAIL"]


async def test_after_a_refused_recipient_the_session_is_reset_and_used_again() -> None:
    async with open_pair({"RCPT": ["550 5.7.1 no", "250 ok"]}) as (provider, raw):
        assert await provider.send(mail()) == Refused(code="550 5.7.1", detail="5.7.1 no")
        assert (await provider.send(mail())).name == "accepted"
    assert raw.connections == 1
    verbs = [line.split()[0] for line in raw.seen if "Message-ID" not in line]
    assert verbs[:7] == ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"]


async def test_a_session_that_cannot_be_reset_is_replaced() -> None:
    async with open_pair({"RCPT": ["550 no", "250 ok"], "RSET": "500 what?"}) as (provider, raw):
        await provider.send(mail())
        assert (await provider.send(mail())).name == "accepted"
    assert raw.connections == 2


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_a_session_that_broke_while_idle_is_replaced_within_the_send(
    verb: str,
) -> None:
    usual = "354 go" if verb == "DATA" else "250 ok"
    async with open_pair({verb: [usual, CLOSE, usual]}) as (provider, raw):
        assert (await provider.send(mail())).name == "accepted"
        assert (await provider.send(mail())).name == "accepted"
    assert raw.connections == 2
    assert sum("Message-ID" in line for line in raw.seen) == 2


async def test_a_server_that_closes_an_idle_session_with_421_gets_a_new_one() -> None:
    async with open_pair({"MAIL": ["250 ok", "421 4.4.2 idle", "250 ok"]}) as (provider, raw):
        await provider.send(mail())
        assert (await provider.send(mail())).name == "accepted"
    assert raw.connections == 2


async def test_a_second_broken_session_in_a_row_is_unavailable() -> None:
    async with open_pair({"MAIL": ["250 ok", CLOSE]}) as (provider, raw):
        await provider.send(mail())
        assert (await provider.send(mail())).name == "unavailable"
    assert raw.connections == 2


async def test_a_reused_session_cut_after_the_text_is_ambiguous_and_not_repeated() -> None:
    async with open_pair({".": ["250 ok", CLOSE]}) as (provider, raw):
        await provider.send(mail())
        assert (await provider.send(mail())).name == "ambiguous"
    assert raw.connections == 1


async def test_a_hundred_concurrent_sends_share_a_few_sessions_that_are_reused() -> None:
    async with open_pair(max_connections=8) as (provider, raw):
        for _ in range(2):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(provider.send(mail())) for _ in range(100)]
            assert {task.result().name for task in tasks} == {"accepted"}
    assert raw.connections == 8
    assert sum(line.startswith("EHLO") for line in raw.seen) == 8
    assert sum("Message-ID" in line for line in raw.seen) == 200


async def test_sequential_sends_use_one_session() -> None:
    async with open_pair() as (provider, raw):
        for _ in range(20):
            await provider.send(mail())
    assert raw.connections == 1


async def test_an_idle_session_is_closed_with_quit() -> None:
    async with open_pair(idle_s=0.05) as (provider, raw):
        await provider.send(mail())
        async with asyncio.timeout(60):
            while "QUIT" not in raw.seen:
                raw.arrived.clear()
                await raw.arrived.wait()
        assert (await provider.send(mail())).name == "accepted"
    assert raw.connections == 2


async def test_waiting_for_a_session_is_not_ambiguous() -> None:
    async with open_smtp_script({}) as raw:
        settings = SmtpSettings(host="127.0.0.1", port=raw.port, max_connections=1, timeout_s=1)
        async with open_smtp("smtp", settings) as provider:
            session = await provider._pool.borrow(fresh=True)
            outcome = await provider.send(mail())
            provider._pool.give_back(session)
            assert (outcome.name, outcome.code) == ("unavailable", "timeout")
            assert (await provider.send(mail())).name == "accepted"
    assert raw.connections == 1


async def test_a_cancelled_send_releases_its_session() -> None:
    async with open_pair({".": [SILENCE, "250 ok"]}, max_connections=1) as (provider, raw):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(provider.send(mail()))
            while not any("Message-ID" in line for line in raw.seen):
                raw.arrived.clear()
                await raw.arrived.wait()
            task.cancel()
        assert task.cancelled()
        assert (await provider.send(mail())).name == "accepted"


async def test_an_address_with_non_ascii_characters_is_refused_without_smtputf8() -> None:
    async with open_pair() as (provider, raw):
        outcome = await provider.send(mail("änn@example.com"))
        assert isinstance(outcome, Refused)
        assert (outcome.code, outcome.is_local) == ("smtputf8", True)
        assert (await provider.send(mail())).name == "accepted"
    assert raw.connections == 1


async def test_an_address_that_would_add_a_command_is_not_sent() -> None:
    async with open_pair() as (provider, raw):
        outcome = await provider.send(mail("ann@example.com>\r\nRCPT TO:<eve@example.com"))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.is_local) == ("address", True)
    assert raw.connections == 0


async def test_the_envelope_id_is_sent_only_if_dsn_is_offered() -> None:
    async with open_pair() as (provider, raw):
        await provider.send(mail())
    assert "MAIL FROM:<notifier@example.com>" in raw.seen
    envelope = mail(claim=4)
    async with open_pair({"EHLO": f"{HELLO[:8]}\r\n250 DSN"}) as (provider, raw):
        await provider.send(envelope)
    assert f"MAIL FROM:<notifier@example.com> ENVID={envelope.id}.4" in raw.seen


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        (
            ["535 5.7.8 no", CLOSE],
            Misconfigured(code="535 5.7.8", detail="5.7.8 no", is_credentials=True),
        ),
        (["535 5.7.8 no", "235 ok"], None),
        (["454 4.7.0 later"], Unavailable(code="454 4.7.0", detail="4.7.0 later")),
    ],
)
async def test_a_wrong_password_is_recognised_though_the_server_disconnects(
    replies: list[str], expected: Unavailable | None
) -> None:
    offer = "250-raw\r\n250 AUTH CRAM-MD5 PLAIN"
    async with open_smtp_script({"EHLO": offer, "AUTH": replies}) as raw:
        settings = SmtpSettings(host="127.0.0.1", port=raw.port, username="me", password="x")
        async with open_smtp("smtp", settings) as provider:
            outcome = await provider.send(mail())
    assert (outcome == expected) if expected else (outcome.name == "accepted")


async def test_an_endless_reply_is_a_protocol_error() -> None:
    async with open_pair({"MAIL": "250-" + "x" * 2_000_000}) as (provider, _):
        outcome = await provider.send(mail())
    assert (outcome.name, outcome.code) == ("unavailable", "protocol")
