"""What a worker of an earlier commit would leave out of a mail is refused while it lives."""

from __future__ import annotations

import asyncio
from pathlib import Path

from harness.client import Client, submit_body, until
from harness.system import System
from notifier.domain.features import FEATURES
from notifier.embedded.process import run_steps_async
from tests.chaos.arena import NEW
from tests.chaos.earlier import export
from tests.chaos.upgrade import BASE

COPY = "refuse+copy@example.com"
COPIED = {"subject": "s", "body": "b", "cc": COPY}
PAUSE_S = 0.1


async def test_a_copy_waits_until_the_old_worker_has_left_and_plain_mail_is_sent_throughout(
    system: System, client: Client, e2e_folder: Path
) -> None:
    newer = system.take_out(NEW)
    code = await asyncio.to_thread(export, BASE, e2e_folder / f"code-{BASE[:12]}")
    sandbox, api = system.spawn_sandbox(), system.spawn_api(**newer)
    old = system.spawn_worker(PYTHONPATH=str(code))
    for child in (sandbox, api, old):
        await run_steps_async(child.starting())
    await until(lambda: client.text(f"{system.api_url}/metrics"), _one_is_behind)
    plain = [await client.submit_one(submit_body())]
    assert (await client.final(plain[0]))["status"] == "sent"
    await _is_refused(client)

    new = system.spawn_worker(**newer)
    await run_steps_async(new.starting())
    async with asyncio.TaskGroup() as group:
        submitting = group.create_task(_submit(client, plain))
        await _is_refused(client)
        (behind,) = [each for each in await client.items("workers") if each["lacks"]]
        assert (behind["pid"], set(behind["lacks"])) == (old.pid, set(FEATURES))
        await run_steps_async(old.stopping())
        _, _, accepted = await until(
            lambda: client.post(submit_body(content=COPIED)), lambda answer: answer[0] == 202
        )
        submitting.cancel()
    sent = await client.final(accepted["id"])
    assert sent["status"] == "sent"
    assert COPY in sent["attempts"][-1]["detail"]
    assert await client.all_final(plain) == {"sent": len(plain)}
    assert await client.unexplained_duplicates() == []
    assert '"worker_behind"' in api.log.read_text()


def _one_is_behind(metrics: str) -> bool:
    return "notifier_workers_behind 1.0" in metrics


async def _submit(client: Client, ids: list[str]) -> None:
    """Submit plain mails until cancelled."""
    while True:
        ids.append(await client.submit_one(submit_body()))
        await asyncio.sleep(PAUSE_S)


async def _is_refused(client: Client) -> None:
    status, headers, problem = await client.post(submit_body(content=COPIED))
    assert (status, problem["type"]) == (503, "urn:notifier:problem:feature-unavailable")
    assert "copies" in problem["detail"]
    assert int(headers["Retry-After"]) > 0
