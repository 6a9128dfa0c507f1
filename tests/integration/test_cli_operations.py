"""`notifier cancel`, `retry` and `operations` against the real API, with operations in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from notifier.api.http.server import open_server
from notifier.domain.lookups import LookupRules
from notifier.domain.operations import Operation, OperationKind, OperationStatus
from notifier.ports.operations import Counted
from tests.integration.test_cli_api import Cli
from tests.unit.fakes_api import MemoryStore, make_api, make_rules
from tests.unit.fakes_operations import MemoryOperations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from notifier.ports.keys import Author
    from notifier.ports.operations import NewOperation, OperationRefusal, Replay

SALE = ("--tag", "sale", "--note", "wrong price")


class EndedOperations(MemoryOperations):
    """Operations that are finished at once. `counted` is what a dry run answers."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.counted = Counted(3, is_exact=True, sample=[])
        self.failed = 0

    async def count(self, new: NewOperation) -> Counted:
        self.asked.append(new)
        return self.counted

    async def create(
        self, new: NewOperation, author: Author
    ) -> Operation | Replay | OperationRefusal:
        made = await super().create(new, author)
        if not isinstance(made, Operation):
            return made
        done = 3 - self.failed
        ended = replace(made, status=OperationStatus.FINISHED, matched=3, done=done)
        ended = replace(ended, failed=self.failed)
        self.stored[ended.id] = ended
        return ended


@pytest.fixture
def operations() -> EndedOperations:
    return EndedOperations()


@pytest.fixture
async def cli(operations: EndedOperations, tmp_path: Path) -> AsyncIterator[Cli]:
    rules = make_rules(lookups=LookupRules(tag=True))
    app = make_api(MemoryStore(), rules, operations=operations)
    async with open_server(app, host="127.0.0.1", port=0, grace_s=5) as port:
        yield Cli(f"http://127.0.0.1:{port}", tmp_path)


async def test_what_matches_is_shown_and_changed(cli: Cli, operations: EndedOperations) -> None:
    done = await cli.run("cancel", *SALE, "--yes")
    assert (done.code, done.err) == (0, "")
    found, ended = done.out.splitlines()
    assert found == "3 notifications match"
    assert ended.endswith("finished  3 matched  3 cancelled")
    dry, made = operations.asked
    assert (dry.kind, dry.selection.tag, dry.selection) == (
        OperationKind.CANCEL,
        ("sale",),
        made.selection,
    )


async def test_many_need_yes_without_a_terminal(cli: Cli, operations: EndedOperations) -> None:
    done = await cli.run("cancel", *SALE)
    assert (done.code, "--yes" in done.err) == (2, True)
    assert not operations.stored


@pytest.mark.parametrize("matched", [0, 1, 2000])
async def test_a_count_that_ended_at_its_limit_is_no_reason_to_stop_or_not_to_ask(
    cli: Cli, operations: EndedOperations, matched: int
) -> None:
    operations.counted = Counted(matched, is_exact=False, sample=[])
    refused = await cli.run("cancel", *SALE)
    assert (refused.code, f"at least {matched:,}" in refused.err) == (2, True)
    assert not operations.stored
    done = await cli.run("cancel", *SALE, "--yes")
    assert done.code == 0
    assert done.out.startswith(f"at least {matched:,} notifications match\n")
    assert len(operations.stored) == 1


async def test_nothing_is_changed_if_nothing_matches(cli: Cli, operations: EndedOperations) -> None:
    operations.counted = Counted(0, is_exact=True, sample=[])
    done = await cli.run("retry", *SALE)
    assert (done.code, done.out) == (0, "0 notifications match\n")
    printed = await cli.run("retry", *SALE, "--json")
    assert json.loads(printed.out)["matched"] == 0
    assert not operations.stored


async def test_a_dry_run_needs_no_note_and_changes_nothing(
    cli: Cli, operations: EndedOperations
) -> None:
    done = await cli.run("cancel", "--tag", "sale", "--dry-run")
    assert (done.code, done.out) == (0, "3 notifications match\n")
    assert not operations.stored


async def test_several_ids_may_be_limited_by_their_status(
    cli: Cli, operations: EndedOperations
) -> None:
    ids = [str(uuid4()) for _ in range(2)]
    words = ("--status", "cancelled", "--note", "a mistake", "--yes", "--json")
    done = await cli.run("retry", *ids, *words)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["filter"] == {"status": ["cancelled"], "ids": ids}
    assert operations.asked[-1].selection.status == ("cancelled",)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("cancel",), "expected ids or filters"),
        (("cancel", str(uuid4()), "--tag", "sale"), "either ids or filters"),
        (("cancel", "--tag", "sale", "--yes"), "--note"),
        (("cancel", "--tag", "sale", "--note", "  ", "--yes"), "--note"),
        (("cancel", "--reason", "refused"), "--reason"),
        (("retry", "--tag", "sale", "--note", "x", "--rate", "0"), "--rate"),
        (("operations", "--stop"), "need the id"),
    ],
)
async def test_what_cannot_be_meant_is_misuse(
    cli: Cli, words: tuple[str, ...], expected: str
) -> None:
    done = await cli.run(*words)
    assert (done.code, expected in done.err) == (2, True), done.err


async def test_a_failure_of_some_is_an_exit_code(cli: Cli, operations: EndedOperations) -> None:
    operations.failed = 1
    done = await cli.run("cancel", *SALE, "--yes")
    assert (done.code, "2 cancelled  1 failed" in done.out) == (1, True)


async def test_operations_are_listed_shown_and_stopped(
    cli: Cli, operations: EndedOperations
) -> None:
    await cli.run("cancel", *SALE, "--yes")
    (made,) = operations.stored.values()
    listed = await cli.run("operations")
    assert str(made.id) in listed.out
    shown = await cli.run("operations", str(made.id), "--watch")
    assert shown.out == f"operation {made.id} finished  3 matched  3 cancelled\n"
    stopped = await cli.run("operations", str(made.id), "--stop", "--json")
    assert json.loads(stopped.out)["status"] == "finished"
    unknown = await cli.run("operations", str(uuid4()))
    assert (unknown.code, "no operation with this id" in unknown.err) == (1, True)


async def test_a_recipient_is_erased_and_not_shown(cli: Cli, operations: EndedOperations) -> None:
    who = ("--recipient", "ada@example.com")
    refused = await cli.run("erase", *who, "--note", "by letter")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    done = await cli.run("erase", *who, "--note", "by letter", "--channel", "email", "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].endswith("finished  3 matched  3 erased")
    assert "ada" not in done.out
    made = operations.asked[-1]
    assert (made.kind, made.selection.recipient) == (OperationKind.ERASE, ("ada@example.com",))


async def test_a_recipient_without_notifications_is_erased_all_the_same(
    cli: Cli, operations: EndedOperations
) -> None:
    operations.counted = Counted(0, is_exact=True, sample=[])
    who = ("--recipient", "ada@example.com", "--note", "by letter")
    assert (await cli.run("erase", *who, "--dry-run")).out == "0 notifications match\n"
    assert not operations.stored
    assert (await cli.run("erase", *who, "--yes")).code == 0
    assert len(operations.stored) == 1
