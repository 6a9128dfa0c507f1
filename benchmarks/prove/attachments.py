"""Memory of an API and of a worker with emails of 10 MiB, and one file for many recipients."""

from __future__ import annotations

import asyncio
import io
import random
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from benchmarks.prove.metrics import until_finished
from harness.client import submit_body
from harness.figure import Figure, never
from harness.run import Run
from harness.stack import Stack
from harness.system import Child

LARGE, MAILS, CALLERS = 10 * 1024 * 1024, 150, 24
RECIPIENTS = 100_000
PDF_BYTES = 100_000
WITHIN_S = 600.0


async def attachments(stack: Stack) -> Sequence[Figure]:
    """Submit mails with a file of 10 MiB each, all different, from more callers than there is room.

    A caller repeats what is answered with 503. The worker sends to the sandbox meanwhile. Then
    100,000 recipients get one file, while their queue is paused.
    """
    async with stack.running() as run:
        answers = await _submit_large(run)
        await until_finished(run.workers, MAILS, WITHIN_S)
        api, worker = peak_mib(run.api), peak_mib(run.workers[0])
        stored = await run.number("SELECT count(*) FROM blobs")
        await _submit_one_file(run)
        new = await run.number("SELECT count(*) FROM blobs") - stored
        rows = await run.number("SELECT count(*) FROM live")
        size = await run.number("SELECT pg_total_relation_size('blobs')") / LARGE / MAILS
        run.kill(run.workers[0])
    return [
        Figure(name="peak memory of the API", value=api, unit="MiB", high=400, always=True),
        Figure(name="peak memory of the worker", value=worker, unit="MiB", high=300, always=True),
        never("large mails without their own blob", abs(stored - MAILS)),
        Figure(name="answers 503 to large submits", value=answers[503]),
        never("other refusals", sum(answers.values()) - answers[202] - answers[503]),
        Figure(name=f"blobs of {RECIPIENTS:,} mails with one file", value=new, low=1, high=1),
        never("of these mails missing", RECIPIENTS - rows),
        Figure(name="size of the blobs, compared with the files", value=size, unit="%", high=1.05),
    ]


def peak_mib(child: Child) -> float:
    """Return the highest resident memory that a process has had, in MiB."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


async def _submit_large(run: Run) -> Counter[int]:
    """Submit the large mails; returns how often each status was answered."""
    answers = Counter[int]()
    waiting = list(range(MAILS))

    async def call(session: aiohttp.ClientSession) -> None:
        while waiting:
            body = _large(waiting.pop())
            while True:
                url = f"{run.client.api}/v1/notifications"
                headers = {"Content-Type": "application/json"}
                data = io.BytesIO(body)
                async with session.post(url, data=data, headers=headers) as response:
                    answers[response.status] += 1
                    if response.status != 503:
                        break
                    await asyncio.sleep(float(response.headers["Retry-After"]))

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call(session))
    return answers


def _large(number: int) -> bytes:
    data = b64encode(random.Random(number).randbytes(LARGE))
    head = b'{"channel":"email","recipient":"ok+e2e@example.com","content":{"subject":"x",'
    file = b'"attachments":[{"filename":"a.pdf","content_type":"application/pdf","data":"'
    return head + file + data + b'"}]}}'


async def _submit_one_file(run: Run) -> None:
    await run.client.hold("pause", "queue", "email.low")
    data = random.Random(MAILS).randbytes(PDF_BYTES)
    async with aiohttp.ClientSession() as session:
        headers = {"Content-Type": "application/pdf"}
        async with session.post(
            f"{run.client.api}/v1/blobs", data=data, headers=headers
        ) as response:
            blob = (await response.json())["id"]
    file = {"filename": "a.pdf", "content_type": "application/pdf", "blob": blob}
    body = submit_body("email.low", content={"subject": "x", "attachments": [file]})
    await run.client.submit([body] * RECIPIENTS)
