"""A short run of the trial `idempotency_kills` of `make chaos`."""

from __future__ import annotations

from harness.system import System
from tests.chaos.idempotency import Plan, play

SUBMITS = 5_000


async def test_keys_are_stored_once_while_processes_die_answers_are_lost_and_the_day_changes(
    system: System, database_url: str
) -> None:
    verdict, counts = await play(system, database_url, Plan(submits=SUBMITS, kill_every_s=2.0))
    assert verdict.is_kept, verdict
    assert verdict.answers > SUBMITS
    assert verdict.replays > SUBMITS / 4
    assert verdict.reused > SUBMITS / 100
    assert counts.kills >= 2
    assert counts.lost_to_callers
    assert counts.lost_to_processes
    assert counts.days == 2
