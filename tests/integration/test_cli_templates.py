"""`templates` and `send --template` against a real API over an in-memory store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from notifier.api.http.server import open_server
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.tenants import DEFAULT_TENANT
from tests.integration.test_cli_api import Cli
from tests.unit.fakes_api import MemoryStore, make_api


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def cli(store: MemoryStore, tmp_path: Path) -> AsyncIterator[Cli]:
    async with open_server(make_api(store), host="127.0.0.1", port=0, grace_s=5) as port:
        yield Cli(f"http://127.0.0.1:{port}", tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("order", "receipt"):
        texts = tmp_path / "texts" / name
        texts.mkdir(parents=True)
        (texts / "en.email.subject").write_text("Hello {{ name }}\n")
        (texts / "en.email.txt").write_text("Order {{ order.id }}\n")
    return tmp_path / "texts"


def versions(store: MemoryStore) -> dict[str, int]:
    return {
        name: len(saved) for (tenant, name), saved in store.templates.saved.items() if not tenant
    }


async def test_push_saves_what_differs_and_shows_it_first(
    cli: Cli, store: MemoryStore, folder: Path
) -> None:
    shown = await cli.run("templates", "push", str(folder), "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    files = "+en.email.subject +en.email.txt +template.toml"
    assert shown.out.splitlines() == [
        f"order  version 1: {files}",
        f"receipt  version 1: {files}",
    ]
    assert versions(store) == {}
    unasked = await cli.run("templates", "push", str(folder))
    assert (unasked.code, versions(store)) == (2, {})
    assert "--yes" in unasked.err
    pushed = await cli.run("templates", "push", str(folder), "--yes")
    assert pushed.out.splitlines()[2:] == ["order@1 saved", "receipt@1 saved"]
    again = await cli.run("templates", "push", str(folder))
    assert again.out == "order  unchanged, version 1\nreceipt  unchanged, version 1\n"
    (folder / "order/en.email.txt").write_text("Changed {{ order.id }}")
    one = await cli.run("templates", "push", str(folder))
    assert one.out.splitlines()[0] == "order  version 2: en.email.txt"
    assert (one.code, versions(store)) == (0, {"order": 2, "receipt": 1})


async def test_push_goes_on_after_a_template_that_is_refused(
    cli: Cli, store: MemoryStore, folder: Path
) -> None:
    (folder / "order/en.email.txt").write_text("{% if %}")
    pushed = await cli.run("templates", "push", str(folder), "--yes")
    assert (pushed.code, versions(store)) == (1, {"receipt": 1})
    assert "locales.en.email.body" in pushed.err
    assert "line 1" in pushed.err


async def test_list_and_show_print_what_is_saved(
    cli: Cli, store: MemoryStore, folder: Path
) -> None:
    await cli.run("templates", "push", str(folder), "--yes")
    listed = await cli.run("templates", "list")
    assert [line.split()[:3] for line in listed.out.splitlines()[1:]] == [
        ["order", "1", "email"],
        ["receipt", "1", "email"],
    ]
    shown = await cli.run("templates", "show", "order")
    assert shown.out.startswith("order@1\n--- en.email.subject\nHello {{ name }}\n")
    document = json.loads((await cli.run("templates", "show", "order@1", "--json")).out)
    assert document["locales"]["en"]["email"]["subject"] == "Hello {{ name }}"
    absent = await cli.run("templates", "show", "nobody")
    assert (absent.code, "404" in absent.err) == (1, True)
    assert (await cli.run("templates", "show", "No Name")).code == 2


async def test_preview_and_send_take_variables_from_options_and_a_file(
    cli: Cli, store: MemoryStore, folder: Path, tmp_path: Path
) -> None:
    await cli.run("templates", "push", str(folder), "--yes")
    (tmp_path / "sample.json").write_text('{"name": "Bob", "order": {"id": 17}}')
    options = ("--variables", "sample.json", "--var.name", "Ada")
    shown = await cli.run("templates", "preview", "order", *options)
    assert shown.out == (
        "email to ada@example.com, order@1 in en, 17 bytes\n"
        "--- subject\nHello Ada\n--- body\nOrder 17\n"
    )
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    start, end = (now - timedelta(hours=1)).time(), (now + timedelta(hours=1)).time()
    store.quiet[DEFAULT_TENANT] = QuietHours(start=start, end=end, time_zone="UTC")
    quiet = await cli.run("templates", "preview", "order", *options)
    until = (now + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    assert quiet.out.splitlines()[1] == f"would wait for the end of quiet hours: {until}"
    missing = await cli.run("templates", "preview", "order")
    assert (missing.code, "variables" in missing.err) == (1, True)
    to = ("-c", "email", "-t", "eve@example.com", "--template", "order@1", *options)
    preview = json.loads((await cli.run("send", *to, "--preview", "--json")).out)
    assert (preview["recipient"], preview["subject"]) == ("eve@example.com", "Hello Ada")
    assert store.new == {}
    sent = await cli.run("send", *to)
    (new,) = store.new.values()
    assert (sent.code, new.template) == (0, "order@1")
    assert json.loads(new.content)["variables"] == {"name": "Ada", "order": {"id": 17}}
    assert (await cli.run("send", *to, "-b", "both")).code == 1
