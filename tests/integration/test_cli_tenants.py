"""`--tenant` of the commands that work for one tenant, against a real API over a memory store."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path

import pytest

from notifier.api.http.server import open_server
from notifier.domain.tenants import TenantId
from tests.integration.test_cli_api import MAIL, Cli
from tests.memory_suppressions import MemorySuppressions
from tests.unit.fakes_api import MemoryStore, make_api

SHOP = TenantId("shop")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def suppressions() -> MemorySuppressions:
    return MemorySuppressions()


@pytest.fixture
async def cli(
    store: MemoryStore, suppressions: MemorySuppressions, tmp_path: Path
) -> AsyncIterator[Cli]:
    app = make_api(store, suppressions=suppressions)
    async with open_server(app, host="127.0.0.1", port=0, grace_s=5) as port:
        yield Cli(f"http://127.0.0.1:{port}", tmp_path)


async def test_a_notification_is_sent_for_the_tenant_that_is_named(
    cli: Cli, store: MemoryStore
) -> None:
    done = await cli.run(*MAIL, "-t", "ada@example.com", "--tenant", "shop")
    assert (done.code, [item.tenant for item in store.new.values()]) == (0, [SHOP])
    wrong = await cli.run(*MAIL, "-t", "ada@example.com", "--tenant", "No")
    assert (wrong.code, len(store.new)) == (2, 1)


async def test_templates_are_those_of_the_tenant_that_is_named(
    cli: Cli, store: MemoryStore, tmp_path: Path
) -> None:
    texts = tmp_path / "texts" / "order"
    texts.mkdir(parents=True)
    (texts / "en.email.subject").write_text("Hello {{ name }}")
    (texts / "en.email.txt").write_text("Order {{ order.id }}")
    of_shop = ("--tenant", "shop")
    assert (await cli.run("templates", "push", str(texts.parent), *of_shop)).code == 0
    assert list(store.templates.saved) == [(SHOP, "order")]
    again = await cli.run("templates", "push", str(texts.parent), *of_shop)
    assert again.out == "order  unchanged, version 1\n"
    assert "order" in (await cli.run("templates", "list", *of_shop)).out
    assert "Order {{ order.id }}" in (await cli.run("templates", "show", "order", *of_shop)).out
    assert (await cli.run("templates", "show", "order")).code == 1


async def test_an_import_of_several_rows_shows_them_and_needs_a_yes(
    cli: Cli, suppressions: MemorySuppressions, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("channel,recipient\nemail,a@example.com\nemail,b@example.com\nfax,c\n")
    shown = await cli.run("suppressions", "import", str(path), "--dry-run")
    assert (shown.code, shown.out) == (0, "3 rows (email 2, fax 1)\n")
    unasked = await cli.run("suppressions", "import", str(path))
    assert (unasked.code, "--yes" in unasked.err, suppressions.stored) == (2, True, {})
    done = await cli.run("suppressions", "import", str(path), "--yes")
    assert (done.code, len(suppressions.stored)) == (1, 2)
    assert "2 added, 0 there already, 1 wrong" in done.out
    path.write_text("")
    assert (await cli.run("suppressions", "import", str(path), "--yes")).code == 2


async def test_suppressions_are_those_of_the_tenant_that_is_named(
    cli: Cli, suppressions: MemorySuppressions, tmp_path: Path
) -> None:
    of_shop = ("--tenant", "shop")
    add = ("suppressions", "add", "-c", "email", "-t", "ada@example.com", *of_shop)
    id_ = (await cli.run(*add)).out.split()[0]
    rows = tmp_path / "rows.csv"
    rows.write_text("channel,recipient\nemail,eve@example.com\n")
    assert (await cli.run("suppressions", "import", str(rows), *of_shop)).code == 0
    assert len(suppressions.stored) == 2
    listed = await cli.run("suppressions", "list", *of_shop)
    assert ("ada@example.com" in listed.out, "eve@example.com" in listed.out) == (True, True)
    as_csv = await cli.run("suppressions", "list", *of_shop, "--csv")
    read = list(csv.DictReader(StringIO(as_csv.out, newline="")))
    assert {row["recipient"] for row in read} == {"ada@example.com", "eve@example.com"}
    assert "ada@example.com" not in (await cli.run("suppressions", "list")).out
    assert (await cli.run("suppressions", "remove", id_)).code == 1
    assert (await cli.run("suppressions", "remove", id_, *of_shop)).code == 0
    assert len(suppressions.stored) == 1
