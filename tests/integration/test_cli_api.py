"""The commands that call the API, against the real API with a store in memory."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import pty
import re
import shlex
import sys
import termios
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import IO

import pytest

from notifier.api.http.server import open_server
from notifier.domain.blobs import blob_id
from notifier.domain.controls import BreakerState
from notifier.domain.errors import StoreRejected, StoreUnavailable
from notifier.domain.idempotency import IdempotencyKey
from notifier.domain.notification import (
    AttemptView,
    NewNotification,
    NotificationId,
    NotificationView,
    ResultView,
    Status,
)
from notifier.ports.queries import ALL_LIVE, Filter, Page, QueueState, View, WorkerState
from tests.unit.fakes_api import MemoryStore, make_api, make_rules


class Memory:
    """Stores submits. Reading a notification marks it as sent or, by its recipient, as refused."""

    def __init__(self) -> None:
        self.rows: dict[NotificationId, NotificationView] = {}
        self.is_down = False

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Status | StoreRejected]:
        if self.is_down:
            raise StoreUnavailable("away")
        for item in items:
            now = datetime.now(UTC)
            self.rows[item.id] = NotificationView(
                id=item.id,
                status=Status.QUEUED,
                queue=item.queue,
                recipient=item.recipient,
                content=item.content,
                metadata=item.metadata,
                tries=0,
                max_tries=item.max_tries,
                last_error=None,
                created_at=now,
                updated_at=now,
                due_at=None,
                expires_at=now + item.ttl,
            )
        return [Status.QUEUED for _ in items]

    async def earlier(self, _: IdempotencyKey) -> None:
        """No key was used before."""

    async def get(
        self,
        id: NotificationId,  # noqa: A002 the port's word
        *,
        view: View = ALL_LIVE,  # noqa: ARG002 all rows are seen
        with_content: bool = False,
        with_receipts: bool = False,  # noqa: ARG002 there are none
    ) -> NotificationView | None:
        row = self.rows.get(id)
        if row is not None:
            self.rows[id] = _finished(row)
        return row if row is None or with_content else replace(row, content=None)

    async def templates_of(self, ids: Collection[NotificationId]) -> Mapping[NotificationId, None]:
        return dict.fromkeys(ids)

    async def notifications(self, selection: Filter) -> Page:
        newest_first = sorted(self.rows.values(), key=lambda row: row.id, reverse=True)
        rows = [
            row
            for row in newest_first
            if (selection.before is None or row.id < selection.before)
            and row.status in (selection.status or (row.status,))
        ]
        views = rows[: selection.limit]
        self.rows |= {row.id: _finished(row) for row in views}
        return Page(views=views, next_before=views[-1].id if len(rows) > len(views) else None)

    async def workers(self) -> Sequence[WorkerState]:
        return await MemoryStore().workers()


def _finished(row: NotificationView) -> NotificationView:
    if row.recipient.startswith("never"):
        return row
    is_refused = row.recipient.startswith("refuse")
    attempt = AttemptView(
        number=1,
        provider="smtp",
        outcome="refused" if is_refused else "accepted",
        code="550" if is_refused else "250",
        detail="[no such user]" if is_refused else "",
        queue_wait_s=0.25,
        started_at=row.created_at,
        finished_at=row.created_at,
        next_at=None,
        repeats=1,
        late=False,
    )
    return replace(
        row,
        status=Status.FAILED if is_refused else Status.SENT,
        tries=1,
        last_error="550 no such user" if is_refused else None,
        updated_at=row.created_at + timedelta(seconds=1.5),
        provider="smtp",
        reference=None if is_refused else "queued-1",
        result=ResultView(
            reason="refused" if is_refused else None,
            provider="smtp",
            code=attempt.code,
            detail=attempt.detail,
            at=row.created_at,
        ),
        attempts=(attempt,),
    )


class Board(MemoryStore):
    async def queues(self) -> Sequence[QueueState]:
        return [
            QueueState(
                queue="email.high",
                ready=3,
                due=4,
                consumers=5,
                busy=2,
                rate_per_s=12.5,
                oldest_wait_s=0.75,
                limited_by="rate",
                paused=False,
            )
        ]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Cli:
    """Runs commands as child processes. The API runs in this process."""

    url: str
    folder: Path

    async def run(self, *arguments: str, out: int | IO[str] = asyncio.subprocess.PIPE) -> Done:
        return await self._run(self._command(*arguments), out)

    async def run_into(self, reader: str, *arguments: str) -> Done:
        """Run `notifier ... | reader` in a shell."""
        line = f"{shlex.join(self._command(*arguments))} | {reader}"
        return await self._run(("sh", "-c", line), asyncio.subprocess.PIPE)

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "notifier", *arguments, "--url", self.url)

    async def _run(self, command: Sequence[str], out: int | IO[str]) -> Done:
        # Without COLUMNS and LINES the size is the terminal's own.
        environ = {
            name: text
            for name, text in os.environ.items()
            if "NOTIFIER" not in name and name not in {"COLUMNS", "LINES"}
        }
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env=environ,
            stdout=out,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            output, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, (output or b"").decode(), err.decode())


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
async def cli(memory: Memory, board: Board, tmp_path: Path) -> AsyncIterator[Cli]:
    rules = make_rules(providers=["smtp"])
    app = make_api(board, rules, acceptor=memory, reader=memory)
    async with open_server(app, host="127.0.0.1", port=0, grace_s=5) as port:
        yield Cli(f"http://127.0.0.1:{port}", tmp_path)


MAIL = ("send", "-c", "email", "-s", "Hello", "-b", "It works.")


async def test_send_prints_the_id_and_the_queue(cli: Cli, memory: Memory) -> None:
    done = await cli.run(*MAIL, "-t", "ada@example.com", "--priority", "high")
    (row,) = memory.rows.values()
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{row.id} queued on email.high\n"


async def test_send_submits_all_its_options(cli: Cli, memory: Memory) -> None:
    arguments = ("--data.code", "1", "--metadata.order", "7", "--ttl", "1m", "--json")
    done = await cli.run(*MAIL, "-t", "ada@example.com", *arguments)
    (row,) = memory.rows.values()
    assert json.loads(done.out)["id"] == str(row.id)
    assert json.loads(row.content or b"") == {
        "subject": "Hello",
        "body": "It works.",
        "data": {"code": "1"},
    }
    assert json.loads(row.metadata) == {"order": "7"}
    assert row.expires_at - row.created_at == timedelta(seconds=60)


async def test_list_prints_csv_with_every_field(cli: Cli) -> None:
    for _ in range(2):
        await cli.run(*MAIL, "-t", "ada@example.com", "--metadata.order", "=7")
    done = await cli.run("list", "--csv", "--limit", "1")
    (row,) = csv.DictReader(StringIO(done.out, newline=""))
    assert (row["recipient"], row["metadata"]) == ("ada@example.com", '{"order":"=7"}')
    assert row["result.reason"] == ""
    assert "more: --all" in done.err


async def test_send_submits_sender_and_files(cli: Cli, memory: Memory, tmp_path: Path) -> None:
    paths = [tmp_path / "invoice.pdf", tmp_path / "logo.png"]
    datas = [b"\0" * 1_000_000, b"small"]
    for path, data in zip(paths, datas, strict=True):
        path.write_bytes(data)
    arguments = ("--from", "Shop <shop@example.com>", "--reply-to", "help@example.com")
    files = ("--attach", str(paths[0]), "--attach", str(paths[1]))
    done = await cli.run(*MAIL, "-t", "Ada <ada@example.com>", *arguments, *files)
    assert (done.code, done.err) == (0, "")
    (row,) = memory.rows.values()
    content = json.loads(row.content or b"")
    assert content["from"] == "Shop <shop@example.com>"
    assert content["reply_to"] == ["help@example.com"]
    assert content["recipient_name"] == "Ada"
    assert [
        (each["filename"], each["content_type"], each["blob"]) for each in content["attachments"]
    ] == [
        ("invoice.pdf", "application/pdf", blob_id(datas[0])),
        ("logo.png", "image/png", blob_id(datas[1])),
    ]


async def test_send_names_a_file_that_it_cannot_read(cli: Cli, memory: Memory) -> None:
    done = await cli.run(*MAIL, "-t", "ada@example.com", "--attach", "absent.pdf")
    assert done.code == 2
    assert "--attach" in done.err
    assert "absent.pdf" in done.err
    assert not memory.rows


async def test_send_and_wait_shows_the_attempts_and_ends_with_0(cli: Cli) -> None:
    done = await cli.run(*MAIL, "-t", "ada@example.com", "--wait")
    assert done.code == 0
    assert "sent" in done.out
    assert "accepted" in done.out


async def test_send_accepts_a_ttl_below_a_second(cli: Cli, memory: Memory) -> None:
    done = await cli.run(*MAIL, "-t", "ada@example.com", "--ttl", "0.5")
    (row,) = memory.rows.values()
    assert (done.code, row.expires_at - row.created_at) == (0, timedelta(seconds=0.5))


async def test_a_notification_that_is_not_final_in_time_is_still_printed_as_json(cli: Cli) -> None:
    arguments = ("--wait", "--timeout", "0.01", "--json")
    done = await cli.run(*MAIL, "-t", "never@example.com", *arguments)
    assert done.code == 1
    assert json.loads(done.out)["status"] == "queued"
    assert "is still queued after 0.01 s" in done.err
    assert len(done.err.splitlines()) == 1


async def test_send_and_wait_ends_with_1_when_it_failed(cli: Cli) -> None:
    done = await cli.run(*MAIL, "-t", "refuse@example.com", "--wait")
    assert done.code == 1
    assert "[no such user]" in done.out


async def test_a_refusal_of_the_api_is_one_line(cli: Cli, memory: Memory) -> None:
    done = await cli.run(*MAIL, "-t", "nobody")
    assert done.code == 1
    assert "the API answered 400" in done.err
    assert "recipient" in done.err
    assert len(done.err.splitlines()) == 1
    assert not memory.rows


async def test_the_status_of_an_unknown_id_is_an_error(cli: Cli) -> None:
    done = await cli.run("status", "0192f0c1-0000-7000-8000-000000000000")
    assert done.code == 1
    assert "404" in done.err


async def test_status_prints_json(cli: Cli, memory: Memory) -> None:
    await cli.run(*MAIL, "-t", "ada@example.com", "--wait")
    (row,) = memory.rows.values()
    shown = json.loads((await cli.run("status", str(row.id), "--json")).out)
    assert shown["status"] == "sent"
    assert shown["attempts"][0]["queue_wait_s"] == 0.25


async def test_queues_shows_what_limits_them(cli: Cli) -> None:
    done = await cli.run("queues")
    heading, row = done.out.splitlines()
    assert heading.split()[:3] == ["queue", "ready", "due"]
    assert row.split() == ["email.high", "3", "4", "5", "2", "12.5", "0.750", "rate", "-"]


async def shown_at(columns: int, cli: Cli) -> list[str]:
    """The output lines of `queues` on a terminal of this width, without colours."""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    try:
        done = await cli.run("queues", out=terminal)
        output = os.read(controller, 65_536).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert (done.code, done.err) == (0, "")
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()]


async def test_a_wide_terminal_shows_every_column_of_the_queues(cli: Cli) -> None:
    heading, row = await shown_at(120, cli)
    assert heading.split()[-1] == "paused"
    assert row.split() == ["email.high", "3", "4", "5", "2", "12.5", "0.750", "rate", "-"]


async def test_a_narrow_terminal_shows_fewer_columns_without_wrapping(cli: Cli) -> None:
    *heading, row = await shown_at(40, cli)
    assert [line.split() for line in heading] == [
        ["ready", "con-", "limited"],
        ["queue", "+due", "sumers", "by"],
    ]
    assert row.split() == ["email.high", "7", "5", "rate"]


@pytest.mark.parametrize("lines", [1, 4])
async def test_watching_queues_prints_until_the_reader_ends(cli: Cli, lines: int) -> None:
    done = await cli.run_into(f"head -n {lines}", "queues", "--watch", "--every", "0.05")
    output = done.out.splitlines()
    assert (len(output), done.err) == (lines, "")
    assert {line.split()[0] for line in output[::2]} == {"queue"}
    assert {line.split()[0] for line in output[1::2]} <= {"email.high"}


async def test_watching_queues_as_json_ends_with_its_reader(cli: Cli) -> None:
    done = await cli.run_into("head -n 1", "queues", "--watch", "--every", "0.05", "--json")
    assert (done.out, done.err) == ("{\n", "")


@pytest.mark.parametrize("arguments", [("queues",), ("queues", "--json"), (*MAIL, "-t", "a@b.com")])
async def test_an_output_that_cannot_be_written_is_one_line(
    cli: Cli, arguments: Sequence[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        done = await cli.run(*arguments, out=full)
    assert done.code == 1
    assert "No space left on device" in done.err
    assert len(done.err.splitlines()) == 1


async def test_queues_prints_json(cli: Cli) -> None:
    (queue,) = json.loads((await cli.run("queues", "--json")).out)["items"]
    assert (queue["queue"], queue["limited_by"]) == ("email.high", "rate")


@pytest.mark.parametrize("batch", ["1", "64"])
async def test_load_submits_all_waits_for_all_and_reports(
    cli: Cli, memory: Memory, batch: str
) -> None:
    arguments = ("-n", "450", "--batch", batch, "--mix", "email.high=2,email.low=1")
    done = await cli.run("load", *arguments, "--fates", "ok=8,refuse=2", "--json")

    assert done.code == 0, done.err
    report = json.loads(done.out)
    refused = sum(row.recipient.startswith("refuse") for row in memory.rows.values())
    assert len(memory.rows) == 450
    assert report["responses"] == {"202": 450}
    assert sum(queue["statuses"]["failed"] for queue in report["queues"]) == refused
    assert sum(queue["statuses"]["sent"] for queue in report["queues"]) == 450 - refused
    assert {queue["queue"] for queue in report["queues"]} == {"email.high", "email.low"}
    assert report["queues"][0]["end_to_end_s"]["p99"] == 1.5


async def test_load_without_wait_only_submits(cli: Cli, memory: Memory) -> None:
    done = await cli.run("load", "-n", "20", "--no-wait", "--rate", "500", "--poisson")
    assert done.code == 0
    assert "202" in done.out
    assert {row.status for row in memory.rows.values()} == {Status.QUEUED}
    assert {str(row.queue.channel) for row in memory.rows.values()} == {"email", "sms", "push"}


async def test_load_counts_refusals_and_ends_with_1(cli: Cli, memory: Memory) -> None:
    memory.is_down = True
    done = await cli.run("load", "-n", "10", "--json")
    assert done.code == 1
    assert json.loads(done.out)["responses"] == {"503": 10}


async def test_a_queue_is_paused_for_a_while_and_resumed(cli: Cli) -> None:
    done = await cli.run("pause", "email.low", "--for", "1h30m", "--note", "flood")
    assert (done.code, done.out, done.err) == (0, "queue email.low paused for 1h30m\n", "")
    done = await cli.run("resume", "email.low")
    assert done.out == "queue email.low resumed\n"
    done = await cli.run("resume", "email.low")
    assert done.out == "queue email.low was not paused\n"


async def test_a_long_pause_is_printed_in_days(cli: Cli) -> None:
    assert (await cli.run("pause", "push", "--for", "30d")).out == "channel push paused for 30d\n"


async def test_a_channel_and_a_provider_are_paused_until_resumed(cli: Cli, board: Board) -> None:
    assert (await cli.run("pause", "sms")).out == "channel sms paused until resumed\n"
    done = await cli.run("pause", "--provider", "smtp", "--note", "new password")
    assert done.out == "provider smtp paused until resumed\n"
    assert {str(scope): pause.note for scope, pause in board.paused.items()} == {
        "channel:sms": "",
        "provider:smtp": "new password",
    }
    done = await cli.run("resume", "--provider", "smtp")
    assert (done.code, done.out) == (0, "provider smtp resumed\n")


async def test_pause_and_resume_print_json(cli: Cli) -> None:
    done = await cli.run("pause", "sms.low", "--for", "90", "--note", "flood", "--json")
    assert json.loads(done.out) == {
        "kind": "queue",
        "name": "sms.low",
        "note": "flood",
        "paused_at": "2030-01-31T08:00:00Z",
        "expires_at": "2030-01-31T08:01:30Z",
        "matches": True,
    }
    done = await cli.run("resume", "sms.low", "--json")
    assert json.loads(done.out) == {"was_paused": True}


async def test_pauses_are_listed_with_their_note_and_end(cli: Cli) -> None:
    assert (await cli.run("pauses")).out.split() == ["kind", "name", "since", "until", "note"]
    await cli.run("pause", "sms.low", "--for", "90", "--note", "flood")
    _, row = (await cli.run("pauses")).out.splitlines()
    assert row.split() == [
        *("queue", "sms.low", "2030-01-31T08:00:00Z", "2030-01-31T08:01:30Z", "flood", "-")
    ]
    (pause,) = json.loads((await cli.run("pauses", "--json")).out)["items"]
    assert (pause["name"], pause["note"]) == ("sms.low", "flood")


async def test_a_tenant_is_paused_and_resumed(cli: Cli, board: Board) -> None:
    assert (await cli.run("pause", "--tenant", "shop")).out == "tenant shop paused until resumed\n"
    assert [str(scope) for scope in board.paused] == ["tenant:shop"]
    assert (await cli.run("resume", "--tenant", "shop")).out == "tenant shop resumed\n"
    assert (await cli.run("pause", "--tag", "a/b")).out == "tag a/b paused until resumed\n"
    assert (await cli.run("resume", "--tag", "a/b")).out == "tag a/b resumed\n"


async def test_quiet_hours_are_set_shown_and_removed(cli: Cli) -> None:
    quiet = ("tenants", "quiet", "shop")
    line = "tenant shop is quiet from 21:00 to 08:00, Europe/Berlin\n"
    given = ("--start", "21:00", "--end", "08:00", "--time-zone", "Europe/Berlin")
    assert (await cli.run(*quiet, *given)).out == line
    assert (await cli.run(*quiet)).out == line
    shown = json.loads((await cli.run(*quiet, "--json")).out)
    assert (shown["tenant"], shown["start"], shown["end"]) == ("shop", "21:00", "08:00")
    assert (await cli.run(*quiet, "--off")).out == "removed\n"
    assert (await cli.run(*quiet, "--off")).out == "there were none\n"


async def test_workers_are_listed(cli: Cli) -> None:
    heading, row = (await cli.run("workers")).out.splitlines()
    assert heading.split() == [
        *("kind", "host", "pid", "version", "started", "heartbeat", "consumers", "busy", "lacks")
    ]
    assert row.split()[:4] == ["worker", "node-1", "17", "0.2.0"]
    assert row.split()[-1] == "copies"
    (worker,) = json.loads((await cli.run("workers", "--json")).out)["items"]
    assert worker["pid"] == 17


async def submitted(cli: Cli, memory: Memory, *recipients: str) -> list[str]:
    """Submit one notification to each recipient and wait until all are final; returns the ids."""
    for recipient in recipients:
        await cli.run(*MAIL, "-t", f"{recipient}@example.com", "--wait")
    return [str(id_) for id_ in memory.rows]


async def test_list_shows_notifications_by_status_newest_first(cli: Cli, memory: Memory) -> None:
    first, sent, last = await submitted(cli, memory, "refuse", "ada", "refuse")
    done = await cli.run("list", "--status", "failed")
    assert (done.code, done.err) == (0, "")
    heading, *rows = done.out.splitlines()
    assert heading.split() == ["id", "status", "queue", "recipient", "reason", "code", "ended"]
    assert [row.split()[0] for row in rows] == [last, first]
    assert rows[0].split()[1:6] == [
        *("failed", "email.medium", "refuse@example.com", "refused", "550")
    ]
    page = json.loads((await cli.run("list", "--status", "sent,failed", "--json")).out)
    assert [row["id"] for row in page["items"]] == [last, sent, first]
    assert page["next_cursor"] is None


async def test_list_reads_as_many_pages_as_are_wanted(cli: Cli, memory: Memory) -> None:
    await cli.run("load", "-n", "450", "--batch", "450", "--no-wait")
    *shown, more = (await cli.run("list")).out.splitlines()
    assert (len(shown), more) == (1 + 50, "more: --all")
    few = json.loads((await cli.run("list", "--limit", "3", "--json")).out)
    assert (len(few["items"]), few["next_cursor"] is None) == (3, False)
    every = json.loads((await cli.run("list", "--all", "--json")).out)
    newest_first = sorted(map(str, memory.rows), reverse=True)
    assert [row["id"] for row in every["items"]] == newest_first
    assert every["next_cursor"] is None
    assert len(json.loads((await cli.run("list", "--limit", "300", "--json")).out)["items"]) == 300


async def test_list_says_which_filters_are_wrong_in_one_line(cli: Cli) -> None:
    done = await cli.run("list", "--status", "gone", "--priority", "urgent")
    assert (done.code, done.out) == (1, "")
    assert "?status: expected one of" in done.err
    assert "?priority: expected one of" in done.err
    assert done.err.count("\n") == 1


async def test_status_shows_the_result_and_the_content_if_it_is_wanted(
    cli: Cli, memory: Memory
) -> None:
    (refused,) = await submitted(cli, memory, "refuse")
    shown = (await cli.run("status", refused)).out
    assert "refused 550 [no such user]" in shown
    assert "It works." not in shown
    assert "It works." in (await cli.run("status", refused, "--content")).out
    document = json.loads((await cli.run("status", refused, "--content", "--json")).out)
    assert document["content"]["subject"] == "Hello"
    assert document["result"]["reason"] == "refused"


async def test_providers_show_their_breakers_and_pauses(cli: Cli) -> None:
    await cli.run("pause", "--provider", "smtp")
    heading, row = (await cli.run("providers")).out.splitlines()
    assert re.split("  +", heading.strip()) == [
        "provider",
        "channels",
        "breaker",
        "reason",
        "code",
        "probe at",
        "calls 10 s",
        "failed",
        "hangs",
        "paused",
    ]
    assert row.split() == [
        *(
            "smtp",
            "email",
            "open",
            "errors",
            "503",
            "2030-01-31T08:00:05Z",
            "20",
            "11",
            "-",
            "paused",
        )
    ]


async def test_the_table_hides_the_old_reason_of_a_closed_breaker(cli: Cli, board: Board) -> None:
    board.breaker = BreakerState.CLOSED
    _, row = (await cli.run("providers")).out.splitlines()
    assert row.split() == ["smtp", "email", "closed", "-", "-", "-", "20", "11", "-", "-"]
    (shown,) = json.loads((await cli.run("providers", "--json")).out)["items"]
    assert (shown["breaker"], shown["reason"]) == ("closed", "errors")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("pause",), 2, "expected one target"),
        (("pause", ""), 2, "expected one target"),
        (("resume", "email", "--provider", "smtp"), 2, "expected one target"),
        (("pause", "email", "--tenant", "shop"), 2, "expected one target"),
        (("pause", "--tenant", "No Name"), 1, "404: There is no tenant 'No Name'."),
        (("tenants", "quiet", "shop", "--start", "21:00"), 2, "expected --start, --end and"),
        (("tenants", "quiet", "shop"), 1, "404: The tenant has no quiet hours."),
        (("pause", "email", "--for", "soon"), 2, "--for: got 'soon', expected a span such as 90s"),
        (("pause", "email", "--for", "1h30"), 2, "expected a span such as 90s"),
        (("pause", "email", "--for", "0"), 2, "expected a span such as 90s"),
        (("pause", "email", "--for", "31d"), 1, "400: for_s: expected a number <= 2592000.0"),
        (("pause", "email", "--note", "two\nlines"), 1, "400: note: expected one line"),
        (("pause", "email.urgent"), 1, "404: There is no queue 'email.urgent'. There are: email."),
        (("resume", "fax"), 1, "404: There is no channel 'fax'. There are: email, sms, push."),
        (("resume", "--provider", "a/b"), 1, "404"),
        (("pause", ".."), 1, "405"),
    ],
)
async def test_an_invalid_pause_is_one_line(
    cli: Cli, board: Board, arguments: Sequence[str], code: int, message: str
) -> None:
    done = await cli.run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert board.paused == {}


@pytest.mark.parametrize("arguments", [("pause", "email"), ("resume", "email"), ("providers",)])
async def test_without_postgres_the_error_is_one_line(
    cli: Cli, board: Board, arguments: Sequence[str]
) -> None:
    board.error = StoreUnavailable("away")
    done = await cli.run(*arguments)
    assert (done.code, done.out) == (1, "")
    assert "the API answered 503" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "command", ["pause", "resume", "pauses", "providers", "list", "workers", "explain"]
)
async def test_each_command_has_a_help_page(cli: Cli, command: str) -> None:
    done = await cli.run(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"notifier {command}" in done.out
