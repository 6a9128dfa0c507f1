"""Two rounds of `make chaos`, so that the suite knows that it still plays."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.rabbitmq import RabbitmqNode
from harness.stack import Stack
from notifier.embedded.postgres import PostgresServer
from tests.chaos.arena import open_arena
from tests.chaos.faults import FAULTS
from tests.chaos.playing import play_until_it_counts
from tests.chaos.round import Pace

SHORT = Pace(before_s=1.5, after_s=0.5)


@pytest.fixture
def stack(
    e2e_folder: Path, postgres_server: PostgresServer, rabbitmq_server: RabbitmqNode
) -> Stack:
    folder = e2e_folder / "chaos"
    folder.mkdir(mode=0o711)
    return Stack(folder, postgres_server, rabbitmq_server)


async def test_a_killed_worker_and_a_cut_database_lose_nothing_and_double_nothing_unmarked(
    stack: Stack,
) -> None:
    async with open_arena(stack, workers=((), ()), linked=True) as arena:
        for name in ("worker_killed", "postgres_cut"):
            result = await play_until_it_counts(
                arena, FAULTS[name], 1, seed=1, report=print, pace=SHORT
            )
            assert (result.lost, result.unmarked) == (0, 0), result.evidence
            assert result.final == result.accepted > 0
