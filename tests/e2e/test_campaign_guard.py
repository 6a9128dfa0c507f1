"""A campaign of which the provider refuses too much is paused by itself, on real processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.client import Client, Document, submit_body, until
from harness.system import System, running_system, urls

GUARD = {"guard.refused_share": 0.2, "guard.least_results": 50}


@pytest.fixture
def system(system_folder: Path, database_url: str, vhost_url: str) -> Iterator[System]:
    with running_system(system_folder, urls(database_url, vhost_url) | GUARD) as system:
        system.start_all()
        system.start_another_worker()
        yield system


def campaign(count: int, fates: Sequence[str]) -> Sequence[Document]:
    return [
        submit_body("email.low", fates[number % len(fates)], tag="spring")
        for number in range(count)
    ]


async def test_a_campaign_with_refusals_is_paused_by_itself_and_another_tag_goes_on(
    system: System, client: Client
) -> None:
    first = await client.submit(campaign(80, ["ok", "refuse"]))
    assert await client.all_final(first) == {"sent": 40, "failed": 40}
    [pause] = await until(lambda: client.items("pauses"), bool)
    assert (pause["kind"], pause["name"]) == ("tag", "spring")
    assert "40 refused" in pause["note"]
    [entry] = [row for row in await client.items("audit") if row["actor"] == "system"]
    assert (entry["action"], entry["target"]) == ("pause.created", "pause:tag:spring")

    rest = await client.submit(campaign(40, ["ok"]))
    code = await client.submit_one(submit_body("email.high", tag="login"))
    assert (await client.final(code))["status"] == "sent"

    async def parked() -> list[str]:
        statuses = await client.statuses()
        return [id_ for id_ in rest if statuses[id_] == "scheduled"]

    await until(parked, lambda ids: len(ids) == len(rest))

    async def by_tag() -> dict[str | None, tuple[int, int, int]]:
        rows = await client.items("stats?by=tag&step=day")
        return {row["tag"]: (row["accepted"], row["sent"], row["failed"]) for row in rows}

    await until(by_tag, lambda found: found == {"spring": (120, 40, 40), "login": (1, 1, 0)})

    await client.hold("resume", "tag", "spring")
    assert await client.all_final(rest) == {"sent": 40}
    assert await client.items("pauses") == []
    await until(by_tag, lambda found: found["spring"] == (120, 80, 40))
