"""Whole processes: whoever is suppressed, or unsubscribes with one click, gets no more mail."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from email.message import EmailMessage
from pathlib import Path

import aiohttp
import pytest

from harness.client import Client, Document, open_client, submit_body, until
from harness.system import System, running_system, urls
from tests.integration.read_back import ReadableServer, exim, postfix

ADA = "ok+ada@example.com"
PUBLIC_URL = "https://notify.example.com"
FORM = {"List-Unsubscribe": "One-Click"}


def mail(recipient: str = ADA, **more: object) -> Document:
    return submit_body("email.medium") | {"recipient": recipient} | more


def suppress(system: System, *words: str) -> None:
    done = system.run("suppressions", "add", "--channel", "email", "--recipient", ADA, *words)
    assert (done.returncode, done.stderr) == (0, "")


async def test_mails_that_wait_for_a_suppressed_recipient_are_not_sent(
    system: System, client: Client
) -> None:
    system.start_all()
    await client.hold("pause", "channel", "email")
    waiting = await client.submit([mail(), mail("OK+ada@EXAMPLE.com")])
    other = await client.submit_one(mail("ok+eve@example.com"))
    await asyncio.to_thread(suppress, system, "--reason", "complaint")
    assert [(await client.notification(id_))["status"] for id_ in waiting] == ["suppressed"] * 2
    status, _, accepted = await client.post(mail())
    assert (status, accepted["status"], accepted["reason"]) == (202, "suppressed", "complaint")
    await client.hold("resume", "channel", "email")
    assert (await client.final(other))["status"] == "sent"
    assert set(await client.accepted()) == {other}


async def test_submits_at_the_moment_of_the_suppression_are_not_sent_either(
    system: System, client: Client
) -> None:
    system.start_all()
    await client.hold("pause", "channel", "email")
    ids: list[str] = []
    answers: list[str] = []
    stop = asyncio.Event()

    async def submit() -> None:
        while not stop.is_set():
            _, _, accepted = await client.post(mail())
            ids.append(accepted["id"])
            answers.append(accepted["status"])

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(submit(), name=f"submits {number}")
        await until(lambda: count(answers), lambda found: found > 50)
        await asyncio.to_thread(suppress, system)
        known = len(answers)
        await until(lambda: count(answers), lambda found: found > known + 100)
        stop.set()
    assert set(answers) == {"queued", "suppressed"}
    # A request that began before the answer to the suppression may have been answered after it.
    assert set(answers[known + 8 :]) == {"suppressed"}

    async def statuses() -> set[str]:
        found = await client.statuses()
        return {found[id_] for id_ in ids}

    await until(statuses, lambda found: found == {"suppressed"})
    await client.hold("resume", "channel", "email")
    last = await client.submit_one(mail("ok+eve@example.com"))
    assert (await client.final(last))["status"] == "sent"
    assert set(await client.accepted()) == {last}


async def count(answers: list[str]) -> int:
    return len(answers)


def head_of(mails: list[bytes], notification: str) -> Mapping[str, str]:
    parsed = [email.message_from_bytes(each, policy=email.policy.default) for each in mails]
    (found,) = [each for each in parsed if notification in each["Message-ID"]]
    assert isinstance(found, EmailMessage)
    assert len(found.get_all("List-Unsubscribe", [])) <= 1
    return {name: str(value) for name, value in found.items()}


@pytest.mark.parametrize("opened", [exim, postfix])
async def test_one_click_in_a_mail_that_a_real_server_stored_ends_its_topic(
    system_folder: Path,
    database_url: str,
    vhost_url: str,
    opened: Callable[[], AbstractAsyncContextManager[ReadableServer]],
) -> None:
    async with opened() as server:
        settings = urls(database_url, vhost_url) | {
            "providers.smtp.port": server.port,
            "api.public_url": PUBLIC_URL,
        }
        with running_system(system_folder, settings) as system:
            system.start_api()
            system.start_worker()
            async with open_client(system.api_url, system.sandbox_url) as client:
                news = mail("Ada <Ada@Example.com>", topic="news")
                first = await client.submit_one(news)
                plain = await client.submit_one(mail("ada@example.com"))
                assert (await client.final(first))["status"] == "sent"
                assert (await client.final(plain))["status"] == "sent"
                mails = server.mails()
                head = head_of(mails, first)
                assert "List-Unsubscribe" not in head_of(mails, plain)
                assert head["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
                link = head["List-Unsubscribe"]
                assert link.startswith(f"<{PUBLIC_URL}/v1/unsubscribe/")
                assert link.endswith(">")
                assert "ada" not in link.lower()
                url = system.api_url + link[1:-1].removeprefix(PUBLIC_URL)
                await click(url)
                status, _, accepted = await client.post(news)
                assert (status, accepted["status"]) == (202, "suppressed")
                assert accepted["reason"] == "unsubscribe"
                for other in (mail("ada@example.com"), mail("ada@example.com", topic="offers")):
                    assert (await client.post(other))[2]["status"] == "queued"


async def click(url: str) -> None:
    """Look at the page as a scanner does, without effect, and then as a mail program."""
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.get(url) as response:
                assert (response.status, response.content_type) == (200, "text/html")
                assert "example.com" not in await response.text()
        async with session.post(url + "x", data=FORM) as response:
            assert response.status == 404
        async with session.post(url, data=FORM) as response:
            assert response.status == 200
