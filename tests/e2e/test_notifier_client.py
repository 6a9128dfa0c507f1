"""The Python client on real processes, and the examples of its page."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from standardwebhooks import Webhook

from harness.client import open_client, until
from harness.system import System, running_system, urls
from harness.tcp_proxy import TcpProxy
from harness.webhook_receiver import Receiver, open_receiver
from notifier_client import Accepted, NotifierError, WebhookVerifier, WrongStatus
from notifier_client.configuration import KEY, URL
from tests.client_styles import STYLES, called

PAGE: Final = Path(__file__).parents[2] / "docs/client.md"
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT: Final = {"id": "e1", "type": "webhook.test", "timestamp": "2027-01-31T09:00:00Z", "data": {}}
SETTINGS: Final[dict[str, object]] = {
    "api.auth": "keys",
    "webhooks.allow_http": True,
    "webhooks.allow_private": '["127.0.0.0/8"]',
}
both_styles = pytest.mark.parametrize("style", STYLES)
Proxy = Callable[[str, int], AbstractAsyncContextManager[TcpProxy]]


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    """A system that asks for keys."""
    with running_system(system_folder, urls(database_url, vhost_url) | SETTINGS) as system:
        yield system


@pytest.fixture
def key(system: System) -> str:
    return system.run("keys", "create", "--database").stdout.strip()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as receiver:
        yield receiver


def examples() -> list[tuple[int, str]]:
    """The Python blocks of the page, with the number of the line before each."""
    text = PAGE.read_text()
    blocks = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: block.start(1)].count("\n"), block[1]) for block in blocks]


def test_the_examples_of_the_page_run(
    system: System, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    system.start_all()
    monkeypatch.setenv(URL, system.api_url)
    monkeypatch.setenv(KEY, key)
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    remembered: dict[str, object] = {}
    names: dict[str, Any] = {"remember": remembered.__setitem__}
    capsys.readouterr()
    for line, code in examples():
        exec(compile("\n" * line + code, str(PAGE), "exec"), names)  # noqa: S102 what the page says

    printed = capsys.readouterr().out
    assert re.search(r"^[0-9a-f-]{36} queued$", printed, re.MULTILINE)
    assert re.search(r"^sent twilio Result\(", printed, re.MULTILINE)
    assert "[('recipient', '" in printed
    assert "refused:" not in printed
    assert len(names["results"]) == 3
    body = json.dumps(EVENT).encode()
    assert names["receive"](signed(body), body) == 204
    assert names["receive"](signed(body), body + b" ") == 401
    assert list(remembered) == ["e1"]
    names["notifier"].close()


def signed(body: bytes) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "webhook-id": "e1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("e1", now, body.decode()),
    }


@both_styles
async def test_every_call_does_what_it_says(style: str, system: System, key: str) -> None:
    system.start_all()
    sent, results, scheduled = await called(
        style,
        system.api_url,
        lambda notifier: notifier.send(
            "email", "refuse@example.com", priority="high", subject="Hi", tag="spring"
        ),
        lambda notifier: notifier.send_many(
            [
                {"channel": "email", "recipient": "ada@example.com", "subject": "Hi"},
                {"channel": "email", "recipient": "nobody", "subject": "Hi"},
            ]
        ),
        lambda notifier: notifier.send(
            "sms", "+15005550006", body="Hi", send_at=datetime.now(UTC) + timedelta(hours=1)
        ),
        key=key,
    )
    assert isinstance(results[0], Accepted)
    assert isinstance(results[1], NotifierError)
    assert scheduled.status == "scheduled"

    failed, again, explained, cancelled, repeated, found = await called(
        style,
        system.api_url,
        lambda notifier: notifier.wait(sent.id),
        lambda notifier: notifier.retry(sent.id, note="once more"),
        lambda notifier: notifier.explain(scheduled.id),
        lambda notifier: notifier.cancel(scheduled.id, note="too early"),
        lambda notifier: notifier.cancel(scheduled.id),
        lambda notifier: notifier.find(tag="spring"),
        key=key,
    )
    assert (failed.status, failed.result.reason, len(failed.attempts)) == ("failed", "refused", 1)
    assert (again.id, again.is_final) == (sent.id, False)
    assert "scheduled" in {blocker.kind for blocker in explained.blockers}
    assert (cancelled.status, repeated.status) == ("cancelled", "cancelled")
    assert cancelled.result.reason == "request"
    assert [item.id for item in found] == [sent.id]

    (read,) = await called(
        style,
        system.api_url,
        lambda notifier: notifier.get(sent.id, include=["content", "receipts"]),
        key=key,
    )
    assert (read.content["subject"], read.receipts, read.tag) == ("Hi", (), "spring")

    with pytest.raises(WrongStatus) as caught:
        await called(
            style,
            system.api_url,
            lambda notifier: notifier.wait(results[0].id),
            lambda notifier: notifier.retry(results[0].id),
            key=key,
        )
    assert caught.value.current_status == "sent"


@both_styles
async def test_a_submit_whose_answer_is_lost_is_stored_once(
    style: str, system: System, key: str, tcp_proxy: Proxy
) -> None:
    system.start_api()
    orders = [{"channel": "email", "recipient": f"{n}@example.com", "subject": "Hi"} for n in "ab"]
    async with tcp_proxy("127.0.0.1", system.api_port) as proxy:
        url = proxy.url(system.api_url)
        submits: tuple[Callable[[Any], Any], ...] = (
            lambda notifier: notifier.send("email", "ada@example.com", subject="Hi"),
            lambda notifier: notifier.send_many(orders),
        )
        for submit in submits:
            proxy.swallow_replies()
            async with asyncio.TaskGroup() as group:
                calling = group.create_task(called(style, url, submit, key=key), name="submit")
                await proxy.swallowed.wait()
                proxy.heal()
            (result,) = calling.result()
            assert all(each.is_replay for each in (result if submit is submits[1] else [result]))
        (found,) = await called(style, url, lambda notifier: notifier.find(), key=key)
    assert sorted(item.recipient for item in found) == [
        "a@example.com",
        "ada@example.com",
        "b@example.com",
    ]


async def test_calls_of_webhooks_are_verified(system: System, key: str, receiver: Receiver) -> None:
    system.start_all()
    async with open_client(system.api_url, system.sandbox_url) as client:
        client.key = key
        webhook = await client.call(
            "POST", "webhooks", json={"url": f"{receiver.url}/shop"}, params={"tenant": "default"}
        )
        (sent,) = await called(
            "async",
            system.api_url,
            lambda notifier: notifier.send("email", "ada@example.com", subject="Hi"),
            key=key,
        )

        async def count() -> int:
            return len(receiver.received["shop"])

        await until(count, lambda calls: calls == 1)
    (call,) = receiver.received["shop"]
    event = WebhookVerifier(webhook["secret"]).verify(call.body, call.headers)
    assert (event.type, event.tenant) == ("notification.sent", "default")
    assert event.data["notification"]["id"] == sent.id
    assert event.id == call.headers["webhook-id"]
