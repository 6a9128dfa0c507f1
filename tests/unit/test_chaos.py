"""What the judge of `make chaos` makes of rows and of the sandbox's log, and what is kept of it."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest

from notifier.domain.errors import StoreUnavailable
from notifier.domain.outcome import Accepted, Outcome, Throttled, Unavailable
from notifier.ports.broker import MAX_POINTERS_PER_MESSAGE, Message, Pointer
from notifier.ports.provider import Envelope
from notifier.ports.store import DueRead
from tests.builders import EMAIL_HIGH, new_id
from tests.chaos.events import broken_events
from tests.chaos.faults import ALL, FAULTS
from tests.chaos.judge import RIGHT, Row, full_rate_after_s, judge, recovery_s
from tests.chaos.load import FATES, HOPELESS
from tests.chaos.page import TEMPLATE, text
from tests.chaos.playing import SEEDS_APART, missing, plan
from tests.chaos.results import Code, Result, keep, newest, played_on, present_code, versions
from tests.chaos.stops import Broken, BrokenBroker, BrokenSubscription, Trigger
from tests.chaos.table import line
from tests.chaos.trace import Key, Kind, Trace, TraceWriter, answer_file, keys_of
from tests.chaos.traced import FAST, FULL, PROVIDER, Answer, TracedBroker, TracedProvider

TESTS = Path(__file__).parents[1]
AT = datetime(2030, 1, 1, tzinfo=UTC)


def call(which: str, *, accepted: bool = True) -> dict[str, object]:
    return {"notification_id": which, "at": AT, "accepted": accepted}


def row(
    status: str = "sent", *, at: float = 0, is_ambiguous: bool = False, attempts: int = 1
) -> Row:
    return Row(status=status, at=at, is_ambiguous=is_ambiguous, attempts=attempts)


def event(number: int, which: str, status: str) -> dict[str, Any]:
    return {"id": f"e{number}", "data": {"notification": {"id": which, "status": status}}}


def test_every_end_has_an_event_and_none_comes_twice() -> None:
    statuses = {"a": "sent", "b": "failed", "c": "queued"}
    events = [event(1, "a", "sent"), event(2, "b", "retrying"), event(3, "b", "failed")]
    events.append({"id": "e4", "data": {"breaker": {"provider": "smtp"}}})
    assert broken_events(events, statuses) == []
    assert broken_events(events[:2], statuses) == ["1 ended without an event, such as b failed"]
    assert broken_events([*events, events[0]], statuses) == ["1 events read twice, such as e1"]


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


def test_an_excused_failure_is_not_lost_once_it_is_final() -> None:
    accepted = dict.fromkeys("ab", "ok")
    rows = {"a": row("failed"), "b": row("queued")}
    assert judge(accepted, rows, [], excused={"a", "b"}).lost == {"b": "ok: still queued"}


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
    assert {*FATES, "poison"} == set(RIGHT)
    assert sum(FATES.values()) == 100
    assert sum(FATES[fate] for fate in HOPELESS) < 10


@pytest.mark.parametrize(
    "flaw",
    [{"lost": 1}, {"unmarked": 1}, {"recovery_s": 10.1}, {"recovery_s": None}, {"broke": "x"}],
)
def test_a_round_with_a_flaw_is_not_kept(flaw: dict[str, object]) -> None:
    assert result(doubled=3).is_kept
    assert not result(**flaw).is_kept


PRESENT = Code(digest="new", commit="abc")


def test_parts_of_a_run_add_up_for_the_present_code(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    assert newest(PRESENT, path) == {}
    for number, code in enumerate(("old", "new", "new", "old"), 1):
        keep(result(code=code, round=number, accepted=10, recovery_s=float(number)), path)
    keep(result(code="old", fault="other", recovery_s=inf), path)
    found = newest(PRESENT, path)
    assert list(found) == ["api_killed", "other"]
    assert list(played_on(PRESENT, path)) == ["api_killed"]
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


def git(root: Path, *words: str) -> None:
    name = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", "-C", root, *name, *words], check=True, capture_output=True)


def commit(root: Path, path: str, text: str) -> Code:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
    git(root, "add", path)
    git(root, "commit", "-m", f"change {path}")
    return present_code(root)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository like this one, with two files."""
    root = tmp_path / "clone"
    git(tmp_path, "init", "--initial-branch=main", str(root))
    commit(root, "notifier/cli/main.py", "1")
    commit(root, "tests/chaos/faults.py", "1")
    return root


