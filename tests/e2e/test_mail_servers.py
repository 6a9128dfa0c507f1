"""Whole processes before mail servers that take few connections, or long for a mail."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from harness.client import Client, Document, open_client, until
from harness.system import running_system, urls
from tests.integration.limited_mail_server import LimitedServer, open_limited
from tests.integration.real_mail_servers import MailServer, open_exim, open_postfix

COUNT = 400


@asynccontextmanager
async def a_system(
    folder: Path, database_url: str, vhost_url: str, *, workers: int = 1, **settings: object
) -> AsyncIterator[Client]:
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    with running_system(folder, urls(database_url, vhost_url) | dotted) as system:
        system.start_api()
        system.start_worker()
        for _ in range(workers - 1):
            system.start_another_worker()
        async with open_client(system.api_url, system.sandbox_url) as client:
            yield client


def mails(count: int) -> list[Document]:
    return [
        {
            "channel": "email",
            "priority": "medium",
            "recipient": f"user-{number}@example.com",
            "content": {"subject": "Hello", "body": "World"},
        }
        for number in range(count)
    ]


def exim() -> AbstractAsyncContextManager[MailServer]:
    return open_exim("smtp_accept_max = 10")


def postfix() -> AbstractAsyncContextManager[MailServer]:
    return open_postfix(
        "smtpd_recipient_restrictions = "
        "check_recipient_access inline:{{example.com=OK}}, reject_unauth_destination",
        "smtpd_client_connection_count_limit = 10",
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("server", [exim, postfix])
async def test_a_server_that_takes_ten_connections_gets_every_mail_once(
    system_folder: Path, database_url: str, vhost_url: str, server: object, workers: int
) -> None:
    async with (
        server() as mail_server,  # type: ignore[operator]
        a_system(
            system_folder,
            database_url,
            vhost_url,
            workers=workers,
            providers__smtp__port=mail_server.port,
            providers__smtp__max_connections=64,
        ) as app,
    ):
        ids = await app.submit(mails(COUNT))
        await until(app.statuses, lambda found: set(found.values()) == {"sent"})
        assert Counter(mail_server.message_ids()) == Counter(map(str, ids))
        rows = await app.items("providers")
        assert next(row["breaker"] for row in rows if row["provider"] == "smtp") == "closed"


async def test_a_mail_that_a_server_takes_after_the_usual_limits_is_sent_once(
    system_folder: Path, database_url: str, vhost_url: str
) -> None:
    server = LimitedServer(mail_s=5.0)
    async with (
        open_limited(server),
        a_system(
            system_folder,
            database_url,
            vhost_url,
            providers__smtp__port=server.port,
            providers__smtp__timeout_s=1.0,
            worker__send_timeout_s=2.0,
        ) as app,
    ):
        await app.submit(mails(20))
        await until(app.statuses, lambda found: set(found.values()) == {"sent"})
    assert len(server.mails) == 20
