"""What the judge of the trial with idempotency keys finds."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from tests.chaos.keyed import Answer, Ask, Body, Verdict, judge, requests

FIRST, OTHER = Ask("a"), Ask("a", Body.OTHER)
NEW = Answer(FIRST, 202, "1", "queued", is_replay=False)
REPLAY = Answer(FIRST, 202, "1", "queued", is_replay=True)
REFUSED = Answer(OTHER, 422)


def of(*answers: Answer, ids: tuple[str, ...] = ("1",), keys: int = 1) -> Verdict:
    return judge(answers, {"a": ids}, keys)


def test_one_notification_and_one_answer_for_each_key_is_right() -> None:
    verdict = of(NEW, REPLAY, REFUSED)
    assert verdict.is_kept
    assert (verdict.answers, verdict.replays, verdict.reused) == (3, 1, 1)


def test_the_other_body_may_have_been_first() -> None:
    assert of(Answer(OTHER, 202, "1", "queued", is_replay=True), Answer(FIRST, 422)).is_kept


def test_a_poisoned_twin_is_rejected_or_late() -> None:
    poisoned = Ask("a", Body.POISONED)
    assert of(Answer(poisoned, 400), NEW, Answer(poisoned, 422)).is_kept


@pytest.mark.parametrize(
    ("verdict", "broken"),
    [
        (of(NEW, ids=("1", "2")), "doubled"),
        (of(NEW, Answer(FIRST, 202, "2", "queued", is_replay=True), ids=("1",)), "differing"),
        (of(NEW, Answer(FIRST, 202, "1", "scheduled", is_replay=True)), "differing"),
        (of(NEW, Answer(OTHER, 202, "1", "queued", is_replay=True)), "differing"),
        (of(NEW, ids=("2",)), "without_row"),
        (of(NEW, NEW), "wrong"),
        (of(NEW, Answer(FIRST, 422)), "wrong"),
        (of(NEW, Answer(OTHER, 400)), "wrong"),
        (of(Answer(FIRST, 422)), "wrong"),
        (of(Answer(FIRST, 500)), "wrong"),
        (of(NEW, Answer(Ask("a", Body.POISONED), 202, "1", "queued")), "differing"),
        (of(NEW, keys=2), "keys_without_row"),
        (of(NEW, keys=0), "keys_without_row"),
    ],
)
def test_everything_else_is_broken(verdict: Verdict, broken: str) -> None:
    assert getattr(verdict, broken) > 0
    assert not verdict.is_kept


def test_each_key_comes_one_to_five_times_and_poisoned_twins_come_first() -> None:
    asked = requests(2000, Random(1))
    times = Counter(ask.key for asks in asked for ask in asks if ask.body is Body.FIRST)
    assert set(times.values()) >= {1, 2, 3, 4, 5}
    bodies = Counter(ask.body for asks in asked for ask in asks)
    assert bodies[Body.FIRST] > 20 * bodies[Body.OTHER] > 0
    batches = [asks for asks in asked if len(asks) > 1]
    assert all([ask.body for ask in asks[-2:]] == ["poisoned", "first"] for asks in batches)
    assert all(asks[-2].key == asks[-1].key for asks in batches)
    assert bodies[Body.POISONED] == len(batches) > 10