@pytest.mark.parametrize("path", ["notifier/cli/main.py", "notifier/new.sql", "tests/chaos/new.py"])
def test_rounds_do_not_count_for_another_product_or_other_faults(clone: Path, path: str) -> None:
    before = present_code(clone)
    after = commit(clone, path, "2")
    assert before.digest != after.digest
    assert before.commit != after.commit
    (clone / path).write_text("3")
    assert not present_code(clone).is_committed


@pytest.mark.parametrize(
    "path", ["docs/design.md", "tests/unit/test_chaos.py", "tests/chaos/rounds.jsonl", "README.md"]
)
def test_rounds_count_while_only_other_files_change(clone: Path, path: str) -> None:
    before = present_code(clone)
    assert commit(clone, path, "2") == before
    (clone / path).write_text("3")
    assert present_code(clone) == before


def test_rounds_count_in_every_clone_of_the_same_files(clone: Path, tmp_path: Path) -> None:
    code = present_code(clone)
    commit(clone, "docs/design.md", "1")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--depth", "1", clone.as_uri(), str(shallow))
    assert present_code(shallow).digest == code.digest


def test_two_clones_that_each_played_a_part_are_merged(clone: Path, tmp_path: Path) -> None:
    path, other = "tests/chaos/rounds.jsonl", tmp_path / "other"
    commit(clone, ".gitattributes", (TESTS.parent / ".gitattributes").read_text())
    keep(result(code="new", round=1), clone / path)
    commit(clone, path, (clone / path).read_text())
    git(tmp_path, "clone", str(clone), str(other))
    for root, number in ((clone, 2), (other, 3)):
        keep(result(code="new", round=number), root / path)
        keep(result(code="new", fault=root.name), root / path)
        git(root, "commit", "--all", "-m", f"round {number}")
    git(clone, "pull", "--no-rebase", "--no-edit", str(other), "main")
    found = played_on(PRESENT, clone / path)
    assert sorted(each.round for each in found["api_killed"]) == [1, 2, 3]
    assert set(found) == {"api_killed", "clone", "other"}


