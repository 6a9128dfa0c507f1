"""The real providers against the real sandbox, over sockets: each behaviour on each channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import msgspec
import pytest
import uvloop

from notifier.adapters.providers.registry import open_provider
from notifier.adapters.providers.sandboxed import sandbox_providers
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import Outcome, Refused, Throttled, Unavailable
from notifier.ports.provider import Envelope, Provider
from notifier.sandbox import Sandbox, open_sandbox
from notifier.sandbox.calls import Call, CallFilter

QUEUES = {"smtp": "email.high", "twilio": "sms.high", "fcm": "push.high"}
CHANNELS = {"smtp": "email", "twilio": "sms", "fcm": "push"}
DIGITS = {
    "refuse": 1,
    "flaky-2": 2,
    "throttle-2": 3,
    "down": 4,
    "hang": 5,
    "ok": 6,
    "cut": 7,
}
EXPECTED = {
    "ok": ["accepted"],
    "refuse": ["refused", "refused"],
    "flaky-2": ["unavailable", "unavailable", "accepted"],
    "throttle-2": ["throttled", "throttled", "accepted"],
    "down": ["unavailable"] * 4,
    "hang": ["ambiguous"],
    "cut": ["ambiguous", "ambiguous"],
}
ACCEPTED = {"ok": 1, "flaky-2": 1, "throttle-2": 1, "cut": 2}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox(http_port=0, smtp_port=0) as opened:
        yield opened


@pytest.fixture
async def providers(sandbox: Sandbox) -> AsyncIterator[dict[str, Provider]]:
    async with open_providers(sandbox) as opened:
        yield opened


@asynccontextmanager
async def open_providers(sandbox: Sandbox) -> AsyncIterator[dict[str, Provider]]:
    settings_of = sandbox_providers(sandbox.http_url, sandbox.host, sandbox.smtp_port)
    async with AsyncExitStack() as opened:
        yield {
            name: await opened.enter_async_context(open_provider(name, settings))
            for name, settings in settings_of.items()
        }


def recipient(provider: str, fate: str) -> str:
    match provider:
        case "smtp":
            return f"{fate}+anything@example.com"
        case "twilio":
            return f"+15005550{DIGITS[fate]:03}"
        case _:
            return f"fate-{fate}-abc"


def envelope(
    provider: str,
    to: str,
    *,
    claim: int = 1,
    id: NotificationId | None = None,  # noqa: A002 the port's word
) -> Envelope:
    return Envelope(
        id=id or NotificationId(uuid4()),
        claim=claim,
        queue=QueueKey.parse(QUEUES[provider]),
        recipient=to,
        content={"subject": "Grüße", "body": "text\n.dot", "html": "<p>x</p>", "data": {"a": 1}},
    )


async def sent(provider: Provider, fate: str, id: NotificationId) -> list[Outcome]:  # noqa: A002 the port's word
    to = recipient(provider.name, fate)
    claims = range(1, len(EXPECTED[fate]) + 1)
    return [
        await provider.send(envelope(provider.name, to, claim=claim, id=id)) for claim in claims
    ]


@pytest.mark.parametrize("name", list(QUEUES))
@pytest.mark.parametrize("fate", [fate for fate in EXPECTED if fate != "hang"])
async def test_each_fate_gives_its_outcome_and_each_call_is_logged(
    providers: dict[str, Provider], sandbox: Sandbox, name: str, fate: str
) -> None:
    id_ = NotificationId(uuid4())
    outcomes = await sent(providers[name], fate, id_)
    assert [outcome.name for outcome in outcomes] == EXPECTED[fate]
    calls = _calls(sandbox)
    assert [call.claim for call in calls] == list(range(1, len(outcomes) + 1))
    assert {call.notification_id for call in calls} == {str(id_)}
    assert {(call.channel, call.recipient, call.fate) for call in calls} == {
        (CHANNELS[name], recipient(name, fate), fate)
    }
    assert sum(call.accepted for call in calls) == ACCEPTED.get(fate, 0)


def test_every_fate_gives_the_same_outcome_on_uvloop() -> None:
    async def outcomes() -> dict[tuple[str, str], list[str]]:
        async with (
            open_sandbox(http_port=0, smtp_port=0) as sandbox,
            open_providers(sandbox) as providers,
        ):
            return {
                (name, fate): [
                    outcome.name
                    for outcome in await sent(providers[name], fate, NotificationId(uuid4()))
                ]
                for name in QUEUES
                for fate in EXPECTED
                if fate != "hang"
            }

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(outcomes())
    assert results == {(name, fate): EXPECTED[fate] for name, fate in results}


@pytest.mark.parametrize("name", list(QUEUES))
async def test_a_send_to_a_hanging_provider_times_out_as_ambiguous(
    sandbox: Sandbox, name: str
) -> None:
    settings_of = sandbox_providers(sandbox.http_url, sandbox.host, sandbox.smtp_port)
    limit = "final_timeout_s" if name == "smtp" else "timeout_s"
    settings = msgspec.structs.replace(settings_of[name], **{limit: 0.3})
    async with open_provider(name, settings) as provider:
        outcome = await provider.send(envelope(name, recipient(name, "hang")))
        assert (outcome.name, outcome.code) == ("ambiguous", "timeout")
    async with open_provider(name, settings_of[name]) as provider:
        after = await provider.send(envelope(name, recipient(name, "ok")))
    assert after.name == "accepted"
    assert [(call.fate, call.status, call.accepted) for call in _calls(sandbox)] == [
        ("hang", 0, False),
        ("ok", {"smtp": 250, "twilio": 201, "fcm": 200}[name], True),
    ]


async def test_each_outcome_keeps_the_code_and_text_of_the_provider(
    providers: dict[str, Provider],
) -> None:
    async def first(name: str, fate: str) -> Outcome:
        return await providers[name].send(envelope(name, recipient(name, fate)))

    assert await first("smtp", "refuse") == Refused(
        code="550 5.1.1", detail="5.1.1 no such mailbox"
    )
    status: int | None
    for name, status, code in (("twilio", 400, "21211"), ("fcm", 404, "UNREGISTERED")):
        refused = await first(name, "refuse")
        assert refused == Refused(code=code, detail=refused.detail, http_status=status)
    second = timedelta(seconds=1)
    for name, status, code, after in (
        ("smtp", None, "450 4.7.1", None),
        ("twilio", 429, "20429", second),
        ("fcm", 429, "QUOTA_EXCEEDED", second),
    ):
        throttled = await first(name, "throttle-2")
        assert throttled == Throttled(
            code=code, detail=throttled.detail, after=after, http_status=status
        )
    for name, status, code in (
        ("smtp", None, "451 4.3.0"),
        ("twilio", 503, "20503"),
        ("fcm", 503, "UNAVAILABLE"),
    ):
        down = await first(name, "down")
        assert down == Unavailable(code=code, detail=down.detail, http_status=status)


@pytest.mark.parametrize("name", list(QUEUES))
async def test_a_cancelled_send_releases_its_connection_and_the_next_one_works(
    providers: dict[str, Provider], sandbox: Sandbox, name: str
) -> None:
    provider = providers[name]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(provider.send(envelope(name, recipient(name, "hang"))))
        while not len(sandbox.log):
            await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert (await provider.send(envelope(name, recipient(name, "ok")))).name == "accepted"


async def test_an_address_with_non_ascii_characters_is_sent_with_smtputf8(
    providers: dict[str, Provider], sandbox: Sandbox
) -> None:
    outcome = await providers["smtp"].send(envelope("smtp", "änn@bücher.example"))
    assert outcome.name == "accepted"
    assert [call.recipient for call in _calls(sandbox)] == ["änn@xn--bcher-kva.example"]


def _calls(sandbox: Sandbox) -> list[Call]:
    return list(sandbox.log.select(CallFilter()))
