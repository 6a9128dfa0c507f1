"""`--key-file` of every command, against an API that asks for keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from notifier.api.http.server import open_server
from notifier.domain.keys import KeyScope
from tests.integration.test_cli_api import Cli
from tests.memory_access import memory_auth
from tests.unit.fakes_api import MemoryStore, make_api

AUTH, KEY = memory_auth(*KeyScope)


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    app = make_api(MemoryStore(), auth=AUTH)
    async with open_server(app, host="127.0.0.1", port=0, grace_s=5) as port:
        yield Cli(f"http://127.0.0.1:{port}", tmp_path)


async def test_the_key_in_the_file_is_sent_wherever_the_option_stands(
    cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    path.write_text(f"\ufeff{KEY.text}\r\n")
    assert "401" in (await cli.run("list")).err
    for words in (
        ("list", "--key-file", str(path)),
        ("--key-file", str(path), "workers"),
        ("suppressions", f"--key-file={path}", "list", "--tenant", "default"),
    ):
        done = await cli.run(*words)
        assert (done.code, done.err) == (0, ""), words


@pytest.mark.parametrize("text", [None, "", "ntf_live_x", "\xff"])
async def test_a_file_without_a_key_is_refused_by_name(
    cli: Cli, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "key"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    done = await cli.run("list", "--key-file", str(path))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"notifier: --key-file: {path}")