def test_a_recorded_round_names_no_folder_of_its_machine(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    log = f'File "{tmp_path}/worker.py", line 3: GET http://127.0.0.1:8000/v1/health/ready'
    keep(result(broke=f"OSError: {path}", evidence=[log]), path)
    [kept] = newest(PRESENT, path)["api_killed"]
    assert kept.broke == "OSError: rounds.jsonl"
    assert kept.evidence == ['File "worker.py", line 3: GET http://127.0.0.1:8000/v1/health/ready']


def test_rounds_on_another_rabbitmq_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    keep(result(code="new"), path)
    keep(result(code="new", rabbitmq="4.3.6", accepted=7), path)
    assert versions(path) == ["4.3.6"]
    assert [each.accepted for each in newest(PRESENT, path)["api_killed"]] == [0]
    found = newest(PRESENT, path, rabbitmq="4.3.6")
    assert [each.accepted for each in found["api_killed"]] == [7]
    assert played_on(PRESENT, path, rabbitmq="4.3.6") == found
    page = text(newest(PRESENT, path), {"4.3.6": found})
    assert "\nRabbitMQ 4.3.6: 1 round of 1 fault on commit" in page


def test_a_round_is_played_once_with_a_seed() -> None:
    played = [result(round=1, seed=1), result(round=3, seed=1 + 2 * SEEDS_APART)]
    assert missing(4, 1, played) == [2, 4]
    assert missing(4, 2, played) == [1, 2, 3, 4]


def test_what_is_recorded_and_what_is_to_be_played_is_printed_at_the_start() -> None:
    played = {"api_killed": [result(), result(round=2, lost=1)], "worker_killed": [result()]}
    assert plan({"api_killed": 4, "rabbitmq_killed": 2}, 1, played) == [
        "recorded and kept: 2 rounds; to play: 4",
        "  api_killed: 2 recorded, BROKEN, 2 to play",
    ]


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


async def test_a_read_counts_its_rows() -> None:
    class Inner:
        async def read_due(self, _: object) -> DueRead:
            return DueRead(rows=rows, now=AT, oldest_running=1, next_transaction=2)

    rows = list[Any]()
    store = Broken(Inner(), Trigger("read_due:after", how="raise", items=2))
    assert (await store.read_due([1, 2, 3])).rows == []
    rows += ["one", "two"]
    with pytest.raises(StoreUnavailable):
        await store.read_due([1])


async def test_an_urgent_claim_is_a_claim_too() -> None:
    class Inner:
        async def claim_urgent(self, requests: list[int]) -> list[int]:
            return requests

    store = Broken(Inner(), Trigger("claim:after", how="raise", items=3))
    assert await store.claim_urgent([1, 2]) == [1, 2]
    with pytest.raises(StoreUnavailable):
        await store.claim_urgent([3])


def test_an_ack_counts_the_pointers_of_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inner:
        def ack(self, message: Message) -> None:
            acked.append(message)

    acked, struck = list[Message](), list[int]()
    trigger = Trigger("ack:before", how="kill", items=5)
    monkeypatch.setattr(trigger, "strike", lambda: struck.append(len(acked)))
    pointer = Pointer(queue=EMAIL_HIGH, id=new_id(), claim=0, published_at=0.0)
    for _ in range(3):
        message = Message([pointer, pointer], redelivered=False, tag=None)
        BrokenSubscription(Inner(), trigger).ack(message)
    assert struck == [2]
    assert len(acked) == 3


def test_a_trace_is_read_from_its_start_and_without_a_line_that_is_being_written(
    tmp_path: Path,
) -> None:
    trace, writer = Trace(tmp_path / "trace"), TraceWriter(tmp_path / "trace")
    writer.write(Kind.CALLED, "fcm", [Key("old", 1)])
    trace.start()
    writer.write(Kind.CLAIMED, keys=[Key("a", 1), Key("b", 2)])
    with trace.path.open("a") as file:
        file.write('{"at":')
    assert keys_of(trace.events(), Kind.CLAIMED, Kind.CALLED, pid=os.getpid()) == {
        Key("a", 1),
        Key("b", 2),
    }
    with trace.path.open("a") as file:
        file.write('1,"pid":7,"kind":"called","keys":[["a",1]]}\n')
    assert keys_of(trace.events(), Kind.CLAIMED) - keys_of(trace.events(), Kind.CALLED) == {
        Key("b", 2)
    }


@pytest.mark.parametrize(
    ("answer", "outcome", "kinds"),
    [
        (Answer.AS_USUAL, Accepted(), [Kind.CALLED, Kind.ACCEPTED]),
        (Answer.THROTTLE, Throttled(code="429"), [Kind.CALLED, Kind.THROTTLED]),
        (Answer.UNAVAILABLE, Unavailable(code="503"), [Kind.CALLED]),
    ],
)
async def test_the_traced_provider_answers_as_it_is_told(
    answer: Answer, outcome: Outcome, kinds: list[Kind], tmp_path: Path
) -> None:
    class Inner:
        name = PROVIDER

    trace = Trace(tmp_path / "trace")
    trace.set_answer(answer)
    provider = TracedProvider(Inner(), TraceWriter(trace.path), answer_file(trace.path))  # type: ignore[arg-type]
    envelope = Envelope(
        id=new_id(), claim=3, queue=FULL, recipient=f"{FAST}0", content={"body": "World"}
    )
    assert await provider.send(envelope) == outcome
    assert [event.kind for event in trace.events()] == kinds
    assert keys_of(trace.events(), *Kind) == {Key(str(envelope.id), 3)}


async def test_messages_of_the_backlog_are_full_however_slow_its_queue_is(tmp_path: Path) -> None:
    given = list[object]()

    class Inner:
        async def publish(self, _: object, max_batch: object) -> list[bool]:
            given.append(max_batch)
            return []

    broker = TracedBroker(Inner(), TraceWriter(tmp_path / "trace"))
    await broker.publish([], {FULL: 1, EMAIL_HIGH: 2})
    assert given == [{FULL: MAX_POINTERS_PER_MESSAGE, EMAIL_HIGH: 2}]


def test_every_fault_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len(FAULTS) == len(ALL)
    assert [fault.name for fault in ALL if not fault.text.endswith(".")] == []


def test_the_page_has_a_line_and_a_sentence_for_every_fault_that_was_played() -> None:
    rounds = [result(accepted=70, final=70, code="new", commit="abc")]
    page = text({"api_killed": rounds, "worker_killed": [result(commit="old")] * 2})
    assert "1 round of 1 fault on commit `abc` (files `new`); 2 rounds of 1 fault on" in page
    assert "| api_killed | 1 | 70 | 70 | 0 | 0 | 0 | 0 | 1.0 | 1.0 | 10 | `abc` |" in page
    assert f"| `api_killed` | {FAULTS['api_killed'].text} |" in page


def test_the_tests_that_hold_what_it_found_exist() -> None:
    held = re.findall(r"`(\w+/test_\w+\.py)` `(test_\w+)`", TEMPLATE.read_text())
    assert len(held) >= 13
    for file, name in held:
        source = (TESTS / file).read_text()
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), name
