"""Templates through real processes, and hostile ones that were put into the database itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from uuid import UUID

import asyncpg

from harness.client import Client, submit_body, until
from harness.system import System
from notifier.delivery.templates import encode_templated
from tests.chaos.memory import resident_mb
from tests.hostile_templates import BEYOND_FUEL, OUT_OF_FUEL, RAISING, VARIABLES
from tests.stored_templates import email_template, store_template


async def test_a_pushed_template_reaches_the_mailbox_and_the_newest_version_is_taken(
    system: System, client: Client, tmp_path: Path
) -> None:
    system.start_all()
    folder = tmp_path / "texts" / "order"
    folder.mkdir(parents=True)
    (folder / "en.email.subject").write_text("Order {{ order.id }}")
    (folder / "en.email.txt").write_text("Hello {{ name }}")
    push = ("templates", "push", str(folder.parent), "--url", client.api)
    assert system.run(*push).stdout.splitlines()[-1] == "order@1 saved"
    submit = submit_body(template="order", variables=VARIABLES)
    del submit["content"]
    first = await client.submit_one(submit)
    assert (await client.final(first))["template"] == "order@1"
    (folder / "en.email.txt").write_text("Changed for {{ name }}")
    assert system.run(*push).stdout.splitlines()[-1] == "order@2 saved"
    second = await client.submit_one(submit)
    assert (await client.final(second))["template"] == "order@2"
    for which in (first, second):
        assert (await client.final(which))["status"] == "sent"
        assert len(await client.calls(which)) == 1


async def test_no_worker_ends_by_hostile_templates_in_the_database(
    system: System, client: Client, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Notifications with texts are submitted, and turned into hostile ones before any worker."""
    system.start_sandbox()
    system.start_api()
    sources = [*OUT_OF_FUEL.values(), *BEYOND_FUEL.values(), *RAISING.values()]
    hostile = await client.submit([submit_body() for _ in sources])
    for source, which in zip(sources, hostile, strict=True):
        own = await store_template(connection, email_template(body=source))
        await connection.execute(
            "UPDATE notifications SET content = $2 WHERE id = $1",
            UUID(which),
            encode_templated(own, {}),
        )
    good = await client.submit([submit_body() for _ in range(200)])
    worker = system.start_worker()
    assert await client.all_final(hostile) == {"failed": len(hostile)}
    assert await client.all_final(good) == {"sent": len(good)}
    failures = {row["id"]: row["result"] for row in await client.failures()}
    assert {failures[which]["reason"] for which in hostile} == {"render"}
    assert all(failures[which]["code"].startswith("render_") for which in hostile)
    assert worker.is_running
    assert resident_mb(worker.pid) < 400
    providers = {row["provider"]: row["breaker"] for row in await client.items("providers")}
    assert providers["smtp"] == "closed"


async def test_the_renderer_ends_with_its_process_also_when_that_is_killed(
    system: System, client: Client
) -> None:
    system.start_sandbox()
    api, worker = system.start_api(), system.start_worker()
    versions = f"{client.api}/v1/templates/order/versions"
    await client._call("POST", versions, json=email_template(body="{{ name }}"))
    submit = submit_body(template="order", variables=VARIABLES)
    del submit["content"]
    assert (await client.final(await client.submit_one(submit)))["status"] == "sent"
    (of_api,), (of_worker,) = _renderers(api.pid), _renderers(worker.pid)
    worker.kill()
    api.stop()
    for renderer in (of_api, of_worker):
        await until(partial(_is_gone, renderer), bool)


def _renderers(parent: int) -> list[int]:
    """The processes of a parent that render."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"notifier.adapters.templating.child" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


async def _is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
