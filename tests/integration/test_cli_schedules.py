"""`notifier schedules` against a real API over a memory store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from notifier.api.http.server import open_server
from notifier.domain.tenants import TenantId
from tests.integration.test_cli_api import Cli
from tests.memory_schedules import MemorySchedules
from tests.unit.fakes_api import MemoryStore, make_api, submit_body

if TYPE_CHECKING:
    from notifier.domain.schedules import Schedule

WEEKDAYS = ("--cron", "30 9 * * MON-FRI", "--time-zone", "Europe/Berlin")
MAIL = ("-c", "email", "-t", "ada@example.com", "-s", "Stand-up", "-b", "Soon.")


@pytest.fixture
def schedules() -> MemorySchedules:
    return MemorySchedules()


@pytest.fixture
async def cli(schedules: MemorySchedules, tmp_path: Path) -> AsyncIterator[Cli]:
    app = make_api(MemoryStore(), schedules=schedules)
    async with open_server(app, host="127.0.0.1", port=0, grace_s=5) as port:
        yield Cli(f"http://127.0.0.1:{port}", tmp_path)


def only(schedules: MemorySchedules) -> Schedule:
    (stored,) = schedules.stored.values()
    return stored


def notification_of(schedule: Schedule) -> Any:
    assert schedule.notification is not None
    return msgspec.json.decode(schedule.notification)


async def test_a_schedule_is_made_shown_paused_resumed_and_deleted(
    cli: Cli, schedules: MemorySchedules
) -> None:
    create = (*WEEKDAYS, *MAIL, "--ttl", "2h", "--tag", "a", "--note", "the stand-up")
    done = await cli.run("schedules", "create", *create)
    assert (done.code, done.err) == (0, "")
    stored = only(schedules)
    assert done.out.startswith(f"{stored.id} 30 9 * * MON-FRI Europe/Berlin: next at 20")
    assert notification_of(stored) == {
        "channel": "email",
        "recipient": "ada@example.com",
        "content": {"subject": "Stand-up", "body": "Soon."},
        "ttl_s": 7200,
        "tag": "a",
    }
    listed = await cli.run("schedules", "list")
    assert (listed.code, str(stored.id) in listed.out, "the stand-up" in listed.out) == (
        0,
        True,
        True,
    )
    page = json.loads((await cli.run("schedules", "list", "--json")).out)
    assert [item["id"] for item in page["items"]] == [str(stored.id)]
    paused = await cli.run("schedules", "pause", str(stored.id))
    assert (paused.code, paused.out.rstrip().endswith(": paused")) == (0, True)
    assert (only(schedules).is_paused, only(schedules).note) == (True, "the stand-up")
    resumed = await cli.run("schedules", "resume", str(stored.id), "--json")
    assert json.loads(resumed.out)["paused"] is False
    assert notification_of(only(schedules)) == notification_of(stored)
    deleted = await cli.run("schedules", "delete", str(stored.id))
    assert (deleted.code, deleted.out, schedules.stored) == (0, f"{stored.id} deleted\n", {})
    again = await cli.run("schedules", "delete", str(stored.id))
    assert (again.code, "404" in again.err) == (1, True)


async def test_a_notification_is_read_from_a_file_and_is_of_the_tenant_that_is_named(
    cli: Cli, schedules: MemorySchedules, tmp_path: Path
) -> None:
    file = tmp_path / "notification.json"
    file.write_text(json.dumps(submit_body(metadata={"order": 17})))
    done = await cli.run("schedules", "create", *WEEKDAYS, "--file", str(file), "--tenant", "shop")
    assert (done.code, done.err) == (0, "")
    stored = only(schedules)
    assert (stored.scope.tenant, notification_of(stored)["metadata"]) == (
        TenantId("shop"),
        {"order": 17},
    )
    for verb in ("pause", "resume", "delete"):
        assert (await cli.run("schedules", verb, str(stored.id))).code == 1
        done = await cli.run("schedules", verb, str(stored.id), "--tenant", "shop")
        assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((*WEEKDAYS, *MAIL, "--file", "there.json"), 2, "either --file"),
        ((*WEEKDAYS, "--file", "missing.json"), 2, "expected a file"),
        ((*WEEKDAYS, "--file", "wrong.json"), 2, "expected JSON"),
        ((*WEEKDAYS, *MAIL, "--tenant", "No"), 2, "tenant"),
        (("--cron", "x", "--time-zone", "Mars", *MAIL), 1, "cron: "),
        (("--time-zone", "UTC", *MAIL), 2, "--cron"),
        (WEEKDAYS, 1, "notification.channel"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(
    cli: Cli,
    schedules: MemorySchedules,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    (tmp_path / "wrong.json").write_text("{")
    done = await cli.run("schedules", "create", *arguments)
    assert (done.code, says in done.err, len(done.err.splitlines())) == (code, True, 1)
    assert schedules.stored == {}
