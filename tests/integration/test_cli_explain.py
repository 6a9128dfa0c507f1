"""`notifier explain` against the real API, whose explanations stand in a list."""

from __future__ import annotations

import json
import os
import pty
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from notifier.api.http.server import open_server
from notifier.domain.explanation.facts import (
    Ahead,
    Blocker,
    BlockerKind,
    Expected,
    Explanation,
    Subject,
)
from notifier.domain.notification import NotificationId, Status
from notifier.ports.queries import View
from tests.builders import EMAIL_LOW, new_id
from tests.integration.test_cli_api import Cli
from tests.unit.fakes_api import MemoryStore, make_api

NOW: Final = datetime(2030, 1, 31, 18, 42, 7, tzinfo=UTC)
ID: Final = new_id()
WAITS: Final = Explanation(
    subject=Subject(
        id=ID,
        status=Status.QUEUED,
        queue=EMAIL_LOW,
        as_of_at=NOW,
        expires_at=NOW + timedelta(days=3),
    ),
    blockers=[
        Blocker(
            kind=BlockerKind.PAUSE,
            name="queue:email.low",
            until_at=NOW + timedelta(minutes=1),
            detail="by key:8Rk2vQ0ZpLx1: wrong newsletter",
        )
    ],
    ahead=Ahead(0, is_exact=True, at_most=0),
    expected=Expected(NOW + timedelta(minutes=1), None),
)
WATCH: Final = ("--watch", "--every", "0.05")


def ended(status: Status) -> Explanation:
    return Explanation(subject=replace(WAITS.subject, status=status))


class Explained(MemoryStore):
    """Explains one notification: each time by the next explanation, then by the last one again."""

    def __init__(self) -> None:
        super().__init__()
        self.explanations = [WAITS]
        self.asked = 0

    async def explain(
        self,
        id: NotificationId,  # noqa: A002 the port's word
        view: View,
    ) -> Explanation | None:
        del view
        if id != ID:
            return None
        self.asked += 1
        return self.explanations[min(self.asked, len(self.explanations)) - 1]


@pytest.fixture
def explained() -> Explained:
    return Explained()


@pytest.fixture
async def cli(explained: Explained, tmp_path: Path) -> AsyncIterator[Cli]:
    async with open_server(make_api(explained), host="127.0.0.1", port=0, grace_s=5) as port:
        yield Cli(f"http://127.0.0.1:{port}", tmp_path)


async def test_explain_prints_what_holds_a_notification(cli: Cli) -> None:
    done = await cli.run("explain", str(ID))
    assert (done.code, done.err) == (0, "")
    first, pause, last = done.out.splitlines()
    assert first == "queued on email.low, not sent yet:"
    assert pause.split()[:3] == ["pause", "queue", "email.low,"]
    assert last.startswith("expected not before 18:43:07")


async def test_explain_prints_the_document_of_the_api(cli: Cli) -> None:
    document = json.loads((await cli.run("explain", str(ID), "--json")).out)
    assert document["id"] == str(ID)
    assert document["ahead"] == {"count": 0, "is_exact": True}
    assert document["expected"] == {"earliest_at": "2030-01-31T18:43:07Z", "latest_at": None}
    assert document["blockers"] == [
        {
            "kind": "pause",
            "name": "queue:email.low",
            "until_at": "2030-01-31T18:43:07Z",
            "detail": "by key:8Rk2vQ0ZpLx1: wrong newsletter",
        }
    ]


@pytest.mark.parametrize(
    ("status", "code"), [(Status.SENT, 0), (Status.FAILED, 1), (Status.CANCELLED, 1)]
)
@pytest.mark.parametrize("as_json", [False, True])
async def test_watching_ends_when_the_notification_has_ended(
    cli: Cli, explained: Explained, status: Status, code: int, as_json: bool
) -> None:
    explained.explanations = [WAITS, WAITS, ended(Status.SENDING), ended(status)]
    done = await cli.run("explain", str(ID), *WATCH, *["--json"] * as_json)
    assert (done.code, done.err, explained.asked) == (code, "", 4)
    last = f'"status": "{status}"' if as_json else f"{status}: it does not wait"
    assert done.out.count(last) == 1


async def test_watching_on_a_terminal_updates_the_text_in_its_place(
    cli: Cli, explained: Explained
) -> None:
    explained.explanations = [WAITS, ended(Status.SENT)]
    controller, terminal = pty.openpty()
    try:
        done = await cli.run("explain", str(ID), *WATCH, out=terminal)
        output = os.read(controller, 65_536).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"wrong newsletter.*\x1b\[1A.*sent: it does not wait", output, re.DOTALL)


@pytest.mark.parametrize(
    ("which", "code", "error"),
    [("0192f0c1-0000-7000-8000-000000000000", 1, "the API answered 404"), ("x", 2, "x")],
)
async def test_an_unknown_id_ends_with_1_and_what_is_none_with_2(
    cli: Cli, which: str, code: int, error: str
) -> None:
    done = await cli.run("explain", which)
    assert (done.code, done.out) == (code, "")
    assert error in done.err
