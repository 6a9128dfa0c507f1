"""What the tables hold is read by other versions: commit 4f534ed wrote it, newer ones will."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from notifier.adapters.postgres.controls import breaker_of
from notifier.adapters.postgres.heartbeat import decode_figures
from notifier.adapters.postgres.leases import decode_progress, encode_progress
from notifier.domain.controls import BreakerState
from notifier.domain.due import DueClass, Position
from notifier.ports.leases import Progress, TurnProgress
from tests.builders import EMAIL_HIGH

ID = "0192f0c1-0000-7000-8000-000000000000"
PREVIOUS_PROGRESS = (
    '{"floors":{"1":["2026-11-29T10:00:00Z","' + ID + '"]},'
    '"marks":{"2":["2026-11-29T09:00:00Z","' + ID + '"]},"is_backlogged":true}'
)
PREVIOUS_FIGURES = (
    '{"queues":{"email.high":{"consumers":3,"busy":2,"held":5,"done":1000,"done_per_s":12.5,'
    '"service_s":0.25,"capacity_per_s":40.0,"limited_by":"rate","held_since":1800000000.25,'
    '"mark":1800000000.5,"drained_s":7.5}},"providers":{"smtp":{"calls":20,"failures":3,"streak":1,'
    '"streak_s":0.5,"answered_s":2.0,"credentials":true}}}'
)
PROGRESS = Progress(
    floors={DueClass.FIRST: Position(datetime(2026, 11, 29, 10, tzinfo=UTC), UUID(ID))},
    marks={DueClass.RETRY: Position(datetime(2026, 11, 29, 9, tzinfo=UTC), UUID(ID))},
    is_backlogged=True,
)


def test_the_progress_of_the_previous_version_is_read_and_written() -> None:
    assert decode_progress(PREVIOUS_PROGRESS) == PROGRESS
    assert encode_progress(PROGRESS) == PREVIOUS_PROGRESS


def test_the_progress_of_turns_is_read_and_written_beside_that_of_turn_0() -> None:
    turns = {5: TurnProgress(floors=PROGRESS.floors, marks=PROGRESS.marks)}
    progress = Progress(floors=PROGRESS.floors, turns=turns)
    assert decode_progress(encode_progress(progress)) == progress
    assert decode_progress('{"turns":{"5":{"floors":{"9":[]},"new":1},"x":{},"6":7}}') == Progress(
        turns={5: TurnProgress()}
    )


def test_the_progress_of_a_newer_version_is_read_without_what_is_unknown() -> None:
    newer = (
        '{"floors":{"1":["2026-11-29T10:00:00Z","'
        + ID
        + '"],"9":[],"x":1},"marks":{"2":7},"new":1}'
    )
    assert decode_progress(newer) == Progress(floors=PROGRESS.floors)
    assert decode_progress("{}") == Progress()


@pytest.mark.parametrize("stored", ["", "[]", '{"floors": 1}'])
def test_what_is_no_progress_is_an_error(stored: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_progress(stored)


def test_the_figures_of_the_previous_version_are_read() -> None:
    figures = decode_figures(PREVIOUS_FIGURES)
    assert figures.queues[EMAIL_HIGH].capacity_per_s == 40.0
    assert figures.providers["smtp"].credentials
    assert not figures.is_draining


def test_an_unknown_state_of_a_breaker_is_not_closed() -> None:
    row = {
        "provider": "smtp",
        "state": "resting",
        "reason": "",
        "age_s": 1.0,
        "probe_in_s": 1.0,
        "since_at": datetime.now(UTC),
        "probe_at": datetime.now(UTC),
        "is_mine": False,
        "openings": 1,
        "code": "",
    }
    assert breaker_of(row).state is BreakerState.OPEN  # type: ignore[arg-type]
    row["reason"] = "in_a_row"
    assert breaker_of(row).reason == "consecutive"  # type: ignore[arg-type]
