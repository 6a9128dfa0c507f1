"""What the judge of `make chaos` makes of rows and of the sandbox's log, and what is kept of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import pytest

from tests.chaos.faults import ALL, FAULTS
from tests.chaos.judge import RIGHT, Row, full_rate_after_s, judge, recovery_s
from tests.chaos.load import FATES, HOPELESS
from tests.chaos.page import TEMPLATE, text
from tests.chaos.playing import SEEDS_APART, missing
from tests.chaos.results import Result, keep, played_on, read
from tests.chaos.stops import BrokenBroker, Trigger
from tests.chaos.table import line

TESTS = Path(__file__).parents[1]
AT = datetime(2030, 1, 1, tzinfo=UTC)


def call(which: str, *, accepted: bool = True) -> dict[str, object]:
    return {"notification_id": which, "at": AT, "accepted": accepted}


def row(
    status: str = "sent", *, at: float = 0, is_ambiguous: bool = False, attempts: int = 1
) -> Row:
    return Row(status=status, at=at, is_ambiguous=is_ambiguous, attempts=attempts)


def test_what_failed_because_no_provider_was_reached_is_not_lost() -> None:
    assert judge({"a": "down"}, {"a": row("failed")}, []).lost == {}


def result(**more: object) -> Result:
    given = {"fault": "api_killed", "round": 1, "seed": 1, "within_s": 10.0, "recovery_s": 1.0}
    return Result(**(given | more))  # type: ignore[arg-type]


def test_what_was_answered_and_sent_once_is_whole() -> None:
    verdict = judge({"a": "ok"}, {"a": row()}, [call("a")])
    assert (verdict.final, verdict.lost, verdict.doubled) == (1, {}, frozenset())


@pytest.mark.parametrize(
    ("fate", "found", "calls", "why"),
    [
        ("ok", None, [], "ok: no row"),
        ("ok", row("queued"), [], "ok: still queued"),
        ("ok", row("failed"), [call("a")], "ok: failed, expected sent"),
        ("ok", row(), [call("a", accepted=False)], "ok: sent and never accepted by the provider"),
        ("ok", row(), [], "ok: sent and never accepted by the provider"),
        ("down", row("failed", attempts=0), [], "down: failed and never attempted"),
        ("refuse", row(), [call("a")], "refuse: sent, expected failed"),
    ],
)
def test_a_loss_says_why(
    fate: str, found: Row | None, calls: list[dict[str, object]], why: str
) -> None:
    rows = {"a": found} if found else {}
    assert judge({"a": fate}, rows, calls).lost == {"a": why}


def test_a_double_must_be_marked_by_an_ambiguous_attempt_or_a_late_one() -> None:
    calls = [call(which) for which in "aabbcc"]
    late = Row(status="sent", at=0, is_late=True)
    rows = {"a": row(is_ambiguous=True), "b": row(), "c": late}
    verdict = judge(dict.fromkeys("abc", "ok"), rows, calls)
    assert verdict.doubled == {"a", "b", "c"}
    assert verdict.unmarked == {"b"}


def test_what_a_provider_takes_and_cuts_is_no_double_but_must_be_marked() -> None:
    verdict = judge({"a": "cut"}, {"a": row("failed")}, [call("a"), call("a")])
    assert verdict.doubled == frozenset()
    assert verdict.unmarked == {"a"}


def test_calls_of_others_are_nobodys_double() -> None:
    assert judge({}, {}, [call("a"), call("a")]).doubled == frozenset()


def recovered(which: str, **changed: Row) -> float:
    """From a fault that ended at 10; `new` was submitted since, the others before."""
    rows = {"held": row(at=17), "before": row(at=10.5), "new": row(at=12)} | changed
    asked_at = {"held": 1.0, "before": 1.0, "new": 11.0}
    return recovery_s(
        10, held={which}, asked_at=asked_at, accepted=dict.fromkeys(rows, "ok"), rows=rows
    )


def test_it_has_recovered_when_new_work_is_sent_and_all_that_was_held_is() -> None:
    assert recovered("held") == 7
    assert recovered("before") == 2
    assert recovered("held", held=row("queued")) == inf
    assert recovered("before", new=row("queued")) == inf


def test_the_retries_of_the_unlucky_are_no_part_of_a_recovery() -> None:
    accepted, asked_at = {"held": "flaky-2", "new": "ok"}, {"held": 1.0, "new": 11.0}
    rows = {"held": row(at=30), "new": row(at=12)}
    assert recovery_s(10, held={"held"}, asked_at=asked_at, accepted=accepted, rows=rows) == 2


def test_the_full_rate_is_back_where_a_whole_span_has_it() -> None:
    slow, fast = [float(second) for second in range(10)], [10 + tenth / 10 for tenth in range(100)]
    assert full_rate_after_s([*slow, *fast], 2, target=9, span_s=5) == 8
    assert full_rate_after_s(slow, 2, target=9, span_s=5) == inf
    assert full_rate_after_s([], 2, target=9, span_s=5) == inf


def test_every_fate_has_its_right_end_and_few_are_hopeless() -> None:
    assert set(FATES) == set(RIGHT)
    assert sum(FATES.values()) == 100
    assert sum(FATES[fate] for fate in HOPELESS) < 10


@pytest.mark.parametrize(
    "flaw",
    [{"lost": 1}, {"unmarked": 1}, {"recovery_s": 10.1}, {"recovery_s": None}, {"broke": "x"}],
)
def test_a_round_with_a_flaw_is_not_kept(flaw: dict[str, object]) -> None:
    assert result(doubled=3).is_kept
    assert not result(**flaw).is_kept


def test_parts_of_a_run_add_up_for_the_code_played_last(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    assert read(path) == {}
    for number, commit in enumerate(("old", "new", "new"), 1):
        keep(result(commit=commit, round=number, accepted=10, recovery_s=float(number)), path)
    keep(result(commit="old", fault="other", recovery_s=inf), path)
    keep(result(commit="new-dirty", accepted=10), path)
    found = read(path)
    assert list(found) == ["api_killed", "other"]
    assert list(played_on("old", path)) == ["other"]
    cells = line(found["api_killed"])
    assert (cells[0], cells[1], cells[2], *cells[-3:]) == (
        "api_killed",
        "2",
        "20",
        "2.5",
        "3.0",
        "10",
    )
    assert line(found["other"])[-2] == "never"


def test_a_round_is_played_once_with_a_seed() -> None:
    played = [result(round=1, seed=1), result(round=3, seed=1 + 2 * SEEDS_APART)]
    assert missing(4, 1, played) == [2, 4]
    assert missing(4, 2, played) == [1, 2, 3, 4]


def test_a_trigger_is_due_on_its_side_once_enough_has_passed() -> None:
    trigger = Trigger("claim:after", how="raise", items=5)
    due = [trigger.is_due(side, 3) for side in ("before", "after", "before", "after", "after")]
    assert due == [False, False, False, True, False]


async def test_a_publish_is_handed_on_whole_and_loses_its_answer() -> None:
    said = list[object]()

    class Inner:
        async def publish(self, *words: object) -> list[bool]:
            said.append(words)
            return [True]

    broker = BrokenBroker(Inner(), Trigger("publish:after", how="raise", items=2))
    assert [await broker.publish(["one"], {"a": 2}) for _ in range(2)] == [[True], [False]]
    assert said == [(["one"], {"a": 2})] * 2


def test_every_fault_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len(FAULTS) == len(ALL)
    assert [fault.name for fault in ALL if not fault.text.endswith(".")] == []


def test_the_page_has_a_line_and_a_sentence_for_every_fault_that_was_played() -> None:
    page = text({"api_killed": [result(accepted=70, final=70, commit="abc")]})
    assert "| api_killed | 1 | 70 | 70 | 0 | 0 | 0 | 0 | 1.0 | 1.0 | 10 | `abc` |" in page
    assert f"| `api_killed` | {FAULTS['api_killed'].text} |" in page


def test_the_tests_that_hold_what_it_found_exist() -> None:
    held = re.findall(r"`(\w+/test_\w+\.py)` `(test_\w+)`", TEMPLATE.read_text())
    assert len(held) >= 14
    for file, name in held:
        source = (TESTS / file).read_text()
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), name
