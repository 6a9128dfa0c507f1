"""The campaign guard: which tags it pauses, and what it reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
import structlog

from notifier.control.campaign_guard import CampaignGuard
from notifier.domain.campaign_guard import GuardRule, TagResults, is_too_bad, note_of
from notifier.domain.errors import StoreUnavailable
from notifier.ports.campaign_guard import JudgedTag

RULE = GuardRule(refused_share=0.2, least_results=100, window=timedelta(minutes=10))


def a_tag(
    sent: int, refused: int, *, undelivered: int = 0, before: float | None = None
) -> TagResults:
    return TagResults("spring", sent, refused, undelivered, before)


@pytest.mark.parametrize(
    ("tag", "is_bad"),
    [
        (a_tag(80, 20), True),
        (a_tag(81, 20), False),
        (a_tag(79, 20), False),
        (a_tag(100, 0, undelivered=20), True),
        (a_tag(90, 10, undelivered=10), True),
        (a_tag(0, 100), True),
        (a_tag(0, 0), False),
    ],
)
def test_a_tag_is_too_bad_from_a_share_of_enough_results_on(tag: TagResults, is_bad: bool) -> None:
    assert is_too_bad(tag, RULE) is is_bad


def test_a_share_of_zero_turns_the_guard_off() -> None:
    assert not is_too_bad(a_tag(0, 1000), RULE._replace(refused_share=0.0))


@pytest.mark.parametrize(
    ("before", "refused", "is_bad"),
    [
        (0.2, 30, False),  # as bad as when a person resumed it
        (0.2, 59, False),
        (0.2, 60, True),  # the share of the rest has halved
        (0.5, 74, False),
        (0.5, 75, True),
        (1.0, 100, False),  # nothing is worse
    ],
)
def test_after_a_person_resumed_a_tag_only_what_is_worse_pauses_it_again(
    before: float, refused: int, is_bad: bool
) -> None:
    assert is_too_bad(a_tag(100 - refused, refused, before=before), RULE) is is_bad


def test_the_note_says_what_was_seen_in_one_line() -> None:
    assert note_of(a_tag(1200, 400, undelivered=0), RULE) == (
        "25% of 1,600 results within 10 min were bad: 400 refused; guard.refused_share is 20%"
    )
    huge = note_of(a_tag(10**9, 10**9, undelivered=10**9), RULE._replace(window=timedelta(hours=1)))
    assert ", 1,000,000,000 undelivered;" in huge
    assert len(huge) < 300
    assert huge.isprintable()


class ScriptedGuard:
    """Answers with tags, or an error."""

    def __init__(self, answer: Sequence[JudgedTag] | Exception) -> None:
        self.answer = answer

    async def judge(self, rule: GuardRule) -> Sequence[JudgedTag]:
        assert rule is RULE
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Observed:
    """Counts paused tags."""

    def __init__(self) -> None:
        self.paused = 0

    def tag_paused(self) -> None:
        self.paused += 1


async def test_what_was_paused_is_counted_and_logged_with_its_figures() -> None:
    observed = Observed()
    judged = [JudgedTag(a_tag(70, 30), is_paused=True), JudgedTag(a_tag(1, 99), is_paused=False)]
    guard = CampaignGuard(guard=ScriptedGuard(judged), rule=RULE, observer=observed)
    with structlog.testing.capture_logs() as logs:
        assert await guard.run_once() == 1
    assert observed.paused == 1
    assert [(entry["event"], entry["refused"], entry["results"]) for entry in logs] == [
        ("tag_paused", 30, 100),
        ("shared_tag_not_paused", 99, 100),
    ]


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ValueError("a bug")])
async def test_no_error_ends_the_process(error: Exception) -> None:
    guard = CampaignGuard(guard=ScriptedGuard(error), rule=RULE, observer=Observed())
    with structlog.testing.capture_logs() as logs:
        assert await guard.run_once() == 0
    assert [entry["event"] for entry in logs] == ["campaign_guard_failed"]
