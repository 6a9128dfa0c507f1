"""How `notifier explain` writes an explanation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import pytest

from notifier.api.responses import Ahead, Blocker, Expected, Explanation
from notifier.cli.explain import lines
from notifier.cli.status import exit_code
from notifier.domain.notification import FINAL, NotificationId, Status

NOW: Final = datetime(2026, 11, 28, 18, 42, 7, 123456, tzinfo=UTC)
PAUSE: Final = Blocker(
    kind="pause",
    name="queue:email.low",
    until_at=datetime(2026, 11, 28, 19, 10, tzinfo=UTC),
    detail="by key:8Rk2vQ0ZpLx1: wrong newsletter",
)


def explanation(
    *blockers: Blocker, expected: Expected | None = None, status: Status = Status.QUEUED
) -> Explanation:
    return Explanation(
        id=NotificationId(UUID(int=7)),
        status=status,
        queue="email.low",
        as_of_at=NOW,
        expires_at=NOW + timedelta(days=3),
        blockers=blockers,
        ahead=Ahead(4210, is_exact=True),
        expected=expected,
    )


def test_each_blocker_has_a_line_and_the_last_one_says_when_it_is_expected() -> None:
    rate = Blocker(kind="rate", name="relay", until_at=None, detail="50 calls per second")
    behind = Blocker(kind="behind", name="email.low", until_at=None, detail="4,210 stand before it")
    expected = Expected(
        datetime(2026, 11, 28, 19, 11, 24, tzinfo=UTC),
        datetime(2026, 11, 28, 19, 13, 54, tzinfo=UTC),
    )
    assert list(lines(explanation(PAUSE, rate, behind, expected=expected))) == [
        "queued on email.low, not sent yet:",
        "  pause   queue email.low, by key:8Rk2vQ0ZpLx1: wrong newsletter, until 19:10:00",
        "  rate    relay, 50 calls per second",
        "  behind  email.low, 4,210 stand before it",
        (
            "expected between 19:11:24 and 19:13:54; expires 2026-12-01 18:42:07"
            "   (as of 18:42:07 UTC)"
        ),
    ]


def test_what_only_a_person_can_end_has_no_expected_time() -> None:
    breaker = Blocker(
        kind="breaker",
        name="relay",
        until_at=datetime(2026, 11, 28, 18, 42, 12, tzinfo=UTC),
        detail="configuration 554 5.7.1",
    )
    no_worker = Blocker(kind="no_worker", name=None, until_at=None, detail=None)
    assert list(lines(explanation(no_worker, breaker, status=Status.RETRYING))) == [
        "retrying on email.low, not sent yet:",
        "  no_worker",
        "  breaker    relay, configuration 554 5.7.1, probed next at 18:42:12",
        "no time can be told; expires 2026-12-01 18:42:07   (as of 18:42:07 UTC)",
    ]


def test_a_time_of_another_day_has_its_date_and_the_latest_time_may_be_unknown() -> None:
    at = datetime(2026, 11, 29, 8, tzinfo=UTC)
    quiet = Blocker(kind="quiet_hours", name="shop", until_at=at, detail=None)
    shown = list(lines(explanation(quiet, expected=Expected(at, None), status=Status.SCHEDULED)))
    assert shown[1] == "  quiet_hours  shop, until 2026-11-29 08:00:00"
    assert shown[2].startswith("expected not before 2026-11-29 08:00:00; expires 2026-12-01")


def test_without_blockers_nothing_holds_it() -> None:
    expected = Expected(NOW, NOW + timedelta(seconds=65))
    first, last = lines(explanation(expected=expected))
    assert first == "queued on email.low, not sent yet, and nothing holds it"
    assert last.startswith("expected between 18:42:07 and 18:43:12; ")


@pytest.mark.parametrize("status", [Status.SENDING, *sorted(FINAL), Status.LOST])
def test_what_does_not_wait_has_one_line(status: Status) -> None:
    [line] = lines(explanation(status=status))
    assert line.startswith(f"{status}: it does not wait")


def test_the_exit_code_is_1_for_what_ended_without_being_sent() -> None:
    assert {status for status in FINAL if exit_code(status) == 0} == {"sent", "delivered"}
    assert exit_code("lost") == 1
