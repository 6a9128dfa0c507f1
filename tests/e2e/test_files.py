"""Files of emails through whole processes, to a real mail server."""

from __future__ import annotations

import io
import json
import random
from base64 import b64encode
from pathlib import Path

import aiohttp
import asyncpg

from harness.client import Document, open_client, until
from harness.system import running_system, urls
from notifier.domain.blobs import blob_id
from tests.integration.read_back import exim, strictly_read

LARGE = random.Random(1).randbytes(10 * 1024 * 1024)
PDF = random.Random(2).randbytes(100_000)
MAIL = b"From: Shop <shop@example.com>\nSubject: whole\nBcc: eve@example.com\n\n.\nHello\n"
RECIPIENTS = 500
JSON = {"Content-Type": "application/json"}


def file(**changes: object) -> Document:
    return {"filename": "a.pdf", "content_type": "application/pdf", **changes}


def mail(number: int, **content: object) -> Document:
    return {"channel": "email", "recipient": f"u{number}@example.com", "content": content}


async def test_files_and_whole_mails_arrive_as_they_were_and_are_stored_once(
    system_folder: Path,
    database_url: str,
    vhost_url: str,
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    async with exim() as server:
        settings = urls(database_url, vhost_url) | {"providers.smtp.port": server.port}
        with running_system(system_folder, settings) as system:
            system.start_api()
            system.start_worker()
            async with (
                open_client(system.api_url, system.sandbox_url) as client,
                aiohttp.ClientSession(system.api_url) as session,
            ):
                for data, kind in ((PDF, "application/pdf"), (MAIL, "message/rfc822")):
                    headers = {"Content-Type": kind}
                    async with session.post(
                        "/v1/blobs", data=io.BytesIO(data), headers=headers
                    ) as response:
                        assert response.status == 201
                        assert (await response.json())["id"] == blob_id(data)
                inline = mail(0, subject="large", attachments=[file(data=_base64(LARGE))])
                body = io.BytesIO(json.dumps(inline).encode())
                async with session.post("/v1/notifications", data=body, headers=JSON) as response:
                    assert response.status == 202, await response.text()
                shared = [file(blob=blob_id(PDF))]
                await client.submit(
                    [
                        mail(1, mime=blob_id(MAIL)),
                        *(mail(n, subject="one", attachments=shared) for n in range(RECIPIENTS)),
                    ]
                )
                statuses = await until(
                    client.statuses, lambda found: set(found.values()) == {"sent"}
                )
                assert len(statuses) == RECIPIENTS + 2
        messages = list(map(strictly_read, server.mails()))
    by_subject: dict[str, list[object]] = {"large": [], "one": [], "whole": []}
    for message in messages:
        payload = message.get_payload(decode=True)
        files: list[object] = [part.get_payload(decode=True) for part in message.iter_attachments()]
        by_subject[message["Subject"]] += files or [payload]
    assert by_subject == {"large": [LARGE], "one": [PDF] * RECIPIENTS, "whole": [b".\nHello\n"]}
    assert not any(message["Bcc"] for message in messages)
    assert await connection.fetchval("SELECT count(*) FROM blobs") == 3


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
